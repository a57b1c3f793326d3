"""Describe which engine runs the tasks, and define the interface of all engines."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from hrvol.device import cpus, gpus, this_gpu
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome
from hrvol.errors import UsageError
from hrvol.text import printable

IN_FLIGHT = 2
"""Tasks in flight per worker: one computes while the other reads or writes."""

CUDA_WORKER = "dask_cuda.cli"
"""Worker command of SLURM jobs that gives each worker process a GPU of its own."""

T = TypeVar("T")

R = TypeVar("R")

ENGINES = ("serial", "local", "cuda", "slurm")
"""Names of engines; the address of a Dask scheduler (``tcp://host:port``) is valid too."""

SCHEMES = ("tcp", "tls", "ucx", "ucxx", "ws", "wss")
"""Protocols of Dask schedulers; those besides TCP and TLS need a package of their own."""

TRIES = 3
"""How often a task is tried before it counts as failed."""

BACK_OFF = 1.0
"""Seconds before the second try; each later one waits four times as long."""


@dataclass(frozen=True)
class MapRequest(Generic[T, R]):
    """Arguments of :meth:`Engine.map_bounded`, where they are documented."""

    function: Callable[[T], R]
    tasks: Sequence[T]
    on_tick: Callable[[Any], None] | None
    stop: Stop | None
    tries: int
    starts: Sequence[int] = ()

    @property
    def stopping(self) -> bool:
        """Whether no further task may start."""
        return self.stop is not None and self.stop.requested

    def is_final(self, outcome: Outcome[T, R]) -> bool:
        """Return whether a task is not tried again after this outcome."""
        return outcome.ok or not outcome.again or outcome.fatal or outcome.tries >= self.tries


class Engine(AbstractContextManager["Engine"]):
    """A bounded map over tasks; use it in a ``with`` statement, which ends its workers.

    Attributes
    ----------
    workers
        Number of workers (SLURM: of jobs).
    """

    workers: int

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
        stop: Stop | None = None,
        tries: int = TRIES,
        starts: Sequence[int] = (),
    ) -> Iterator[Outcome[T, R]]:
        """Run ``function`` on every task and yield the outcomes in the order they complete.

        Parameters
        ----------
        function
            Importable by name in a worker process.
        tasks
            Small and picklable. Each is looked up only when a worker has room for it, possibly repeatedly.
        on_tick
            Called with each message of :func:`hrvol.engine.task.tick`, possibly from another thread.
        stop
            Once requested, no further task starts; tasks in flight are waited for.
        tries
            How often a failing task is tried, with growing pauses. A task whose worker process died is tried
            again alone on a worker, so that only the task that killed the worker fails in the end.
        starts
            Positions of tasks, in order, that begin a group: those of a group are best done by one worker.

        Raises
        ------
        StoppedError
            The Dask scheduler was lost.
        HrvolError
            No worker process starts.
        """
        return self._outcomes(MapRequest(function, tasks, on_tick, stop, tries, starts))

    @abstractmethod
    def _outcomes(self, request: MapRequest[T, R]) -> Iterator[Outcome[T, R]]:
        """Yield the outcomes of a map, lazily; see :meth:`map_bounded`."""


@dataclass(frozen=True)
class EngineSpec:
    """Which engine runs the tasks.

    Attributes
    ----------
    name
        ``serial`` (this process), ``local`` (worker processes on this machine), ``cuda`` (one for each GPU
        of this machine, extra ``gpu``), ``slurm`` (SLURM jobs, extra ``slurm``), or the address of a running
        Dask scheduler, such as ``tcp://host:8786`` or, with the keys in Dask's configuration,
        ``tls://host:8786``.
    workers
        Number of worker processes (``slurm``: of jobs); ``None``: one per CPU (``cuda``: per GPU, ``slurm``:
        one job). Ignored by a cluster that runs already.
    scheduler_file
        File with the address of a running Dask scheduler; overrides the name.
    options
        Keywords of dask-jobqueue's ``SLURMCluster``: ``queue``, ``walltime``, ``memory``, ``cores``, ...; and
        ``gpus``, the number of GPUs per job.
    devices
        GPUs for ``cuda``, by number or UUID, as in ``CUDA_VISIBLE_DEVICES``; empty: all.
    device
        Where workers compute, ``cpu`` or ``cuda``: see :func:`hrvol.engine.placement.place`.
    identify
        Returns the UUID of a worker's GPU; called in each worker before its first task. Two workers with the
        same UUID are an error; a worker in which it raises gets no tasks. ``None``: the UUID that torch
        reports, where workers compute on GPUs.
    imports
        Modules that tasks use, for ``local``: imported once, before the workers are forked.
    """

    name: str = "serial"
    workers: int | None = None
    scheduler_file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    device: str = "cpu"
    identify: Callable[[], str] | None = None
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers: found {self.workers}, expected at least 1 process")
        if self.name not in ENGINES:
            check_address(self.name)
        if self.serial and self.workers not in (None, 1):
            raise UsageError(
                f"engine: serial runs in one process: found workers: {self.workers}, expected engine: local"
            )
        if self.options and (self.name != "slurm" or self.scheduler_file):
            raise UsageError(f"engine options: only slurm has any, found {', '.join(self.options)}")
        if self.devices and not self.local_gpus:
            raise UsageError(f"devices: only engine: cuda has any, found {','.join(self.devices)}")
        if len(set(self.devices)) < len(self.devices):
            raise UsageError(f"devices: found {','.join(self.devices)}, expected each GPU once")

    @property
    def serial(self) -> bool:
        """Whether tasks run in this process."""
        return self.name == "serial" and self.scheduler_file is None

    @property
    def running_cluster(self) -> bool:
        """Whether the scheduler and the workers run already."""
        return self.scheduler_file is not None or self.name not in ENGINES

    @property
    def remote(self) -> bool:
        """Whether workers may be on other machines."""
        return self.scheduler_file is not None or self.name not in ("serial", "local", "cuda")

    @property
    def local_gpus(self) -> bool:
        """Whether workers are processes of this machine with a GPU each."""
        return self.name == "cuda" and self.scheduler_file is None

    @property
    def gpu_identifier(self) -> Callable[[], str] | None:
        """Function that returns the UUID of a worker's GPU, or ``None`` where workers need no GPU."""
        return self.identify or (this_gpu if self.local_gpus or self.device == "cuda" else None)

    @property
    def count(self) -> int:
        """Number of workers (``slurm``: of jobs) to start."""
        if self.workers is not None or self.remote:
            return self.workers or 1
        return (len(self.devices) or len(gpus()) or 1) if self.local_gpus else cpus()

    def limited(self, tasks: int) -> EngineSpec:
        """Return the same engine with at most as many workers as tasks; idle ones only cost their start."""
        if self.remote or self.serial:
            return self
        return replace(self, workers=max(1, min(self.count, tasks)))


def check_address(name: str) -> None:
    """Raise a :class:`UsageError` unless a name is the address of a scheduler."""
    found = re.fullmatch(r"([a-z]+)://([\w.-]+|\[[\w.:%-]+\]):(\d{1,5})/?", name)
    if found is None or found[1] not in SCHEMES or not 0 < int(found[3]) < 65536:
        expected = f"{', '.join(ENGINES)} or an address such as tcp://host:8786 or tls://host:8786"
        raise UsageError(f"engine: found {printable(name, 100)!r}, expected {expected}")


def pause(failed: int) -> float:
    """Return the seconds to wait before a task that failed ``failed`` times is tried again."""
    return float(BACK_OFF * 4 ** (failed - 1))
