"""Save strokes in the background: threads that write soon after each change, and try again after errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SYNC = 0.4
"""Seconds from a change until its record is safe from a power cut, if the disk is quick."""

SAVE = 1.2
"""Seconds from a change until other programs read it."""

RETRY = 2.0
"""Seconds from an error until the next attempt."""


class Saver:
    """A thread that saves some time after it was reported that there is something to save.

    Parameters
    ----------
    delay
        Seconds from the first report until ``save`` is called.
    save
        Saves what there is; raises if it cannot.
    failed
        Called with each error; ``save`` is called again :data:`RETRY` seconds later.
    early
        Called at each report until then.
    """

    def __init__(
        self,
        delay: float,
        save: Callable[[], None],
        failed: Callable[[Exception], None],
        early: Callable[[], None] | None = None,
    ) -> None:
        self._delay, self._save, self._failed, self._early = delay, save, failed, early
        self._changed = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hrvol-strokes", daemon=True)
        self._thread.start()

    def report(self) -> None:
        """Say that there is something to save; returns at once."""
        self._changed.set()

    def end(self) -> None:
        """End the thread, once it has finished what it saves now."""
        self._ends.set()
        self._changed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():  # looked at first: the end is reported, too, and may be cleared
            self._changed.wait()
            if self._ends.is_set():
                return
            try:
                self._wait(time.monotonic() + self._delay)
                self._changed.clear()  # before it is saved: what is reported from now on is saved next time
                self._save()
            except Exception as error:  # the thread has to live on
                self._failed(error)
                self._changed.set()
                self._ends.wait(RETRY)

    def _wait(self, end: float) -> None:
        if self._early is None:
            self._ends.wait(self._delay)
            return
        while not self._ends.is_set() and (left := end - time.monotonic()) > 0:
            if self._changed.wait(left):
                self._changed.clear()
                self._early()
