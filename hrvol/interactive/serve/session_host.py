"""Give a session what the client wants of it, in a thread: the newest wish counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from hrvol.errors import HrvolError, UsageError, one_line
from hrvol.interactive.lane import Ticket
from hrvol.interactive.serve.events import Event, Events
from hrvol.interactive.serve.wanted import Ask, Wanted, WantedSession
from hrvol.interactive.session import Session
from hrvol.interactive.wire.frame import blob
from hrvol.interactive.wire.messages import (
    error_to_json,
    places_to_json,
    preview_to_json,
    quality_to_json,
)

Open = Callable[[WantedSession], Session]


class SessionHost:
    """The session of a client.

    Parameters
    ----------
    begin
        Begins a session.
    events
        Takes its news.
    number_of
        Returns the client's number for a version of the strokes.
    """

    def __init__(self, begin: Open, events: Events, number_of: Callable[[int], int]) -> None:
        self._begin, self._events, self._number_of = begin, events, number_of
        self._changed = threading.Condition()
        self._wanted: Wanted | None = None
        self._closed = self._resets = False
        self._done = Wanted()
        self._session: Session | None = None
        self._problem: Exception | None = None
        self._tickets: dict[int, Ticket[Any]] = {}
        self._thread = threading.Thread(target=self._run, name="hrvol-host", daemon=True)
        self._thread.start()

    def want(self, wanted: Wanted) -> None:
        """Take over what is wanted; returns at once."""
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()

    def reset(self) -> None:
        """End the session: another client comes."""
        with self._changed:
            self._wanted, self._resets = Wanted(), True
            self._changed.notify_all()

    def close(self) -> None:
        """End the session and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(30)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or self._closed)
                wanted, self._wanted = self._wanted, None
                resets, self._resets = self._resets, False
                if self._closed:
                    break
            assert wanted is not None
            try:
                if resets:
                    self._end()
                    self._done = Wanted()
                self._apply(wanted)
            except Exception as error:  # the thread has to live on
                self._events.put_error(one_line(error))
        self._end(wait=True)

    def _apply(self, wanted: Wanted) -> None:
        if wanted.session != self._done.session:
            self._end()
            self._done = Wanted(session=wanted.session, cancels=wanted.cancels)
            if wanted.session is not None:
                self._open(wanted.session)
        session, before, self._done = self._session, self._done, wanted
        if session is None:
            for ask in wanted.asks:
                problem = self._problem or UsageError("session: found none, expected one to ask")
                values = {"ask": ask.number, "answers": ask.kind, **error_to_json(problem)}
                self._events.put(f"answer {ask.number}", Event("answer", values))
            return
        if wanted.cancels != before.cancels:
            session.cancel()
        if wanted.weights != before.weights:
            self._try(lambda: setattr(session, "class_weights", dict(wanted.weights)))
        view = wanted.view
        if view is not None and view != before.view:
            self._try(lambda: session.view(view.plane, slice(*view.rows), slice(*view.columns), view.level))
        if wanted.live != before.live:
            self._try(lambda: setattr(session, "live", wanted.live))
        numbers = {ask.number for ask in wanted.asks}
        for number in set(self._tickets) - numbers:
            self._tickets.pop(number).cancel()
            self._events.forget(f"answer {number}")
        for ask in wanted.asks:
            if ask.number not in self._tickets:
                self._ask(session, ask)

    def _try(self, function: Callable[[], None]) -> None:
        try:
            function()
        except HrvolError as error:
            self._events.put_error(str(error))

    def _open(self, wanted: WantedSession) -> None:
        number, self._problem = wanted.number, None
        try:
            session = self._begin(wanted)
        except Exception as error:
            self._problem = error
            self._events.put("session", Event("session", {"session": number, **error_to_json(error)}))
            return
        self._session = session

        def previewed(preview: Any) -> None:
            values, arrays = preview_to_json(preview, self._number_of(preview.version))
            self._tell("preview", {"session": number, **values}, arrays)

        session.on_preview(previewed)
        # In the place of the last preview: only the newest of both is sent.
        session.on_nothing(lambda: self._events.put("preview", Event("nothing", {"session": number})))
        session.on_progress(
            lambda stage, done, total: self._tell(
                "progress", {"session": number, "stage": stage, "done": done, "total": total}
            )
        )
        session.on_error(self._events.put_error)
        self._events.put("session", Event("session", {"session": number}))

    def _tell(self, kind: str, values: dict[str, Any], arrays: Any = None) -> None:
        self._events.put(kind, Event(kind, values, arrays or {}))

    def _ask(self, session: Session, ask: Ask) -> None:
        kind = ask.kind
        ticket: Ticket[Any]
        if kind == "update":
            ticket = session.update()
        elif kind == "places":
            ticket = session.request_places(ask.count, ask.planes)
        elif kind == "quality":
            ticket = session.request_quality()
        else:
            ticket = session.request_model_bytes()
        self._tickets[ask.number] = ticket
        ticket.on_done(lambda done: self._events.put(f"answer {ask.number}", self._answer(ask, done)))

    def _answer(self, ask: Ask, ticket: Ticket[Any]) -> Event:
        values: dict[str, Any] = {"ask": ask.number, "answers": ask.kind}
        try:
            found = ticket.result(0)
        except CancelledError:
            return Event("answer", values | {"cancelled": True})
        except Exception as error:
            return Event("answer", values | error_to_json(error))
        if ask.kind == "update":
            preview, arrays = preview_to_json(found, self._number_of(found.version))
            return Event("answer", values | {"preview": preview}, arrays)
        if ask.kind == "places":
            return Event("answer", values | {"places": places_to_json(found)})
        if ask.kind == "quality":
            return Event(
                "answer", values | {"quality": quality_to_json(found, self._number_of(found.version))}
            )
        return Event("answer", values, {"model": blob(found)})

    def _end(self, *, wait: bool = False) -> None:
        """End the session; it waits for what cannot be interrupted."""
        session, self._session = self._session, None
        tickets, self._tickets = self._tickets, {}
        for number, ticket in tickets.items():
            ticket.cancel()
            self._events.forget(f"answer {number}")
        for slot in ("preview", "progress", "session"):
            self._events.forget(slot)
        if session is None:
            return
        session.cancel()
        if wait:
            session.close()
        else:
            threading.Thread(target=_quietly, args=(session.close,), name="hrvol-close", daemon=True).start()


def _quietly(function: Callable[[], None]) -> None:
    with suppress(Exception):  # nobody is there to hear
        function()
