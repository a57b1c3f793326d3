"""A real S3 server on loopback: moto's, which checks signatures as S3 does, and counts what it is asked."""

import atexit
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import boto3
import requests
from moto import settings
from moto.core.authorization import enable_iam_authentication
from moto.server import ThreadedMotoServer


def flags_of(options: Mapping[str, str]) -> list[str]:
    """Return options for the command line, where secrets are in a private file."""
    handle, file = tempfile.mkstemp(prefix="hrvol-test-options-")  # for this account only
    with open(handle, "w") as stream:
        json.dump(options, stream)
    atexit.register(os.unlink, file)
    return ["--storage-options-file", file]


@dataclass(frozen=True)
class S3Server:
    """A server with one bucket and one user.

    Attributes
    ----------
    endpoint
        Its URL.
    key, secret
        Of the only user, who may do anything; nobody else may do anything.
    bucket
        Name of the bucket.
    log
        A line for each request so far, such as ``GET /bucket/key HTTP/1.1``.
    """

    endpoint: str
    key: str
    secret: str
    bucket: str = "tomo"
    log: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, str]:
        """Keywords of the file system."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    @property
    def flags(self) -> list[str]:
        """The same for the command line."""
        return flags_of(self.options)

    def url(self, path: str) -> str:
        """Return the URL of something in the bucket."""
        return f"s3://{self.bucket}/{path}"

    def client(self):
        """Return a client of S3 that has nothing to do with fsspec."""
        return _client("s3", self.endpoint, self.key, self.secret)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of all objects below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        """Return what an object holds."""
        return self.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.client().put_object(Bucket=self.bucket, Key=key, Body=data)

    @contextmanager
    def published(self, prefix: str) -> Iterator[None]:
        """Let anybody read the objects below a prefix, and nothing else, for a while.

        The server does not look at signatures meanwhile: where it does it knows no anonymous requests.
        """
        for key in self.keys(prefix):
            self.client().put_object_acl(Bucket=self.bucket, Key=key, ACL="public-read")
        settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = 0


class _Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage().partition('"')[2].partition('"')[0])


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server on a free port, in a thread of this process, so that it cannot outlive it."""
    log: list[str] = []
    logger, handler = logging.getLogger("werkzeug"), _Log(log)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{endpoint}/moto-api/reset", timeout=60).raise_for_status()  # moto keeps its objects
        # for as long as the process lives: without this, a server would begin with those of the one before
        people = _client("iam", endpoint, "anybody", "anything")
        user = f"beamline-{uuid.uuid4().hex}"
        people.create_user(UserName=user)
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        people.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=policy)
        made = people.create_access_key(UserName=user)["AccessKey"]
        found = S3Server(endpoint, made["AccessKeyId"], made["SecretAccessKey"], log=log)
        with enable_iam_authentication():
            found.client().create_bucket(Bucket=found.bucket)
            yield found
    finally:
        server.stop()
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _client(service: str, endpoint: str, key: str, secret: str):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
