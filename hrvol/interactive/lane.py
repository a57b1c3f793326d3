"""Run work in the background, one piece after the other, of which a newer one replaces an older one.

Work is cancelled by a :class:`Gate` that it checks between its steps. A :class:`Ticket` waits for its result.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_NICE = 10

_STEP = 0.01  # seconds between two looks at what holds a gate


class Cancelled(Exception):
    """The work is no longer wanted."""


class Gate:
    """Lets work pass, holds it or ends it.

    Parameters
    ----------
    holds
        Events that hold the work while they are set.
    """

    def __init__(self, holds: Iterable[threading.Event] = ()) -> None:
        self._holds = tuple(holds)
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the work is to end."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the work when it checks the next time."""
        self._cancelled.set()

    def check(self) -> None:
        """Return when the work may continue.

        Raises
        ------
        Cancelled
            It is to end.
        """
        while any(hold.is_set() for hold in self._holds) and not self._cancelled.is_set():
            self._cancelled.wait(_STEP)
        if self._cancelled.is_set():
            raise Cancelled


class Ticket(Generic[T]):
    """A result that is computed in the background.

    Parameters
    ----------
    gate
        Of the work.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._future: Future[T] = Future()

    @property
    def done(self) -> bool:
        """Whether there is a result or an error, or the work was cancelled."""
        return self._future.done()

    @property
    def cancelled(self) -> bool:
        """Whether the work was cancelled, by :meth:`cancel` or by newer work of its kind."""
        return self._future.cancelled()

    def cancel(self) -> None:
        """Cancel the work."""
        self.gate.cancel()
        self._future.cancel()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result.

        Parameters
        ----------
        timeout
            Seconds; ``None``: as long as it takes.

        Raises
        ------
        TimeoutError
            It takes longer.
        concurrent.futures.CancelledError
            The work was cancelled.
        """
        return self._future.result(timeout)

    def on_done(self, function: Callable[[Ticket[T]], None]) -> None:
        """Call a function, in the thread of the work, when :attr:`done` becomes true; or now if it is."""
        self._future.add_done_callback(lambda _: function(self))

    def resolve(self, value: T) -> None:
        """Set the result, unless the work was cancelled."""
        with suppress(InvalidStateError):
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Set an error, unless the work was cancelled."""
        with suppress(InvalidStateError):
            self._future.set_exception(error)


class Lane:
    """A thread that does one piece of work after the other.

    Parameters
    ----------
    name
        Of the thread.
    on_error
        Called with what work raises, in the lane's thread.
    holds
        Events that hold the work while they are set.
    yields
        Whether other threads get the processor first, where the system can do that (Linux).

    Attributes
    ----------
    busy
        Set while work is done or waits.
    """

    def __init__(
        self,
        name: str,
        on_error: Callable[[BaseException], None] = lambda error: None,
        holds: Iterable[threading.Event] = (),
        *,
        yields: bool = False,
    ) -> None:
        self.busy = threading.Event()
        self._on_error, self._holds, self._yields = on_error, tuple(holds), yields
        self._waiting: dict[str, tuple[Ticket[Any], Callable[[Gate], Any]]] = {}
        self._running: tuple[str, Ticket[Any]] | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"hrvol-{name}", daemon=True)
        self._thread.start()

    def submit(self, kind: str, function: Callable[[Gate], T], *, restart: bool = True) -> Ticket[T]:
        """Do work as soon as the work before it is done; cancel older work of this kind.

        Parameters
        ----------
        kind
            Name of the kind.
        function
            The work, called with the gate that it has to check.
        restart
            Whether older work is cancelled even if it has begun.
        """
        ticket: Ticket[T] = Ticket(Gate(self._holds))
        with self._changed:
            older = [t for k, (t, _) in self._waiting.items() if k == kind]
            if restart and self._running is not None and self._running[0] == kind:
                older.append(self._running[1])
            if self._closed:
                older = [ticket]
            else:
                self._waiting.pop(kind, None)
                self._waiting[kind] = ticket, function
                self.busy.set()
            self._changed.notify_all()
        for each in older:
            each.cancel()
        return ticket

    def cancel(self) -> None:
        """Cancel all work."""
        with self._changed:
            tickets = [ticket for ticket, _ in self._waiting.values()]
            self._waiting.clear()
            if self._running is not None:
                tickets.append(self._running[1])
        for ticket in tickets:
            ticket.cancel()

    def close(self, timeout: float = 30.0) -> None:
        """Cancel all work and end the thread; wait for it so many seconds at most."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        if self._yields and sys.platform == "linux":  # threads that it starts inherit this
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            with self._changed:
                self._running = None
                if not self._waiting:
                    self.busy.clear()
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                kind = next(iter(self._waiting))
                ticket, function = self._waiting.pop(kind)
                self._running = kind, ticket
            try:
                ticket.gate.check()
                ticket.resolve(function(ticket.gate))
            except (Cancelled, CancelledError):
                ticket.cancel()
            except BaseException as error:
                ticket.fail(error)
                if not ticket.cancelled:
                    self._on_error(error)
