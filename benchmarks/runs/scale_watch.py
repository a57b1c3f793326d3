"""What a run looks like from outside: memory and CPU time of its processes, and how far it is."""

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
"""When the processes of a run are looked at: after such a part of the blocks, later after such seconds."""


@dataclass(frozen=True)
class Look:
    """What was seen of the processes of a run: bytes, CPU seconds, and when and how far the run was."""

    seconds: float
    done: int
    driver: int
    worker: int
    driver_cpu: float
    workers_cpu: float


class Watch:
    """Looks at this process, which is driver and scheduler, and at its workers, while a run lasts.

    It is the run's progress callback too.

    Attributes
    ----------
    looks
        At blocks in the making.
    first, last
        Seconds after which the first block, and the last, were done.
    peaks
        Most bytes that driver and largest worker held after that.
    """

    def __init__(self) -> None:
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
        """Take note of how far the run is."""
        if stage != "segment" or self.last:
            return
        if done and not self.first:
            self.first = self.seconds
            self.allocator = max(map(allocator, children()), default="")
        if not self.looks or done - self.looks[-1].done >= LOOK * total or done >= total:
            self._look(done)
        if done >= total:
            self.last = self.seconds
            for pid in (os.getpid(), *children()):  # their highest marks start anew
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._began

    def at(self, share: float, total: int) -> Look:
        """Return what was seen at a share of the way."""
        return next((look for look in self.looks if look.done >= share * total), self.looks[-1])

    def cost(self, what: str, span: tuple[float, float], total: int) -> float:
        """Return what all the way would have cost (``seconds``, ``driver_cpu``) at the rate of a part."""
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
    """Return the processes that this one has started; quicker than a search among all."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            found += [int(pid) for pid in (thread / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


def allocator(pid: int) -> str:
    """Return the settings of the memory allocator in a process's environment."""
    said = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return " ".join(sorted(entry for entry in said if entry.startswith("MALLOC_")))


def memory(pid: int) -> tuple[int, int]:
    """Return the bytes of memory that a process holds, and the most it held since its mark began anew."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return 1024 * int(kilobytes.get("VmRSS", 0)), 1024 * int(kilobytes.get("VmHWM", 0))
