"""Where work happens: a bounded map over tasks, on this process or on worker processes.

An engine knows no imaging. It is given a function, small picklable tasks and one configuration object,
keeps a bounded number of tasks under way (there is never a graph over all of them), and yields an
:class:`Outcome` per task as it completes. An exception inside a task is an outcome too, not the end of
the run; results should be small reports, because they travel back to the caller.

Inside a task :func:`configuration` returns the engine's configuration, which reaches each worker once
(by a Dask ``WorkerPlugin``), and :func:`tick` reports progress from the middle of a long task.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed, get_worker

from hrvol.errors import HrvolError, UsageError

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("serial", "local")
"""Names that :func:`open_engine` knows."""

IN_FLIGHT = 2
"""Tasks under way per worker: one running, one waiting so that the worker is never idle."""

WORKER_DEATHS = 2
"""A task whose worker process died more often than this counts as failed."""


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one task.

    Attributes
    ----------
    task
        The task as it was given.
    value
        What the function returned; ``None`` where it failed.
    error
        One line with the reason of the failure, or ``None`` where the task succeeded.
    details
        The traceback of the failure, for debugging.
    """

    task: T
    value: R | None = None
    error: str | None = None
    details: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the task was done."""
        return self.error is None


class Engine(AbstractContextManager["Engine"], Protocol):
    """A bounded map over tasks; use it in a ``with`` statement, which ends its workers."""

    workers: int

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """Run ``function`` on every task and yield the outcomes in the order they complete.

        Parameters
        ----------
        function
            Importable by name in a worker process.
        tasks
            Small and picklable; taken from the iterable only when there is room for them.
        on_tick
            Called with what a running task passes to :func:`tick`, possibly from another thread.
        """
        ...


_configuration: Any = None
_sink: ContextVar[Callable[[Any], None] | None] = ContextVar("hrvol_tick", default=None)


def configuration() -> Any:
    """Return the configuration of the engine that runs the calling task."""
    return _configuration


def tick(message: Any) -> None:
    """Report progress from inside a task; ``message`` is plain data (numbers, strings, lists)."""
    sink = _sink.get()
    if sink is not None:
        sink(message)


def _configure(value: Any) -> Any:
    """Set this process's configuration and return the one before."""
    global _configuration
    before, _configuration = _configuration, value
    return before


def one_line(error: BaseException) -> str:
    """Return an exception as one line; deliberate errors speak for themselves, others name their type."""
    text = " ".join(str(error).split())
    if isinstance(error, HrvolError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _attempt(function: Callable[[T], R], task: T, sink: Callable[[Any], None] | None) -> Outcome[T, R]:
    """Run one task; whatever it raises becomes its outcome."""
    token = _sink.set(sink)
    try:
        return Outcome(task, function(task))
    except Exception as error:
        return Outcome(task, None, one_line(error), traceback.format_exc())
    finally:
        _sink.reset(token)


class SerialEngine:
    """Runs the tasks one after the other in this process."""

    workers = 1

    def __init__(self, configuration: Any = None) -> None:
        self._mine = configuration
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = _configure(self._mine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _configure(self._before)

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """See :meth:`Engine.map_bounded`; the order is that of the tasks."""
        for task in tasks:
            yield _attempt(function, task, on_tick)


class _Configure(WorkerPlugin):  # type: ignore[misc]
    """Carries the configuration to each worker, and to a worker that replaces a lost one.

    It loads nothing: models and networks are opened in the first task that needs them, so a worker
    starts at once and a failure to load is the failure of a task, with its reason.
    """

    name = "hrvol-configuration"

    def __init__(self, value: Any) -> None:
        self._value = value

    def setup(self, worker: Any) -> None:
        _configure(self._value)


def _attempt_on_worker(function: Callable[[T], R], task: T, topic: str) -> Outcome[T, R]:
    """Run one task in a Dask worker; its ticks go to the subscribers of ``topic``."""
    worker = get_worker()
    return _attempt(function, task, lambda message: worker.log_event(topic, message))


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Worker processes on this machine (Dask ``LocalCluster``, one thread each).

    Processes are spawned: a script that uses this engine must keep its work under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    workers
        Number of processes; ``None`` for one per CPU that this process may use.
    configuration
        What :func:`configuration` returns in the workers. Picklable.
    """

    def __init__(self, workers: int | None = None, configuration: Any = None) -> None:
        self.workers = workers if workers is not None else cpus()
        self._configuration = configuration
        self._cluster: Any = None
        self._client: Any = None
        self._settings: Any = None

    def __enter__(self) -> Self:
        self._settings = dask.config.set(
            {
                "distributed.scheduler.allowed-failures": WORKER_DEATHS,
                # Results are reports of a few bytes: nothing to profile, nothing to spill.
                "distributed.worker.profile.enabled": False,
                "distributed.comm.timeouts.connect": "60s",
            }
        )
        self._settings.__enter__()
        # What a connection says of its own end: heard when all is over and the cluster silences no more.
        logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
        try:
            self._cluster = LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",  # with the next line: any free port, and nothing served there
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
                # A worker holds one block at a time and nothing between blocks. Dask's limit would pause
                # it for good where the memory is the network's own; the system's limit still holds.
                memory_limit=0,
            )
            self._client = Client(self._cluster, set_as_default=False)
            self._client.register_plugin(_Configure(self._configuration))
        except BaseException:
            self._close(quickly=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(quickly=kind is not None)

    def _close(self, quickly: bool) -> None:
        """End the workers; ``quickly`` without waiting for tasks that are still running."""
        with suppress(Exception):
            if self._cluster is not None and quickly:
                for nanny in list(self._cluster.workers.values()):
                    process = getattr(getattr(nanny, "process", None), "process", None)
                    if process is not None:
                        nanny.auto_restart = False
                        process._process.kill()
        for closing in (self._client, self._cluster):
            with suppress(Exception):
                if closing is not None:
                    closing.close(timeout=10)
        self._client = self._cluster = None
        if self._settings is not None:
            self._settings.__exit__(None, None, None)
            self._settings = None

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """See :meth:`Engine.map_bounded`. A task whose worker keeps dying fails; the others go on."""
        topic = f"hrvol-{uuid4().hex}"
        if on_tick is not None:
            self._client.subscribe_topic(topic, lambda event: on_tick(event[1]))
        left = iter(tasks)
        under_way: dict[str, T] = {}

        def submit(task: T) -> Any:
            future = self._client.submit(_attempt_on_worker, function, task, topic, pure=False)
            under_way[future.key] = task
            return future

        try:
            first = [submit(task) for task in islice(left, self.workers * IN_FLIGHT)]
            completed = as_completed(first, loop=self._client.loop)
            del first
            for future in completed:
                task = under_way.pop(future.key)
                outcome = _outcome(future, task)
                del future
                for following in islice(left, 1):
                    completed.add(submit(following))
                yield outcome
        finally:
            if on_tick is not None:
                with suppress(Exception):
                    self._client.unsubscribe_topic(topic)


def _outcome(future: Any, task: T) -> Outcome[T, Any]:
    """Return the outcome that a finished future holds, or the failure that befell it."""
    error = future.exception() if future.status != "cancelled" else None
    if error is None and future.status == "finished":
        result: Outcome[T, Any] = future.result()
        return result
    if isinstance(error, KilledWorker):
        return Outcome(task, error=f"its worker process died {WORKER_DEATHS + 1} times (out of memory?)")
    return Outcome(task, error=one_line(error) if error is not None else f"was {future.status}")


def open_engine(name: str = "serial", *, workers: int | None = None, configuration: Any = None) -> Engine:
    """Return an engine by name, to be used in a ``with`` statement.

    Parameters
    ----------
    name
        ``serial`` (this process) or ``local`` (worker processes on this machine).
    workers
        Number of worker processes of ``local``; ``None`` for one per CPU.
    configuration
        What :func:`configuration` returns inside the tasks. Picklable.

    Raises
    ------
    UsageError
        The name is unknown, or ``workers`` does not fit it.
    """
    check_engine(name, workers)
    return SerialEngine(configuration) if name == "serial" else LocalEngine(workers, configuration)


def check_engine(name: str, workers: int | None = None) -> None:
    """Refuse what :func:`open_engine` would, before anything is begun."""
    if workers is not None and workers < 1:
        raise UsageError(f"workers: expected a number of processes from 1, got {workers}")
    if name not in ENGINES:
        raise UsageError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "serial" and workers not in (None, 1):
        raise UsageError(f"engine: serial works in one process, got workers: {workers}; use engine: local")
