"""Stop a run on SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C, so that it can be resumed.

The first signal lets the blocks in progress finish and starts no others; after SIGTERM and SIGHUP they have
:data:`GRACE` seconds, because a job system kills soon after. A second signal abandons them, as does a first
signal before any block is in progress. Abandoned blocks are computed again when the run is resumed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 15.0
"""Seconds for the blocks in progress after SIGTERM or SIGHUP. SLURM kills 30 s after SIGTERM."""

ECHO = 1.0
"""Seconds in which the same signal counts once: job systems signal all processes, and scripts forward it."""

LOG = logging.getLogger("hrvol.run")

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)

STOPPED, INTERRUPTED = 75, 130
"""Exit codes of a program that was stopped: by Ctrl-C ``INTERRUPTED``, otherwise ``STOPPED``."""

_HURRIED = (signal.SIGTERM, signal.SIGHUP)

_postponed: list[int] | None = None


class Abandoned(BaseException):
    """Raised to abandon the blocks in progress. Not an ``Exception``, so that no task swallows it."""


class Stop:
    """State of a request to stop a run.

    Attributes
    ----------
    signal
        The first signal received, or ``None``.
    working
        Whether blocks may be in progress that should finish; set by the run.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.working = False

    @property
    def requested(self) -> bool:
        """Whether no further block may start."""
        return self.signal is not None

    def request(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Request a stop after the blocks in progress; the first signal is kept."""
        self.signal = self.signal or number


@contextmanager
def stop_signals(grace: float = GRACE, *, ends: bool = False) -> Iterator[Stop]:
    """Turn signals into an orderly stop while the ``with`` statement lasts.

    Parameters
    ----------
    grace
        Seconds for the blocks in progress after SIGTERM or SIGHUP.
    ends
        Whether the program ends after the ``with`` statement: signals are then ignored once a stop was
        requested, because a late second signal would change the exit code.

    Yields
    ------
    Stop
        Pass it to :func:`hrvol.segment_volume`. Outside the main thread, where Python handles no signals,
        no signal requests it.
    """
    stop, requested_at = Stop(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if _postpone(number):
            return
        received = signal.Signals(number)
        nonlocal requested_at
        if received == stop.signal != signal.SIGINT and time.monotonic() - requested_at < ECHO:
            return
        if stop.signal is not None or received == signal.SIGALRM:
            raise Abandoned(received.name)
        stop.request(received)
        requested_at = time.monotonic()
        if not stop.working:
            raise Abandoned(received.name)
        if received in _HURRIED:
            signal.setitimer(signal.ITIMER_REAL, grace)
        limit = f" within {grace:.0f} s" if received in _HURRIED else ""
        second = "Ctrl-C again" if received == signal.SIGINT else "a second signal"
        LOG.warning("%s: finishing the blocks in progress%s (%s abandons them)", received.name, limit, second)

    previous = _install(handle, (*SIGNALS, signal.SIGALRM))
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if ends and stop.requested else handler)


@contextmanager
def program_signals() -> Iterator[None]:
    """End a program in order on a signal, while the ``with`` statement lasts.

    Outside :func:`stop_signals` the first signal raises :class:`Abandoned` (Ctrl-C: ``KeyboardInterrupt``);
    a later one ends the process at once, in case something waits while the program ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received_at: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received_at
        if _postpone(number):
            return
        if received_at is None:
            received_at = time.monotonic()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Abandoned(signal.Signals(number).name)
        if time.monotonic() - received_at >= ECHO:
            os._exit(INTERRUPTED if number == signal.SIGINT else STOPPED)

    previous = _install(handle, SIGNALS)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is handle:  # after a requested stop signals stay ignored
                signal.signal(number, handler)


@contextmanager
def postponed() -> Iterator[None]:
    """Postpone signals to the end of the ``with`` statement, in which an exception would do harm."""
    global _postponed
    if _postponed is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _postponed = []
    try:
        yield
    finally:
        received, _postponed = _postponed, None
        for number in received:
            signal.raise_signal(number)


def _postpone(number: int) -> bool:
    """Return whether a signal is postponed."""
    if _postponed is None:
        return False
    _postponed.append(number)
    return True


def _install(handle: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> dict[int, Any]:
    """Install a handler and return the previous ones. SIGHUP stays ignored where it is: that is ``nohup``."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    return {number: signal.signal(number, handle) for number in numbers if number not in ignored}
