"""Send requests to a server; errors are those that the server raised, or say that it cannot be reached."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from hrvol.errors import HrvolError, InputError, MissingExtraError, ServerError, UsageError
from hrvol.interactive.wire.frame import Frame
from hrvol.interactive.wire.limits import ANSWER_BYTES
from hrvol.interactive.wire.messages import error_from_json
from hrvol.reading.bounded import parse_mapping

try:
    import httpx
except ModuleNotFoundError:
    raise MissingExtraError(
        "connect: found no package httpx, expected it: pip install 'hrvol[remote]'"
    ) from None

CLIENT, LINEAGE = "x-hrvol-client", "x-hrvol-lineage"

SECONDS = 20.0
"""Seconds without any byte after which a request is given up."""

_CONNECT_SECONDS = 5.0

_ERROR_BYTES = 2**16


class DetachedError(Exception):
    """The server does not know this client as the one that draws."""


class RefusedError(Exception):
    """A change of strokes was refused.

    Attributes
    ----------
    error
        Why.
    received
        Number of the last change that was made.
    """

    def __init__(self, error: HrvolError, received: int) -> None:
        super().__init__(str(error))
        self.error, self.received = error, received


class Link:
    """Requests to a server; any thread may call it.

    Parameters
    ----------
    url
        ``http://127.0.0.1:PORT`` or ``http://localhost:PORT``.
    token
        The token of the server.
    client
        Name of this client.

    Raises
    ------
    UsageError
        The URL is another one. Requests are not encrypted: they reach other machines by a tunnel only.
    """

    def __init__(self, url: str, token: str, client: str) -> None:
        self.url = checked_url(url)
        timeout = httpx.Timeout(SECONDS, connect=_CONNECT_SECONDS)
        headers = {"authorization": f"Bearer {token}", CLIENT: client}
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Return the JSON values of an answer; errors as :meth:`call`."""
        return parse_mapping(self.call(method, path, **request), self.url)

    def frame(self, method: str, path: str, **request: Any) -> Frame:
        """Return the values and arrays of an answer; errors as :meth:`call`."""
        return Frame.decode(self.call(method, path, **request), self.url, ANSWER_BYTES)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        values: Any = None,
        lineage: str | None = None,
    ) -> bytes:
        """Send a request and return the bytes of the answer.

        Sent twice, each request means the same; so it is sent again at once if its connection is cut.

        Parameters
        ----------
        method, path, params
            Of the request.
        content, values
            The body: bytes, or JSON values.
        lineage
            Of the strokes, as far as known.

        Raises
        ------
        ServerError
            The server cannot be reached, or does not answer in time.
        DetachedError, RefusedError
            As they say.
        HrvolError
            What the server raised.
        """
        headers = {} if lineage is None else {LINEAGE: lineage}
        body = json.dumps(values).encode() if content is None and values is not None else content
        request = self._client.build_request(method, path, params=params, content=body, headers=headers)
        try:
            try:
                status, data = self._answer(request)
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if isinstance(error, httpx.ConnectError):
                    raise
                status, data = self._answer(request)
        except (httpx.HTTPError, RuntimeError) as error:  # the latter once it is closed
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ServerError(f"{self.url}: the server cannot be reached: {reason}") from None
        if status != 200:
            self._fail(status, data)
        return data

    def _answer(self, request: httpx.Request) -> tuple[int, bytes]:
        """Return the status and the bytes of an answer."""
        answer = self._client.send(request, stream=True)
        try:
            limit = ANSWER_BYTES if answer.status_code == 200 else _ERROR_BYTES
            return answer.status_code, _read(answer, limit, self.url)
        finally:
            answer.close()

    def _fail(self, status: int, data: bytes) -> None:
        try:
            values = parse_mapping(data, self.url)
        except InputError:
            raise ServerError(f"{self.url}: found status {status}, expected a server of hrvol") from None
        if values.get("error") == "Detached":
            raise DetachedError
        error = error_from_json(values)
        if status == 401:
            error = UsageError(f"{self.url}: found a wrong token, expected that of the server")
        received = values.get("received")
        if type(received) is int and status == 400:
            raise RefusedError(error, received)
        raise error


def checked_url(url: str) -> str:
    """Return the URL of a server on this machine, or of a tunnel; :class:`UsageError` for another."""
    text = (
        url.strip().replace("hrvol://", "http://", 1) if url.strip().startswith("hrvol://") else url.strip()
    )
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme != "http" or not parsed.port or not _is_loopback(parsed.host):
        raise UsageError(
            f"{url}: found no URL of this machine, expected http://127.0.0.1:PORT, a tunnel (ssh -L) to the"
            " server"
        )
    return f"http://{parsed.netloc.decode('ascii')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(answer: httpx.Response, limit: int, source: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in answer.iter_raw():
        size += len(part)
        if size > limit:
            raise ServerError(f"{source}: found an answer of more than {limit:,} bytes")
        parts.append(part)
    return b"".join(parts)
