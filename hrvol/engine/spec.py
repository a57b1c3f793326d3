"""Which engine is wanted, and the interface of all engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from hrvol.device import cpus, gpus, this_gpu
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome
from hrvol.errors import UsageError

IN_FLIGHT = 2
"""Tasks under way per worker: one computes, one reads or writes."""

CUDA_WORKER = "dask_cuda.cli"
"""What starts the workers of a SLURM job, each with a GPU of its own."""

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
            Called with what a running task passes to :func:`hrvol.engine.task.tick`, possibly from another
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
        What workers compute on, ``cpu`` or ``cuda``: see :func:`hrvol.engine.placement.place`.
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


def pause(failed: int) -> float:
    """Return how many seconds to wait before a task that failed so often is tried again."""
    return float(BACK_OFF * 4 ** (failed - 1))
