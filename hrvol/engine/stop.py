"""Stopping on request, so that a run can be resumed: SIGTERM, SIGUSR1 and Ctrl-C.

The first signal lets the blocks in progress end and starts no others; after SIGTERM they have :data:`GRACE`
seconds, because a job system kills soon after. A second signal abandons them, and so does the first one
before there are any. Abandoned blocks are done again when the run is resumed.
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
"""Seconds that blocks in progress have after SIGTERM. SLURM kills 30 s after it."""

ECHO = 1.0
"""Seconds in which the same signal counts once: a job system tells all processes, and scripts pass it on."""

LOG = logging.getLogger("hrvol.run")

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Abandoned(BaseException):
    """Blocks in progress are to be left at once. No ``Exception``, so that no task swallows it."""


class Stop:
    """Whether a run has been asked to stop, and by what.

    Attributes
    ----------
    signal
        The first signal that came, or ``None``.
    working
        Whether there may be blocks in progress that are worth to be finished; set by the run.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.working = False

    @property
    def requested(self) -> bool:
        """Whether no other block may be started."""
        return self.signal is not None

    def request(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask the run to stop after the blocks in progress."""
        self.signal = self.signal or number


@contextmanager
def stop_signals(grace: float = GRACE, *, ends: bool = False) -> Iterator[Stop]:
    """Turn signals into an orderly stop while the ``with`` statement lasts.

    Parameters
    ----------
    grace
        Seconds that blocks in progress have after SIGTERM.
    ends
        Whether the program ends after this: once it was asked to, a signal that comes late, as the second of
        two may, is ignored. Else it would spoil the exit code.

    Yields
    ------
    Stop
        To be handed to :func:`hrvol.segment_volume`. Outside the main thread, where Python cannot listen to
        signals, it is never requested.
    """
    stop, when = Stop(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number: int, frame: FrameType | None) -> None:
        heard = signal.Signals(number)
        nonlocal when
        if heard == stop.signal != signal.SIGINT and time.monotonic() - when < ECHO:
            return
        if stop.signal is not None or heard == signal.SIGALRM:
            raise Abandoned(heard.name)
        stop.request(heard)
        when = time.monotonic()
        if not stop.working:
            raise Abandoned(heard.name)
        if heard == signal.SIGTERM:
            signal.setitimer(signal.ITIMER_REAL, grace)
        limit = f"; {grace:.0f} s for them" if heard == signal.SIGTERM else ""
        again = "Ctrl-C again" if heard == signal.SIGINT else "a second signal"
        LOG.warning("%s: finishing the blocks in progress%s (%s abandons them)", heard.name, limit, again)

    before = {number: signal.signal(number, hear) for number in (*_SIGNALS, signal.SIGALRM)}
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends and stop.requested else handler)
