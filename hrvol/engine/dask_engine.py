"""Engines with Dask workers: processes of this machine, a cluster that runs already, or SLURM jobs.

The driver deals tasks to workers itself, two at a time to each: one computes while the other reads its input
or writes its result. So memory of driver and scheduler does not grow with the number of tasks, a slow worker
holds up two tasks at most, and neighbouring tasks stay on one worker.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, Status, WorkerPlugin, get_worker

from hrvol.engine.dask_clusters import (
    cuda_cluster,
    local_cluster,
    root_cause,
    sigint_masked_loop,
    slurm_cluster,
)
from hrvol.engine.gpu_admission import GpuAdmission
from hrvol.engine.scheduling import Job, TaskQueue
from hrvol.engine.spec import TRIES, EngineSpec
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome, configure, one_line, run_task
from hrvol.errors import HrvolError, StoppedError

T = TypeVar("T")

R = TypeVar("R")

LOG = logging.getLogger("hrvol.run")

CONNECT = "60s"
"""How long a scheduler has to answer."""

JOB_SILENT = 20.0
"""Seconds without workers after which a job that had some is taken for ended."""

START_TRIES = 3
"""How often each worker process may fail to start, while none has started, before the run ends."""

_LOOK = 0.5  # seconds between looks at what does not announce itself: stop signals, pauses that are over

_OVER = (Status.closed, Status.failed)

_SETTINGS = {
    # The death of a worker comes back to the driver at once, which counts for itself.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,  # the driver deals
    # Results are reports of a few bytes: nothing to profile, nothing to spill, nothing to look up later.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.log-length": 100,
    "distributed.comm.timeouts.connect": "60s",
    # A worker that died is started again, but on a busy machine or a slow disk that takes a while. Dask would
    # give it up meanwhile, for good.
    "distributed.deploy.lost-worker-timeout": "3650 days",
}


class _Configure(WorkerPlugin):  # type: ignore[misc]
    """Carries the configuration to each worker, and to a worker that replaces a lost one.

    It loads nothing: models and networks are opened in the first task that needs them, so a worker
    starts at once and a failure to load is the failure of a task, with its reason.
    """

    name = "hrvol-configuration"

    def __init__(self, value: Any) -> None:
        self._value = value

    def setup(self, worker: Any) -> None:
        configure(self._value)


def _run_on_worker(function: Callable[[T], R], task: T, failed: int, topic: str, name: str) -> None:
    """Run one task in a Dask worker; ticks and outcome go to the subscribers of ``topic``.

    The outcome is not the Dask task's result: that would stay on the worker until it is fetched, and be lost,
    with all that was done for it, if the worker dies in between.
    """
    worker = get_worker()
    outcome: Outcome[Any, R] = run_task(
        function, task, failed, lambda said: worker.log_event(topic, ["tick", said])
    )
    worker.log_event(topic, ["outcome", name, worker.address, pickle.dumps(replace(outcome, task=None))])
    if outcome.broken:
        # Its process will be ended, and what is lost with one Dask does again elsewhere, unless it failed.
        raise RuntimeError(outcome.error)


class DaskEngine:
    """Worker processes of Dask.

    Processes are spawned: a script that uses this engine must keep its work under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    spec
        Which workers.
    configuration
        What :func:`hrvol.engine.task.configuration` returns in the workers. Picklable.
    """

    def __init__(self, spec: EngineSpec, configuration: Any = None) -> None:
        self.workers = spec.count
        self._spec = spec
        self._configuration = configuration
        self._cluster: Any = None
        self._jobs_seen: dict[Any, float] = {}
        self._client: Any = None
        self._runner: Any = None
        self._settings: Any = None
        self._admission: GpuAdmission | None = None
        self._ended: set[str] = set()
        self._failed_starts: list[str] | None = []  # why; None once a worker has started

    def __enter__(self) -> Self:
        self._settings = dask.config.set(_SETTINGS)
        self._settings.__enter__()
        # What a connection says of its own end: heard when all is over and the cluster silences no more.
        logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
        try:
            self._client = self._connect()
            self._client.register_plugin(_Configure(self._configuration))
            if self._spec.asks is not None:
                self._admission = GpuAdmission(self._client, self._spec.asks, self.workers)
        except BaseException:
            self._close(quickly=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(quickly=kind is not None)

    def _connect(self) -> Client:
        spec = self._spec
        where = spec.scheduler_file or spec.name
        if spec.scheduler_file is not None or "://" in spec.name:
            logging.getLogger("distributed.client").setLevel(
                logging.CRITICAL
            )  # its lost scheduler: see _current_workers
            place = {"scheduler_file": where} if spec.scheduler_file else {"address": where}
            try:
                return Client(**place, set_as_default=False, timeout=CONNECT)
            except (OSError, ValueError) as error:
                raise HrvolError(f"{where}: no Dask scheduler answers ({one_line(error)})") from None
        if spec.name == "slurm":
            self._cluster = slurm_cluster(spec)
        else:
            self._runner = sigint_masked_loop()
            start = partial(cuda_cluster, spec) if spec.local_gpus else local_cluster
            try:
                self._cluster = start(self.workers, self._runner.loop)
            except RuntimeError as error:
                raise self._none_starts(root_cause(error)) from error
        return Client(self._cluster, set_as_default=False)

    def _close(self, quickly: bool) -> None:
        """End the workers; ``quickly`` without waiting for tasks that are still running."""
        if isinstance(self._cluster, LocalCluster) and quickly:
            for nanny in list(self._cluster.workers.values()):
                with suppress(Exception):  # one that is being started, or has died, has no process
                    nanny.auto_restart = False
                    nanny.process.process._process.kill()
        for closing in (self._client, self._cluster):
            with suppress(Exception):
                if closing is not None:
                    # Dask waits for processes that were killed while they started, although they never come.
                    closing.close(timeout=2 if quickly else 10)
        with suppress(Exception):
            if self._runner is not None:
                self._runner.stop(timeout=2)
        self._client = self._cluster = self._runner = None
        if self._settings is not None:
            self._settings.__exit__(None, None, None)
            self._settings = None

    def map_bounded(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        on_tick: Callable[[Any], None] | None = None,
        stop: Stop | None = None,
        tries: int = TRIES,
    ) -> Iterator[Outcome[T, R]]:
        """See :meth:`hrvol.engine.spec.Engine.map_bounded`.

        Raises
        ------
        StoppedError
            The scheduler was lost.
        HrvolError
            No worker process starts.
        """
        topic = f"hrvol-{uuid4().hex}"
        outcomes: dict[str, tuple[str, Outcome[T, R]]] = {}  # and on which worker

        def hear(event: tuple[float, list[Any]]) -> None:
            kind, *said = event[1]
            if kind == "outcome":
                outcomes[said[0]] = said[1], pickle.loads(said[2])
            elif on_tick is not None:
                on_tick(said[0])

        self._client.subscribe_topic(topic, hear)
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        tasks_left = TaskQueue(len(tasks))
        futures: dict[str, tuple[Any, Job]] = {}

        def submit(job: Job) -> None:
            name = f"{topic}-{uuid4().hex}"
            future = self._client.submit(
                _run_on_worker,
                function,
                tasks[job.number],
                job.failed,
                topic,
                name,
                key=name,
                pure=False,
                workers=[job.worker],
                allow_other_workers=True,
            )
            futures[name] = (future, job)
            future.add_done_callback(lambda _: ended.put(name))

        try:
            while True:
                stopping = stop is not None and stop.requested
                if tasks_left.refresh_is_due() or (self._admission is not None and self._admission.waiting):
                    tasks_left.refresh_workers(self._current_workers())
                    for name, (_, job) in futures.items():
                        if not tasks_left.knows(job.worker):
                            ended.put(name)
                if not stopping:
                    for job in tasks_left.assign():
                        submit(job)
                if not futures and (stopping or tasks_left.finished):
                    return
                with suppress(queue.Empty):
                    name = ended.get(timeout=_LOOK)
                    if name not in futures:  # its worker was found to be gone before
                        continue
                    future, job = futures.pop(name)
                    where, heard = outcomes.pop(name, (job.worker, None))
                    tasks_left.release(job)
                    if heard is None:
                        tasks_left.refresh_workers(
                            self._current_workers()
                        )  # first: with the scheduler gone nobody is to blame
                        heard = _loss(future, job)
                        future.cancel(force=True)
                        if where in self._ended:  # another task's doing
                            tasks_left.requeue(job, job.failed)
                            continue
                    future.release()  # else Dask does it again if the worker is lost before another is heard
                    outcome: Outcome[T, R] = replace(heard, task=tasks[job.number])
                    if outcome.broken:
                        self._end_process(where)
                        tasks_left.refresh_workers(self._current_workers())
                    if outcome.ok or not outcome.again or outcome.fatal or outcome.tries >= tries:
                        yield outcome
                    else:
                        tasks_left.requeue(job, outcome.tries, exclusive=outcome.details is None)
        finally:
            with suppress(Exception):
                self._client.cancel([future for future, _ in futures.values()], force=True)
                self._client.unsubscribe_topic(topic)

    def _current_workers(self) -> list[str]:
        """Return the addresses of the workers there are."""
        if isinstance(self._cluster, LocalCluster):
            self._replenish(self._cluster)
        if self._client.status == "running":
            if self._cluster is not None and self._spec.name == "slurm":
                self._replace_jobs()
            try:
                workers = [worker for worker in self._client.nthreads() if worker not in self._ended]
                return workers if self._admission is None else self._admission.admitted(workers)
            except HrvolError:
                raise
            except Exception as error:  # whatever a broken connection raises: the scheduler is gone
                LOG.debug("lost the scheduler: %s", error)
        raise StoppedError(f"{self._spec.scheduler_file or self._spec.name}: the Dask scheduler was lost")

    def _end_process(self, worker: str) -> None:
        """End a worker process that is not sound any more; its nanny starts another."""
        if worker in self._ended:
            return
        self._ended.add(worker)
        LOG.warning("%s: its GPU failed: starting another process", worker)
        # It takes its other task with it, at whose next try nothing is held against that task.
        self._client.run(os._exit, 1, workers=[worker], on_error="ignore")

    def _replenish(self, cluster: LocalCluster) -> None:
        """Begin anew where a worker could not be started, which Dask does not try again.

        Raises
        ------
        HrvolError
            None has ever started: it is not a busy machine, but something that is wrong for all.
        """
        given_up = [n for n, nanny in list(cluster.workers.items()) if nanny.status in _OVER]
        if cluster.scheduler.workers:
            self._failed_starts = None
        if self._failed_starts is not None:
            self._failed_starts += [cluster.workers[name].reason for name in given_up]
            if len(self._failed_starts) >= START_TRIES * self.workers:
                raise self._none_starts(next(filter(None, self._failed_starts), "its process ended"))
        for name in given_up:
            del cluster.workers[name]
        if given_up:
            cluster.scale(self.workers)

    def _none_starts(self, why: str) -> HrvolError:
        return HrvolError(f"engine: {self._spec.name}: no worker process starts: {why}")

    def _replace_jobs(self) -> None:
        """Submit a job for each that had workers and has none any more: out of time, or out of a node."""
        cluster, now = self._cluster, time.monotonic()
        names = {str(state.name) for state in list(cluster.scheduler.workers.values())}
        ended = []
        for job in list(cluster.worker_spec):
            if any(name == str(job) or name.startswith(f"{job}-") for name in names):
                self._jobs_seen[job] = now
            elif now - self._jobs_seen.get(job, now) > JOB_SILENT:
                ended.append(job)
        for job in ended:  # dask-jobqueue itself takes a job for there as long as nobody cancels it
            cluster.worker_spec.pop(job)
            cluster.loop.add_callback(cluster.workers.pop, job, None)
        if ended:
            LOG.warning("%d SLURM jobs ended before the work did: submitting others", len(ended))
            cluster.scale(jobs=self.workers)


def _loss(future: Any, job: Job) -> Outcome[Any, Any]:
    """Return what became of a task that nothing was heard of."""
    error = future.exception() if future.status == "error" else None
    if error is not None and not isinstance(error, KilledWorker):
        return Outcome(None, error=one_line(error), details=repr(error), tries=job.failed + 1)
    times = f"{job.failed + 1} times" if job.failed else "once"
    return Outcome(None, error=f"its worker process died {times} (out of memory?)", tries=job.failed + 1)
