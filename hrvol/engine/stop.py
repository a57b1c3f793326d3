"""Stop a run on SIGTERM, SIGUSR1 or Ctrl-C, so that it can be resumed.

The first signal lets the blocks in progress finish and starts no others; after SIGTERM they have
:data:`GRACE` seconds, because a job system kills soon after. A second signal abandons them, as does a first
signal before any block is in progress. Abandoned blocks are computed again when the run is resumed.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 15.0
"""Seconds for the blocks in progress after SIGTERM. SLURM kills 30 s after it."""

ECHO = 1.0
"""Seconds in which the same signal counts once: job systems signal all processes, and scripts forward it."""

LOG = logging.getLogger("hrvol.run")

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


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
        Seconds for the blocks in progress after SIGTERM.
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
        if received == signal.SIGTERM:
            signal.setitimer(signal.ITIMER_REAL, grace)
        limit = f" within {grace:.0f} s" if received == signal.SIGTERM else ""
        second = "Ctrl-C again" if received == signal.SIGINT else "a second signal"
        LOG.warning("%s: finishing the blocks in progress%s (%s abandons them)", received.name, limit, second)

    previous = {number: signal.signal(number, handle) for number in (*_SIGNALS, signal.SIGALRM)}
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if ends and stop.requested else handler)
