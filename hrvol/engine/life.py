"""Signs of life of tasks on other processes, and the tasks that give none.

A worker process that is stopped, or whose file system does not answer, holds its tasks for ever. So each
reports its running tasks every few seconds: whether a task's thread has used the CPU, or threads that work
for it have, or it waits for its turn to compute. The driver compares the silence of a task with limits that
follow the pace of the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hrvol.engine.task import waits_to_compute
from hrvol.progress import duration

_AWAKE = 5.0
"""Most seconds that count between two looks at the clock: in longer ones the driver itself was stopped."""

_LOOK = 0.25
"""Seconds between two looks at the clock."""

_USED = 0.005
"""Share of a CPU from which a task counts as working."""

_OF_PROCESS = 0.25
"""The same of its whole process, which uses a little for connections and reports."""


@dataclass(frozen=True)
class Limits:
    """Limits of silence, in seconds.

    Attributes
    ----------
    report
        Between two reports of a worker process about its tasks.
    silent
        Without a report: the process is stopped, or its machine has failed.
    first
        Without the first report of a worker, which may import packages from a slow disk; and without work
        before any task has finished, when a model is read from tape, say.
    idle
        Without work, once a task has finished.
    factor
        The last limit is at least so many times the longest idle time of a task that went on.
    """

    report: float = 10.0
    silent: float = 300.0
    first: float = 3600.0
    idle: float = 900.0
    factor: float = 10.0


LIMITS = Limits()


@dataclass
class _Running:
    thread: int
    send: Callable[[bool], None]
    used: float = 0.0


class Reporter:
    """Reports the running tasks of this process from a thread of its own."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self, name: str, seconds: float, send: Callable[[bool], None]) -> Iterator[None]:
        """Report the task of this thread every ``seconds`` while the ``with`` statement lasts.

        Parameters
        ----------
        name
            Of the task.
        seconds
            Between two reports.
        send
            Called with whether the task works, for the first time at once.
        """
        send(True)
        with self._lock:
            self._tasks[name] = _Running(threading.get_ident(), send)
            if self._thread is None:
                target = threading.Thread(
                    target=self._report, args=(seconds,), name="hrvol-life", daemon=True
                )
                self._thread = target
                target.start()
        try:
            yield
        finally:
            with self._lock:  # the clock of a thread that has ended must not be read
                del self._tasks[name]

    def _report(self, seconds: float) -> None:
        process = time.process_time()
        while True:
            time.sleep(seconds)
            with self._lock:
                process, before = time.process_time(), process
                waiting = {task.thread for task in self._tasks.values() if waits_to_compute(task.thread)}
                # The threads of a library work for the only task that does not wait.
                alone = len(self._tasks) - len(waiting) == 1
                helped = alone and process - before >= _OF_PROCESS * seconds
                for task in self._tasks.values():
                    used = _cpu_seconds(task.thread)
                    works = used - task.used >= _USED * seconds or task.thread in waiting or helped
                    task.used = used
                    with suppress(Exception):  # while the process ends it has no connection
                        task.send(works)


def _cpu_seconds(thread: int) -> float:
    """Return the CPU time of a running thread; where the system has no such clock, of the process."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return time.process_time()


REPORTER = Reporter()


@dataclass
class _Signs:
    worker: str
    worked: float | None = None  # ``None`` until it has started


@dataclass(frozen=True)
class Overdue:
    """A task that gives no sign of life.

    Attributes
    ----------
    name
        Of the task.
    worker
        Where it runs.
    reason
        What is known, in one line.
    silent
        Whether its worker reports nothing at all.
    """

    name: str
    worker: str
    reason: str
    silent: bool


class LifeWatch:
    """Finds the tasks in flight that give no sign of life; its clock stands while the driver is stopped.

    Parameters
    ----------
    limits
        Limits of silence.
    clock
        Returns seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._tasks: dict[str, _Signs] = {}
        self._heard: dict[str, float] = {}  # by worker
        self._known: set[str] = set()  # workers that have reported
        self._lock = threading.Lock()  # reports arrive in another thread
        self._now, self._looked = 0.0, clock()
        self._longest = 0.0
        self._succeeded = False

    def submitted(self, name: str, worker: str) -> None:
        """Start to watch a task, which starts later and perhaps on another worker."""
        with self._lock:
            self._tasks[name] = _Signs(worker)
            self._heard[worker] = self._now

    def report(self, name: str, worker: str, *, works: bool) -> bool:
        """Take a report about a task; return whether the task is watched."""
        with self._lock:
            self._heard[worker] = self._now
            self._known.add(worker)
            signs = self._tasks.get(name)
            if signs is None:
                return False
            signs.worker = worker
            if works:
                if signs.worked is not None:
                    self._longest = max(self._longest, self._now - signs.worked)
                signs.worked = self._now
            return True

    def ended(self, name: str) -> str | None:
        """Stop watching a task, and return its worker if it was still watched."""
        with self._lock:
            signs = self._tasks.pop(name, None)
            return None if signs is None else signs.worker

    def succeeded(self) -> None:
        """Note that a task has succeeded: from now on the shorter limit holds."""
        self._succeeded = True

    def overdue(self) -> list[Overdue]:
        """Return the tasks that are silent for too long, and stop watching them."""
        limits, now = self.limits, self._clock()
        if now - self._looked < _LOOK:
            return []
        with self._lock:
            self._now += min(now - self._looked, _AWAKE)
            self._looked = now
            idle = max(limits.idle, limits.factor * self._longest) if self._succeeded else limits.first
            found = []
            for name, signs in self._tasks.items():
                silence = self._now - self._heard[signs.worker]
                idleness = 0.0 if signs.worked is None else self._now - signs.worked
                if silence > (limits.silent if signs.worker in self._known else limits.first):
                    reason = f"its worker process gave no sign of life for {duration(silence)}"
                    found.append(Overdue(name, signs.worker, reason, silent=True))
                elif idleness > idle:
                    reason = f"it did nothing for {duration(idleness)} (does its file system answer?)"
                    found.append(Overdue(name, signs.worker, reason, silent=False))
            for task in found:
                del self._tasks[task.name]
            return found
