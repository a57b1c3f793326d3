"""Run the HTTP server on the loopback interface, in a thread."""

from __future__ import annotations

import logging
import socket
import threading
import time

import uvicorn

from hrvol.errors import ResourceError
from hrvol.interactive.serve.access import Application

HOST = "127.0.0.1"

_START_SECONDS = 30.0

_STOP_SECONDS = 10.0

_CONNECTIONS = 64


class Server:
    """A server that runs until :meth:`close`.

    Parameters
    ----------
    application
        What answers.
    port
        Number of the port; 0: a free one.

    Attributes
    ----------
    port
        The port.

    Raises
    ------
    ResourceError
        The port is not free.
    """

    def __init__(self, application: Application, port: int = 0) -> None:
        self._socket = _bound(port)
        self.port: int = self._socket.getsockname()[1]
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it writes tracebacks
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
            server_header=False,
            ws="none",
            http="h11",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="hrvol-server", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ResourceError(f"{HOST}:{self.port}: the server did not start")
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """URL on this machine."""
        return f"http://{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End all connections and the thread."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()


def _bound(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise ResourceError(f"{HOST}:{port}: cannot be used: {error.strerror or error}") from None
    return found
