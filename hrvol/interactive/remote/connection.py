"""Connect to a server of a session, and stay connected: what is lost with a connection is sent again."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from numpy.typing import NDArray

from hrvol.errors import BusyError, HrvolError, InputError, ServerError, StrokesError, UsageError, one_line
from hrvol.interactive.remote.attaching import attach, grid_of, pieces_of, table_of
from hrvol.interactive.remote.drawing import RemoteDrawing
from hrvol.interactive.remote.kept import Kept
from hrvol.interactive.remote.link import DetachedError, Link, RefusedError
from hrvol.interactive.remote.outbox import Outbox, frame_of
from hrvol.interactive.remote.session import RemoteSession, Wish
from hrvol.interactive.remote.volume import RemoteVolume, TileCache, open_levels
from hrvol.interactive.wire.token import checked_token, read_token

BEGIN_SECONDS = 300.0
"""Seconds in which a server has to begin a session."""

_QUIET_SECONDS = 3.0  # of a lost connection that are not worth a message

_PAUSES = (0.1, 0.2, 0.5, 1.0)  # seconds before one tries again

_END_SECONDS = 10.0  # in which changes are sent when the connection is closed


class Connection:
    """A connection to ``hrvol serve``; use :func:`connect`.

    Attributes
    ----------
    url
        Of the server.
    levels
        The volume at all its resolutions, the finest first.
    drawing
        The strokes; drawing in them works while the server cannot be reached, too.
    """

    drawing: RemoteDrawing

    def __init__(self, url: str, token: str) -> None:
        link = Link(url, token, uuid4().hex)
        try:
            about = link.json("GET", "/v1/volume")
            self._kept = Kept(str(about.get("strokes")), uuid4().hex)
        finally:
            link.close()
        self.url = link.url
        self._link = Link(url, token, self._kept.client)
        self.levels: tuple[RemoteVolume, ...] = ()
        self._tiles: TileCache | None = None
        self._outbox = Outbox(self.url)
        self._outbox.restore(self._kept.first - 1, self._kept.changes)
        self._lineage = ""
        self._attached = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._wish: tuple[int, dict[str, Any]] = (0, Wish().to_json())
        self._sent = 0
        self._session: RemoteSession | None = None
        self._sessions = secrets.randbits(40)  # not those of another client
        self._news = 0
        self._lost_at: float | None = None
        kept = self._kept
        # Number after those in the file; 0 without a file.
        self._kept_until = kept.first + len(kept.changes) if kept.changes else 0
        try:
            self.levels, self._tiles = open_levels(self._link)
            self._attach()
        except DetachedError:
            self._end()
            raise BusyError(
                f"{self.url}: found another client that draws, expected it to end first"
            ) from None
        except BaseException:
            with suppress(Exception):
                self._link.call("DELETE", "/v1/attach")
            self._end()
            raise
        names = (("sender", self._sending), ("news", self._listening))
        self._threads = [
            threading.Thread(target=run, name=f"hrvol-{name}", daemon=True) for name, run in names
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def volume(self) -> RemoteVolume:
        """The volume."""
        return self.levels[0]

    def session(self, recipe: str | Path | None = None, *, timeout: float = BEGIN_SECONDS) -> RemoteSession:
        """Begin a session on the server; an earlier one is ended.

        Parameters
        ----------
        recipe
            A preset's name, or a recipe file on this machine; ``None``: the recipe of the server.
        timeout
            Seconds that this may take.

        Raises
        ------
        RecipeError
            The recipe is not valid.
        ServerError
            The server does not answer in time.
        """
        with self._lock:
            self._sessions += 1
            session = RemoteSession(
                self.volume.shape,
                self._sessions,
                lambda wish: self._want(session, wish),
                self.drawing.version_of,
            )
            earlier, self._session = self._session, session
        if earlier is not None:
            earlier.close()
        try:
            session.begin(recipe, timeout)
        except TimeoutError:
            session.close()
            raise ServerError(f"{self.url}: found no session within {timeout:.0f} s") from None
        except BaseException:
            session.close()
            raise
        return session

    def close(self) -> None:
        """Send what was drawn, and end the connection.

        Raises
        ------
        ServerError
            The server cannot be reached. What it has not received is kept on this machine, until the next
            connection to these strokes.
        """
        self.drawing.close()

    def _close(self) -> None:
        if self._closing.is_set():
            return
        if self._session is not None:
            self._session.close()
        sent = self._outbox.wait(_END_SECONDS if self._lost_at is None else 1.0)
        self._closing.set()
        self._outbox.new.set()
        if self._session is not None:
            self._session.fail(ServerError(f"{self.url}: the connection was closed"))
        if sent:
            with suppress(Exception):
                self._link.call("DELETE", "/v1/attach")
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(0.5)
        first, waiting = self._outbox.waiting()
        self._kept.write(first, waiting)
        path = self._kept.path
        self._end()
        if waiting:
            raise ServerError(
                f"{self.url}: found {len(waiting):,} changes that the server has not received; they are kept"
                f" in {path}, and the next connection sends them"
            )

    def _end(self) -> None:
        if self._tiles is not None:
            self._tiles.close()
        self._link.close()
        self._kept.close()

    def _want(self, session: RemoteSession, wish: Wish) -> None:
        with self._lock:
            if session is self._session:
                self._wish = self._wish[0] + 1, wish.to_json()
        self._outbox.new.set()

    # Sending

    def _attach(self) -> None:
        """Begin to draw; load the strokes if others may have changed them."""
        reply = attach(self._link, self._outbox.acked, self._outbox.last)
        self._outbox.received(reply["received"])
        lineage = str(reply["lineage"])
        if lineage != self._lineage:
            if not self._lineage:
                grid = grid_of(reply, self.volume, self.url)
                self.drawing = RemoteDrawing(grid, self.volume, self._outbox, self.url, self._close)
            table = table_of(reply, self.drawing.grid, self.url)
            try:
                self.drawing.load(table, pieces_of(self._link, lineage))
            except StrokesError:
                self._kept.set_aside()
                raise
            self._lineage, self._news = lineage, 0
        self._sent = 0
        self._attached.set()

    def _sending(self) -> None:
        tries = 0
        while not self._closing.is_set():
            self._outbox.new.wait(1.0)
            self._outbox.new.clear()
            try:
                if self._send():
                    self._found()
                tries = 0
            except Exception as error:
                if self._closing.is_set():
                    return
                self._outbox.new.set()
                self._failed(error)
                self._closing.wait(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1

    def _send(self) -> bool:
        """Send what waits: first changes, then what is wanted after them; return whether there was any."""
        sent = not self._attached.is_set()
        if sent:
            self._attach()
        with self._lock:
            revision, wish = self._wish
        last = self._outbox.last
        while self._outbox.acked < last:
            first, changes = self._outbox.batch(last)
            body = frame_of(first, changes).encode()
            reply = self._link.json("POST", "/v1/strokes", content=body, lineage=self._lineage)
            received = reply.get("received")
            if type(received) is not int or received < first:
                raise InputError(f"{self.url}: found no receipt of changes of strokes")
            self._outbox.received(received)
            sent = True
        if revision != self._sent:
            self._link.call("PUT", "/v1/wanted", values=wish, lineage=self._lineage)
            self._sent, sent = revision, True
        return sent

    def _failed(self, error: Exception) -> None:
        if isinstance(error, DetachedError):
            self._attached.clear()
        elif isinstance(error, RefusedError):
            self._outbox.refused(error.received)
            self._lineage = "other"  # what is drawn here differs from now on
            self._attached.clear()
            self.drawing.report(str(error.error))
        elif isinstance(error, ServerError):
            self._lost(error)
            self._keep()
        else:
            self._attached.clear()
            line = str(error) if isinstance(error, HrvolError) else one_line(error)
            self.drawing.report(line)
            self._keep()

    def _lost(self, error: Exception) -> None:
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        if now - self._lost_at > _QUIET_SECONDS:
            self.drawing.report(f"{error}; what is drawn is kept, and sent later")

    def _keep(self) -> None:
        first, waiting = self._outbox.waiting()
        if waiting and self._kept_until != first + len(waiting):
            with suppress(OSError):
                self._kept.write(first, waiting)
                self._kept_until = first + len(waiting)

    def _found(self) -> None:
        self._lost_at = None
        if self._kept_until and self.drawing.saved:
            self._kept.write(1, [])
            self._kept_until = 0
        if self.drawing.problem:
            self.drawing.report("")

    # News

    def _listening(self) -> None:
        while not self._closing.is_set():
            if not self._attached.wait(0.5):
                continue
            lineage = self._lineage
            try:
                params = {"after": str(self._news)}
                frame = self._link.frame("GET", "/v1/events", params=params, lineage=lineage)
                self._deliver(frame.values.get("events"), frame.arrays)
                if self._lost_at is not None and self.drawing.saved:
                    self._found()
            except DetachedError:
                if lineage == self._lineage:
                    self._attached.clear()
                    self._outbox.new.set()
            except ServerError as error:
                if not self._closing.wait(_PAUSES[1]):
                    self._lost(error)
            except Exception as error:
                if not self._closing.wait(_PAUSES[3]):
                    self.drawing.report(one_line(error))

    def _deliver(self, events: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
        for event in events if isinstance(events, list) else []:
            number, kind, values = event["number"], str(event["kind"]), dict(event["values"])
            own = {str(name): arrays[f"{number}.{name}"] for name in event["arrays"]}
            self._news = max(self._news, int(number))
            session = self._session
            if session is not None:
                try:
                    session.take(kind, values, own)
                except HrvolError as error:  # a damaged answer
                    session.take("error", {"line": str(error)}, {})


def connect(url: str, token: str | None = None, *, token_file: str | Path | None = None) -> Connection:
    """Connect to ``hrvol serve`` on another machine, through a tunnel.

    Parameters
    ----------
    url
        ``http://127.0.0.1:PORT``: the end of the tunnel on this machine.
    token, token_file
        The token that the server printed, or a file with it that only you can read.

    Returns
    -------
    Connection
        With the attributes ``volume`` and ``drawing``, and ``session(recipe)``; close it at the end.

    Raises
    ------
    ServerError
        The server cannot be reached.
    UsageError
        The URL is not of this machine, or the token is wrong.
    InputError
        The token cannot be read, or something else answers.
    BusyError
        Another client draws.
    """
    if (token is None) == (token_file is None):
        raise UsageError("connect: found a token and a file, or neither, expected one of them")
    text = read_token(token_file) if token is None and token_file is not None else str(token).strip()
    return Connection(url, checked_token(text, "token"))
