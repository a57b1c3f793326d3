"""How far a run is: one callback for the pipeline, shown as a bar or as log lines.

The pipeline calls ``progress(stage, done, total)`` in voxels, often and possibly from several threads;
rate and time left are worked out where they are shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

ProgressCallback = Callable[[str, int, int], None]
"""``progress(stage, done, total)``: what is done, voxels done (in this and earlier runs), all voxels."""

_LATE = 4096  # finished tasks whose late reports are told apart


class Tally:
    """Adds up the voxels of tasks that report from several workers, in any order.

    A task counts with the most it has reported; once finished it counts in full, and once failed not at
    all, whatever arrives late.

    Parameters
    ----------
    progress
        Called with the sum; ``None`` to count silently.
    stage
        Passed on to ``progress``.
    total, done
        Voxels of all tasks, and those done before this run.
    """

    def __init__(self, progress: ProgressCallback | None, stage: str, total: int, done: int = 0) -> None:
        self._progress, self._stage, self._total, self.done = progress, stage, total, done
        self._partial: dict[Hashable, int] = {}
        self._over: dict[Hashable, None] = {}  # the latest: older ones have nothing on the way
        self._lock = threading.Lock()
        self._show()

    def report(self, task: Hashable, voxels: int) -> None:
        """Note that ``task`` has done ``voxels`` of its voxels so far."""
        with self._lock:
            if task in self._over:
                return
            self._partial[task] = max(voxels, self._partial.get(task, 0))
            self._show()

    def finish(self, task: Hashable, voxels: int) -> None:
        """Note that ``task`` is over, having done ``voxels`` (0 where it failed)."""
        with self._lock:
            self._partial.pop(task, None)
            self._over[task] = None
            if len(self._over) > _LATE:
                del self._over[next(iter(self._over))]
            self.done += voxels
            self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress(
                self._stage, min(self.done + sum(self._partial.values()), self._total), self._total
            )


def count(number: float) -> str:
    """Return a number of voxels with three digits and a letter, e.g. ``1.23 M``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """Return a time span in the two largest units, e.g. ``2 h 05 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
