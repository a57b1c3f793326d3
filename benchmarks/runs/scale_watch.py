"""Sample memory, CPU time and progress of a run's processes from outside."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

LOOK, EVERY = 0.01, 0.25
"""Sampling: after this share of the blocks; after the last block, every so many seconds."""


@dataclass(frozen=True)
class Look:
    """A sample of the processes of a run: time, blocks done, bytes, CPU seconds."""

    seconds: float
    done: int
    driver: int
    worker: int
    driver_cpu: float
    workers_cpu: float


class Watch:
    """Sample this process, which is driver and scheduler, and its workers, while a run lasts.

    It is also the run's progress callback.

    Parameters
    ----------
    stage
        Name of the stage in which blocks are computed.

    Attributes
    ----------
    looks
        Samples up to the last block.
    first, last
        Seconds until the first block, and the last, were done.
    peaks
        Peak bytes of the driver and of the largest worker after that.
    """

    def __init__(self, stage: str = "segment") -> None:
        self._stage = stage
        self.looks: list[Look] = []
        self.first = self.last = 0.0
        self.peaks = {"driver": 0, "worker": 0}
        self.levels_cpu = 0.0
        self.allocator = ""
        self._began = time.perf_counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look(0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Record the progress of the run."""
        if stage != self._stage or self.last:
            return
        if done and not self.first:
            self.first = self.seconds
            self.allocator = max(map(allocator, children()), default="")
        if not self.looks or done - self.looks[-1].done >= LOOK * total or done >= total:
            self._look(done)
        if done >= total:
            self.last = self.seconds
            for pid in (os.getpid(), *children()):  # resets their peaks
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    @property
    def seconds(self) -> float:
        """Seconds since its creation."""
        return time.perf_counter() - self._began

    def at(self, share: float, total: int) -> Look:
        """Return the sample at a share of the run."""
        return next((look for look in self.looks if look.done >= share * total), self.looks[-1])

    def cost(self, what: str, span: tuple[float, float], total: int) -> float:
        """Return the cost (``seconds``, ``driver_cpu``) of the whole run at the rate of a span."""
        done = [look.done for look in self.looks]
        spent = [getattr(look, what) for look in self.looks]
        first, last = np.interp([share * total for share in span], done, spent)
        return float(last - first) / (span[1] - span[0])

    def _look_after(self) -> None:
        while not self._over.wait(EVERY):
            if self.last:
                self._look(0)

    def _look(self, done: int) -> None:
        sizes, peaks, cpu = [0], [0], 0.0
        for pid in children():
            with suppress(OSError, psutil.Error):  # it has just ended
                size, peak = memory(pid)
                cpu += cpu_seconds(pid)
                sizes.append(size)
                peaks.append(peak)
        size, peak = memory(os.getpid())
        if not self.last:
            here = cpu_seconds(os.getpid())
            self.looks.append(Look(self.seconds, done, size, max(sizes), here, cpu))
            return
        self.levels_cpu = max(self.levels_cpu, cpu - self.looks[-1].workers_cpu)
        self.peaks["driver"] = max(self.peaks["driver"], peak)
        self.peaks["worker"] = max(self.peaks["worker"], *peaks)


def children() -> list[int]:
    """Return the children of this process, and theirs; faster than a search among all processes."""
    pids = [os.getpid()]
    for pid in pids:
        with suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    pids += [int(child) for child in (thread / "children").read_text().split()]
    return pids[1:]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def allocator(pid: int) -> str:
    """Return the settings of the memory allocator in a process's environment."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return " ".join(sorted(entry for entry in entries if entry.startswith("MALLOC_")))


def memory(pid: int) -> tuple[int, int]:
    """Return the bytes of memory that a process holds, and its peak since the last reset."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return 1024 * int(kilobytes.get("VmRSS", 0)), 1024 * int(kilobytes.get("VmHWM", 0))
