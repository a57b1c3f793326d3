"""Let requests pass that name this machine and know the token, and whose bodies are not too large.

A page in a browser can send requests to this machine under a name that resolves to it (DNS rebinding); the
``Host`` header then has that name. Nothing of a request is read before host and token are checked.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from hrvol.errors import BusyError, HrvolError, InputError, ResourceError, ServerError, UsageError
from hrvol.interactive.wire.limits import REQUEST_BYTES
from hrvol.interactive.wire.messages import error_to_json

LOG = logging.getLogger("hrvol.interactive")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_DRAIN_SECONDS = 5.0

_HOST = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class Guarded:
    """An application behind the checks.

    Parameters
    ----------
    inner
        The application.
    token
        What clients have to know.
    limit
        Most bytes of a body.
    """

    def __init__(self, inner: Application, token: str, limit: int = REQUEST_BYTES) -> None:
        self._inner, self._token, self._limit = inner, token.encode(), limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
                return
            raise RuntimeError("found no HTTP request")
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        if refusal is not None:
            if refusal[0] == 413:
                await _drain(receive, self._limit)
            await _refuse(send, *refusal)
            return
        await self._inner(scope, _bounded(receive, self._limit), send)

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, HrvolError] | None:
        if _HOST.fullmatch(headers.get(b"host", b"")) is None:
            return 421, UsageError("host: found another name, expected 127.0.0.1 or localhost")
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            return 401, UsageError("token: found none or another one, expected that of the server")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return 400, InputError("request: found a damaged length")
        if len(length) > 15 or int(length) > self._limit:
            return 413, too_large(self._limit)
        return None


class TooLargeError(Exception):
    """A body has more bytes than it may have."""


def too_large(limit: int) -> HrvolError:
    """Return the error of a body that is too large."""
    return InputError(f"request: found more bytes than a request may have, expected at most {limit:,}")


async def _refuse(send: Send, status: int, error: HrvolError) -> None:
    LOG.warning("a request was refused: %s", error)
    body = json.dumps(error_to_json(error)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bounded(receive: Receive, limit: int) -> Receive:
    """Return a function that receives a body, which may come in parts and state no length."""
    left = limit

    async def part() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            await _drain(receive, limit)
            raise TooLargeError
        return message

    return part


async def _drain(receive: Receive, limit: int) -> None:
    """Read on, and keep nothing: a client that still sends when the connection ends sees no answer."""
    read = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while read <= limit:
                message = await receive()
                read += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error."""
    for kind, status in ((ServerError, 503), (ResourceError, 507), (BusyError, 409)):
        if isinstance(error, kind):
            return status
    return 400 if isinstance(error, HrvolError) else 500
