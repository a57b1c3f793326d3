"""Scheduler files, storage options, files of weights."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import shown

from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, nothing, written
from benchmarks.runs.hostile.sound import SEGMENT

SCHEDULERS, STORAGE, WEIGHTS = "scheduler files", "storage options", "weights files"


_NO_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
}


def cases() -> Iterator[Case]:
    yield from _schedulers()
    yield from _storage()
    yield from _weights()


def _schedulers() -> Iterator[Case]:
    command = (*SEGMENT[:5], "--scheduler-file", "new.json")
    for name, data in {
        "empty": b"",
        "no JSON": b"<html>",
        "null": b"null",
        "a list": b"[]",
        "nested": b"[" * 100_000,
        "no address": b'{"type": "Scheduler", "id": "x", "workers": {}}',
        "address null": b'{"address": null}',
        "address a number": b'{"address": 1}',
        "address a list": b'{"address": ["tcp://127.0.0.1:9"]}',
        "address empty": b'{"address": ""}',
        "tls": b'{"address": "tls://127.0.0.1:9"}',
        "ucx": b'{"address": "ucx://127.0.0.1:9"}',
        "http": b'{"address": "http://127.0.0.1:9"}',
        "unknown protocol": b'{"address": "gopher://127.0.0.1:9"}',
        "port 99999": b'{"address": "tcp://127.0.0.1:99999"}',
        "port text": b'{"address": "tcp://127.0.0.1:x"}',
        "no port": b'{"address": "tcp://127.0.0.1"}',
        "escapes": b'{"address": "\\u001b[31m"}',
        "binary": bytes(range(256)),
        "nobody listens": b'{"address": "tcp://127.0.0.1:9"}',
    }.items():
        yield Case(
            SCHEDULERS,
            name,
            command,
            written("new.json", data),
            REFUSE,
            ("new.json", "scheduler", "127.0.0.1"),
        )
    for name, make in _NO_FILES.items():
        yield Case(
            SCHEDULERS,
            name,
            command,
            lambda folder, m=make: m(folder / "new.json"),
            REFUSE,
            ("new.json", "scheduler"),
        )


def _storage() -> Iterator[Case]:
    for option in (
        "",
        "=",
        "=x",
        "key",
        "a=b",
        "anon=maybe",
        "\x1b[31m=1",
        "a=" + "x" * 100_000,
        "endpoint_url=nonsense",
        "a={",
        "client_kwargs=1",
    ):
        for path in ("v.zarr", "file:///none.zarr"):
            expect = EITHER if "=" in option and option[0] != "=" and path == "v.zarr" else REFUSE
            yield Case(
                STORAGE,
                f"{shown(option)} of {path}",
                ("info", path, "--storage-option", option),
                nothing,
                expect,
                ("storage", "none.zarr", "v.zarr"),
            )
    for option in (
        "endpoint_url=nonsense",
        "endpoint_url=ftp://x",
        "anon=maybe",
        "client_kwargs=1",
        "nonsense=1",
        "secret=x",
        "config_kwargs={",
    ):
        words = ("info", "s3://none/none.zarr", "--storage-option", option, "--storage-option", "key=x")
        more = (
            () if option.startswith("endpoint") else ("--storage-option", "endpoint_url=http://127.0.0.1:9")
        )
        yield Case(
            STORAGE, f"{option} of a bucket", (*words, *more), nothing, REFUSE, ("s3://", "storage", option)
        )
    yield Case(
        STORAGE,
        "one key twice",
        ("info", "v.zarr", "--storage-option", "a=1", "--storage-option", "a=2"),
        nothing,
        EITHER,
    )


def _weights() -> Iterator[Case]:
    command = (
        "train",
        "v.zarr",
        "s.zarr",
        "-o",
        "new.hrvol",
        "--recipe",
        "deep.yaml",
        "--offline",
        "--weights",
    )

    def tensors(header: Any, data: bytes = bytes(64)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"cls_token": {"dtype": "F32", "shape": [1, 1, 16], "data_offsets": [0, 64]}}
    files: dict[str, bytes] = {
        "empty": b"",
        "garbage": b"garbage" * 100,
        "header only": struct.pack("<Q", 100),
        "header of 2^63": struct.pack("<Q", 2**63) + b"{}",
        "header of 200 MB": struct.pack("<Q", 200 * 2**20) + b"{}",
        "header null": tensors(b"null"),
        "header nested": tensors(b'{"a":' * 10_000),
        "no tensors": tensors({}),
        "one tensor": tensors(one),
        "offsets outside": tensors({"cls_token": one["cls_token"] | {"data_offsets": [0, 10**9]}}),
        "offsets reversed": tensors({"cls_token": one["cls_token"] | {"data_offsets": [64, 0]}}),
        "dtype odd": tensors({"cls_token": one["cls_token"] | {"dtype": "F99"}}),
        "shape odd": tensors({"cls_token": one["cls_token"] | {"shape": [10**9] * 3}}),
        "shape negative": tensors({"cls_token": one["cls_token"] | {"shape": [-1]}}),
        "names of escapes": tensors({"\x1b[31m": one["cls_token"]}),
        "a thousand tensors": tensors({f"t{n}": one["cls_token"] for n in range(1000)}),
        "metadata odd": tensors({"__metadata__": {"a": 1}, **one}),
        "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
        "a pickle in a zip": b"",
        "a numpy file": b"\x93NUMPY\x01\0",
        "HTML": b"<html>404</html>",
        "git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 88\n",
    }
    for suffix in (".safetensors", ".pth"):
        for name, data in files.items():
            file = f"new{suffix}"

            def damage(folder: Path, file: str = file, data: bytes = data, name: str = name) -> None:
                (folder / file).write_bytes(data)
                if name == "a pickle in a zip":
                    with zipfile.ZipFile(folder / file, "w") as archive:
                        archive.writestr("archive/data.pkl", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
                        archive.writestr("archive/version", "3")

            yield Case(WEIGHTS, f"{file}: {name}", (*command, file), damage, REFUSE, (file,), keep=("pwned",))
    for name, make in _NO_FILES.items():
        yield Case(
            WEIGHTS,
            name,
            (*command, "new.pth"),
            lambda folder, m=make: m(folder / "new.pth"),
            REFUSE,
            ("new.pth",),
        )
    for name in ("", "nonsense", "../x", "\x1b[31m", "dinov2_vits14/../../x"):
        for action in ("fetch", "path", "verify"):
            words = ("weights", action, name, *(("--offline",) if action == "fetch" else ()))
            yield Case(
                WEIGHTS,
                f"weights {action} {shown(name)}",
                words,
                nothing,
                REFUSE,
                ("network", "weights", name or "''"),
            )
