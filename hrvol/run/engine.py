"""Where work happens: a bounded map over tasks, on this process, on worker processes or on a cluster.

An engine knows no imaging. It is given a function, small picklable tasks and one configuration object, keeps
a bounded number of tasks under way (there is never a graph over all of them), and yields an
:class:`~hrvol.run.task.Outcome` per task as it completes. An exception inside a task is an outcome too, not
the end of the run; results should be small reports, because they travel back to the caller.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from hrvol.errors import UsageError
from hrvol.run.devices import free_gpu_memory, gpus, this_gpu
from hrvol.run.stop import Stop
from hrvol.run.task import Outcome, configure, run_task

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("serial", "local", "cuda", "slurm")
"""Names of engines; the address of a Dask scheduler (``tcp://host:port``) is one too."""

TRIES = 3
"""How often a task is tried before it counts as failed."""

BACK_OFF = 1.0
"""Seconds before the second try; each later one waits four times as long."""


class Engine(AbstractContextManager["Engine"], Protocol):
    """A bounded map over tasks; use it in a ``with`` statement, which ends its workers."""

    workers: int

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
        stop: Stop | None = None,
        tries: int = TRIES,
    ) -> Iterator[Outcome[T, R]]:
        """Run ``function`` on every task and yield the outcomes in the order they complete.

        Parameters
        ----------
        function
            Importable by name in a worker process.
        tasks
            Small and picklable; looked up one by one when there is room for them, and possibly again.
        on_tick
            Called with what a running task passes to :func:`hrvol.run.task.tick`, possibly from another
            thread.
        stop
            Once requested no other task is begun; those under way are waited for.
        tries
            How often a task is tried that fails, with growing pauses. A task whose process died is tried
            again alone on a worker, so that only the culprit fails in the end.
        """
        ...


@dataclass(frozen=True)
class EngineSpec:
    """Which engine is wanted.

    Attributes
    ----------
    name
        ``serial`` (this process), ``local`` (worker processes on this machine), ``cuda`` (one for each GPU
        of this machine, extra ``gpu``), ``slurm`` (SLURM jobs, extra ``slurm``), or the address of a running
        Dask scheduler, such as ``tcp://host:8786``.
    workers
        Number of worker processes (``slurm``: of jobs); ``None``: one per CPU (``cuda``: per GPU, ``slurm``:
        one job). A cluster that runs already has the workers it has.
    scheduler_file
        File with the address of a running Dask scheduler; takes the place of the name.
    options
        Keywords of dask-jobqueue's ``SLURMCluster``: ``queue``, ``walltime``, ``memory``, ``cores``, ...; and
        ``gpus``, the number of GPUs of a job.
    devices
        GPUs that ``cuda`` uses, by number or UUID, as in ``CUDA_VISIBLE_DEVICES``; none: all.
    device
        What workers compute on, ``cpu`` or ``cuda``: see :func:`hrvol.run.devices.place`.
    identify
        Called in each worker before it has a task: returns the UUID of its GPU. Two workers with the same are
        refused, and one in which it raises is left out. ``None``: asked where workers compute on GPUs.
    """

    name: str = "serial"
    workers: int | None = None
    scheduler_file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    device: str = "cpu"
    identify: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers: expected a number of processes from 1, got {self.workers}")
        if self.name not in ENGINES and "://" not in self.name:
            expected = f"{', '.join(ENGINES)} or an address such as tcp://host:8786"
            raise UsageError(f"engine: expected {expected}, got {self.name!r}")
        if self.serial and self.workers not in (None, 1):
            raise UsageError(
                f"engine: serial works in one process, got workers: {self.workers}; use engine: local"
            )
        if self.options and (self.name != "slurm" or self.scheduler_file):
            raise UsageError(f"engine options: only slurm has any, got {', '.join(self.options)}")
        if self.devices and not self.local_gpus:
            raise UsageError(f"devices: only engine: cuda has any, got {','.join(self.devices)}")
        if len(set(self.devices)) < len(self.devices):
            raise UsageError(f"devices: expected each GPU once, got {','.join(self.devices)}")

    @property
    def serial(self) -> bool:
        """Whether work happens in this process."""
        return self.name == "serial" and self.scheduler_file is None

    @property
    def remote(self) -> bool:
        """Whether workers may be on other machines."""
        return self.scheduler_file is not None or self.name not in ("serial", "local", "cuda")

    @property
    def local_gpus(self) -> bool:
        """Whether workers are processes of this machine with a GPU each."""
        return self.name == "cuda" and self.scheduler_file is None

    @property
    def asks(self) -> Callable[[], str] | None:
        """What a worker is asked for the UUID of its GPU with, or ``None`` where it needs none."""
        return self.identify or (this_gpu if self.local_gpus or self.device == "cuda" else None)

    @property
    def count(self) -> int:
        """How many workers (``slurm``: jobs) are wanted."""
        if self.workers is not None or self.remote:
            return self.workers or 1
        return (len(self.devices) or len(gpus()) or 1) if self.local_gpus else cpus()

    def limited(self, tasks: int) -> EngineSpec:
        """Return the same with no more workers than tasks: one without a task would only cost its start."""
        if self.remote or self.serial:
            return self
        return replace(self, workers=max(1, min(self.count, tasks)))


class SerialEngine:
    """Runs the tasks one after the other in this process.

    Parameters
    ----------
    configuration
        What :func:`hrvol.run.task.configuration` returns in the tasks.
    """

    workers = 1

    def __init__(self, configuration: Any = None) -> None:
        self._mine = configuration
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = configure(self._mine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        configure(self._before)

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
        stop: Stop | None = None,
        tries: int = TRIES,
    ) -> Iterator[Outcome[T, R]]:
        """See :meth:`Engine.map_bounded`; what failed comes last, the others in their order."""
        again: deque[tuple[float, int, T]] = deque()

        def settled(task: T, failed: int) -> Outcome[T, R] | None:
            outcome = run_task(function, task, failed, on_tick)
            if outcome.broken:
                free_gpu_memory()  # there is no other process that could try it
            if outcome.ok or not outcome.again or outcome.fatal or failed + 1 >= tries:
                return outcome
            again.append((time.monotonic() + pause(failed + 1), failed + 1, task))
            return None

        for number in range(len(tasks)):
            if stop is not None and stop.requested:
                return
            outcome = settled(tasks[number], 0)
            if outcome is not None:
                yield outcome
        while again and not (stop is not None and stop.requested):
            ready, failed, task = again.popleft()
            time.sleep(max(0.0, ready - time.monotonic()))
            outcome = settled(task, failed)
            if outcome is not None:
                yield outcome


def pause(failed: int) -> float:
    """Return how many seconds to wait before a task that failed so often is tried again."""
    return float(BACK_OFF * 4 ** (failed - 1))


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(spec: EngineSpec, configuration: Any = None) -> Engine:
    """Return an engine, to be used in a ``with`` statement.

    Parameters
    ----------
    spec
        Which one.
    configuration
        What :func:`hrvol.run.task.configuration` returns inside the tasks. Picklable.

    Raises
    ------
    MissingExtraError
        The engine needs a package that is not installed.
    """
    if spec.serial:
        return SerialEngine(configuration)
    from hrvol.run.dask_engine import DaskEngine  # Dask takes a while to import

    return DaskEngine(spec, configuration)
