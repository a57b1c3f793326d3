"""How far a run is: one callback for the pipeline, shown as a bar or as log lines.

The pipeline calls ``progress(stage, done, total)`` in voxels, often and possibly from several threads;
rate and time left are worked out where they are shown.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

ProgressCallback = Callable[[str, int, int], None]
"""``progress(stage, done, total)``: what is done, voxels done (in this and earlier runs), all voxels."""


_LATE = 4096  # finished tasks whose late reports are told apart


class Display(Protocol):
    """A progress callback that is shown while its ``with`` statement lasts."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` voxels of ``stage`` are done."""
        ...


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


class _Meter:
    """Rate and time left of one stage since its first report (earlier runs do not count)."""

    def __init__(self, clock: Callable[[], float], done: int) -> None:
        self._clock, self._begun, self._before = clock, clock(), done

    def text(self, done: int, total: int) -> str:
        seconds = self._clock() - self._begun
        rate = (done - self._before) / seconds if seconds > 0 else 0.0
        if rate <= 0:
            return "starting"
        if done >= total:
            return f"{count(rate)} voxels/s, took {duration(seconds)}"
        return f"{count(rate)} voxels/s, {duration((total - done) / rate)} left"


class _MeterColumn(ProgressColumn):
    """Rate and time left in a rich progress bar."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["meter"]), style="progress.remaining")


class BarDisplay:
    """A bar per stage on a terminal."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        console = Console(file=stream if stream is not None else sys.stderr)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            _MeterColumn(),
            console=console,
        )
        self._clock = clock
        self._stages: dict[str, tuple[TaskID, _Meter]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of ``stage``."""
        with self._lock:
            if stage not in self._stages:
                bar = self._bars.add_task(stage, total=total, meter="starting")
                self._stages[stage] = (bar, _Meter(self._clock, done))
            bar, meter = self._stages[stage]
            self._bars.update(
                self._bars.task_ids[bar], completed=done, total=total, meter=meter.text(done, total)
            )


class LineDisplay:
    """Plain log lines, for files and job logs: at most one every ``interval`` seconds and one at the end."""

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = 5.0,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock, self._interval = clock, interval
        self._meters: dict[str, _Meter] = {}
        self._shown: dict[str, tuple[float, int]] = {}  # stage -> when, how far
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Write a line if it is time for one."""
        with self._lock:
            now = self._clock()
            if stage not in self._meters:
                self._meters[stage] = _Meter(self._clock, done)
                self._shown[stage] = (now, done)
                return
            when, before = self._shown[stage]
            ended = done >= total > before
            if not ended and (done == before or now - when < self._interval):
                return
            self._shown[stage] = (now, done)
            percent = 100 * done // total if total else 100
            of = f"{count(done)} of {count(total)} voxels"
            self._stream.write(f"{stage}: {percent} % ({of}), {self._meters[stage].text(done, total)}\n")
            self._stream.flush()


def display(stream: TextIO | None = None) -> Display:
    """Return a bar where ``stream`` (default standard error) is a terminal, and log lines elsewhere."""
    stream = stream if stream is not None else sys.stderr
    return BarDisplay(stream) if stream.isatty() else LineDisplay(stream)
