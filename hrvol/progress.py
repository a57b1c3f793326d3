"""Report progress through one callback, and format counts, sizes and durations.

The pipeline calls ``progress(stage, done, total)`` often, possibly from several threads, and counts voxels.
Rate and remaining time are computed where they are displayed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

ProgressCallback = Callable[[str, int, int], None]
"""``progress(stage, done, total)``: name of the stage, voxels done (earlier runs included), all voxels."""

_RECENT = 4096  # finished tasks that are remembered, to ignore reports that arrive late


class Tally:
    """Add up the voxels of tasks that report from several workers, in any order.

    A running task counts with the largest number that it has reported, a finished one in full and a failed
    one not at all; reports that arrive after its end are ignored.

    Parameters
    ----------
    progress
        Called with the sum; ``None`` to count silently.
    stage
        Name of the stage, passed to ``progress``.
    total, done
        Voxels of all tasks, and voxels done before this run.
    """

    def __init__(self, progress: ProgressCallback | None, stage: str, total: int, done: int = 0) -> None:
        self._progress, self._stage, self._total, self.done = progress, stage, total, done
        self._partial: dict[Hashable, int] = {}
        self._finished: dict[Hashable, None] = {}  # the most recent ones, in order
        self._lock = threading.Lock()
        self._show()

    def report(self, task: Hashable, voxels: int) -> None:
        """Record that ``task`` has done ``voxels`` of its voxels so far."""
        with self._lock:
            if task in self._finished:
                return
            self._partial[task] = max(voxels, self._partial.get(task, 0))
            self._show()

    def finish(self, task: Hashable, voxels: int) -> None:
        """Record that ``task`` has ended with ``voxels`` done (0 if it failed)."""
        with self._lock:
            self._partial.pop(task, None)
            self._finished[task] = None
            if len(self._finished) > _RECENT:
                del self._finished[next(iter(self._finished))]
            self.done += voxels
            self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress(
                self._stage, min(self.done + sum(self._partial.values()), self._total), self._total
            )


def renamed(
    progress: ProgressCallback | None, *, stage: str | None = None, prefix: str = "", suffix: str = ""
) -> ProgressCallback | None:
    """Return a callback that reports to another one under a changed name of the stage.

    Parameters
    ----------
    progress
        Callback to report to; ``None`` gives ``None``.
    stage
        Name that replaces each stage's own; ``None`` keeps it.
    prefix, suffix
        Text before and after the name.
    """
    if progress is None:
        return None
    report = progress

    def renaming(own: str, done: int, total: int) -> None:
        report(f"{prefix}{own if stage is None else stage}{suffix}", done, total)

    return renaming


def count(number: float) -> str:
    """Return a number of voxels with three digits and a letter, e.g. ``1.23 M``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def format_size(nbytes: float) -> str:
    """Return a number of bytes with three digits and a binary unit, e.g. ``1.23 GiB``."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}" if nbytes < 999.5 * unit else f"{nbytes / unit:.0f} {name}"
    return f"{nbytes:.0f} bytes"


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
