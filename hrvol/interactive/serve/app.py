"""The HTTP interface of a served session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hrvol.errors import InputError, one_line
from hrvol.interactive.serve.access import Application, Guarded, TooLargeError, status_of, too_large
from hrvol.interactive.serve.hosted import Hosted
from hrvol.interactive.serve.pen import DetachedError
from hrvol.interactive.wire.frame import Frame
from hrvol.interactive.wire.limits import REQUEST_BYTES
from hrvol.interactive.wire.messages import error_to_json
from hrvol.reading.bounded import parse_mapping

LOG = logging.getLogger("hrvol.interactive")

CLIENT, LINEAGE = "x-hrvol-client", "x-hrvol-lineage"
"""Headers with the name of the client, and with the lineage that it knows."""

_BODY_SECONDS = 60.0

_Answer = Callable[[Hosted, Request, bytes], Any]


def application(hosted: Hosted, token: str) -> Application:
    """Return the ASGI application that answers clients who know a token."""
    answers: list[tuple[str, str, _Answer]] = [
        ("GET", "/v1/volume", lambda host, call, body: host.about()),
        ("GET", "/v1/voxels", lambda host, call, body: host.voxels(*_query(call, "level", "box"))),
        ("POST", "/v1/attach", lambda host, call, body: host.attach(_client(call), _received(body))),
        ("DELETE", "/v1/attach", lambda host, call, body: host.release(_client(call))),
        (
            "GET",
            "/v1/drawn",
            lambda host, call, body: host.drawn(*_who(call), *_query(call, "after")),
        ),
        ("POST", "/v1/strokes", lambda host, call, body: host.draw(*_who(call), body)),
        ("PUT", "/v1/wanted", lambda host, call, body: host.want(*_who(call), body)),
        (
            "GET",
            "/v1/events",
            lambda host, call, body: host.news(*_who(call), *_query(call, "after")),
        ),
    ]
    routes = [Route(path, _endpoint(hosted, answer), methods=[method]) for method, path, answer in answers]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: _no_such})
    return Guarded(inner, token)


def _endpoint(hosted: Hosted, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            body = await asyncio.wait_for(request.body(), _BODY_SECONDS)
            return await run_in_threadpool(lambda: _packed(answer(hosted, request, body)))
        except TooLargeError:
            return _failed(too_large(REQUEST_BYTES), 413)
        except TimeoutError:
            return _failed(InputError(f"request: found no end within {_BODY_SECONDS:.0f} s"), 408)
        except DetachedError:
            return JSONResponse({"error": "Detached", "message": "attach first"}, 409)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            if status_of(error) == 500:
                LOG.error("a request failed: %s", one_line(error))
                LOG.debug("unexpected error", exc_info=error)
            extra = {}
            if request.url.path == "/v1/strokes":
                extra["received"] = hosted.received(request.headers.get(CLIENT, ""))
            return _failed(error, status_of(error), **extra)

    return respond


def _packed(found: Any) -> Response:
    """Return an answer; compressing arrays takes a while, so this is called in a thread."""
    if isinstance(found, Frame):
        return Response(found.encode(), media_type="application/octet-stream")
    return JSONResponse({} if found is None else found)


def _failed(error: Exception, status: int, **extra: Any) -> Response:
    return JSONResponse(error_to_json(error) | extra, status)


async def _no_such(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _failed(InputError("request: found a path or method that the server does not have"), status)


def _query(request: Request, *names: str) -> tuple[str, ...]:
    return tuple(request.query_params.get(name, "") for name in names)


def _client(request: Request) -> str:
    name = request.headers.get(CLIENT, "")
    if not 16 <= len(name) <= 64 or not name.isalnum():
        raise InputError("request: found no name of a client")
    return str(name)


def _who(request: Request) -> tuple[str, str]:
    return _client(request), request.headers.get(LINEAGE, "")


def _received(body: bytes) -> int:
    received = parse_mapping(body, "request", limit=4096).get("received")
    if type(received) is not int or not 0 <= received < 2**48:
        raise InputError("request: found no number of changes")
    return received
