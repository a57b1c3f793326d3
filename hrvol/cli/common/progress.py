"""Progress on a terminal (bars) and in log files (lines)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from hrvol.progress import count, duration
from hrvol.text import printable


class Display(Protocol):
    """A progress callback, shown inside its ``with`` statement."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` voxels of a stage."""
        ...

    def forget(self, prefix: str) -> None:
        """Remove the stages whose names begin with a text: they will not be reported again."""
        ...


class _Meter:
    """Rate and remaining time of one stage since its first report (earlier runs do not count)."""

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
            TextColumn("{task.description}", markup=False),
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
                bar = self._bars.add_task(printable(stage), total=total, meter="starting")
                self._stages[stage] = (bar, _Meter(self._clock, done))
            bar, meter = self._stages[stage]
            self._bars.update(bar, completed=done, total=total, meter=meter.text(done, total))

    def forget(self, prefix: str) -> None:
        """Remove the bars of stages."""
        with self._lock:
            for stage in [name for name in self._stages if name.startswith(prefix)]:
                self._bars.remove_task(self._stages.pop(stage)[0])


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
            self._stream.write(
                f"{printable(stage)}: {percent} % ({of}), {self._meters[stage].text(done, total)}\n"
            )
            self._stream.flush()

    def forget(self, prefix: str) -> None:
        """Forget what was shown of stages."""
        with self._lock:
            for stage in [name for name in self._meters if name.startswith(prefix)]:
                del self._meters[stage], self._shown[stage]


def display(stream: TextIO | None = None) -> Display:
    """Return a bar where ``stream`` (default standard error) is a terminal, and log lines elsewhere."""
    stream = stream if stream is not None else sys.stderr
    return BarDisplay(stream) if stream.isatty() else LineDisplay(stream)
