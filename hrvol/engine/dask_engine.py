"""Run tasks on Dask workers: processes of this machine, a cluster that runs already, or SLURM jobs.

The driver itself assigns tasks to workers, two at a time to each: one computes while the other reads its
input or writes its result. So the memory of driver and scheduler does not grow with the number of tasks, a
slow worker delays at most two tasks, and neighbouring tasks stay on one worker.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, Status, WorkerPlugin, get_worker

from hrvol.engine.check import check_engine, find_scheduler
from hrvol.engine.dask_clusters import (
    connect_running,
    cuda_cluster,
    ended_jobs,
    local_cluster,
    sigint_masked_loop,
    slurm_cluster,
    slurm_folder,
    start_failure,
    submit_jobs,
)
from hrvol.engine.dask_servers import root_cause
from hrvol.engine.gpu_admission import GpuAdmission
from hrvol.engine.private import RunKeys, private_folder, safe_path
from hrvol.engine.scheduling import Job, TaskQueue
from hrvol.engine.spec import Engine, EngineSpec, MapRequest, R, T
from hrvol.engine.task import Outcome, configure, run_task
from hrvol.errors import EngineError, HrvolError, StoppedError, one_line

LOG = logging.getLogger("hrvol.run")

CONNECT = 15.0
"""Seconds for the answer of a scheduler whose port is open."""

JOB_SILENT = 20.0
"""Seconds without workers after which a SLURM job that had some counts as ended."""

JOB_CHECK = 20.0
"""Seconds between questions whether SLURM jobs without workers still exist."""

START_TRIES = 3
"""How often each worker process may fail to start before the run ends, as long as none has started."""

_POLL = 0.5  # seconds between checks for stop signals and for retries that are due

_OVER = (Status.closed, Status.failed)

_SETTINGS = {
    # The driver learns of a worker's death at once and counts tries itself.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,  # the driver assigns
    # Results are reports of a few bytes: nothing to profile, to spill or to look up later.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.log-length": 100,
    "distributed.comm.timeouts.connect": "60s",
    # A dead worker is restarted, which takes a while on a busy machine or a slow disk; Dask would give it up
    # meanwhile, for good.
    "distributed.deploy.lost-worker-timeout": "3650 days",
}


class _Configure(WorkerPlugin):  # type: ignore[misc]
    """Sends the configuration to each worker, including replacements of lost ones.

    It loads nothing: the first task that needs a model or network opens it, so that workers start at once and
    a failure to load is the failure of a task, with its reason.
    """

    name = "hrvol-configuration"

    def __init__(self, value: Any) -> None:
        self._value = value

    def setup(self, worker: Any) -> None:
        configure(self._value)


def _run_on_worker(function: Callable[[T], R], task: T, failed: int, topic: str, name: str) -> None:
    """Run one task in a Dask worker; publish its ticks and its outcome under ``topic``.

    The outcome is not the result of the Dask task, which would stay on the worker until it is fetched and be
    lost if the worker dies in between.
    """
    worker = get_worker()
    outcome: Outcome[Any, R] = run_task(
        function, task, failed, lambda message: worker.log_event(topic, ["tick", message])
    )
    worker.log_event(topic, ["outcome", name, worker.address, pickle.dumps(replace(outcome, task=None))])
    if outcome.broken:
        # The driver will end this process. Dask would run its tasks again elsewhere, unless they failed.
        raise RuntimeError(outcome.error)


class DaskEngine(Engine):
    """Runs tasks on Dask worker processes.

    Processes import the script that starts them: one that uses this engine must keep its work under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    spec
        Which engine.
    configuration
        Returned by :func:`hrvol.engine.task.configuration` in the workers. Picklable.
    """

    def __init__(self, spec: EngineSpec, configuration: Any = None) -> None:
        self.workers = spec.count
        self._spec = spec
        self._configuration = configuration
        self._cluster: Any = None
        self._jobs_seen: dict[Any, float] = {}
        self._jobs_checked = time.monotonic()
        self._jobs_failed = 0  # jobs in a row that ended before a worker started
        self._client: Any = None
        self._runner: Any = None
        self._resources = ExitStack()
        self._admission: GpuAdmission | None = None
        self._ended: set[str] = set()
        self._failed_starts: list[str] | None = []  # reasons; None once a worker has started

    def __enter__(self) -> Self:
        # A connection logs its own end after the cluster has stopped silencing the logs.
        logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
        try:
            self._prepare()
            self._client = self._connect()
            self._client.register_plugin(_Configure(self._configuration))
            if self._spec.gpu_identifier is not None:
                self._admission = GpuAdmission(self._client, self._spec.gpu_identifier, self.workers)
        except BaseException:
            self._close(quickly=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(quickly=kind is not None)

    def _prepare(self) -> None:
        """Set up what the processes of the engine need as long as it is open."""
        # A process that was forked cannot use a GPU that its parent has touched.
        method = "forkserver" if self._spec.name == "local" else "spawn"
        settings = {**_SETTINGS, "distributed.worker.multiprocessing-method": method}
        if not self._spec.running_cluster:
            self._resources.enter_context(safe_path())
            # Dask's own folder for temporary files has a name that other accounts know.
            parent = dask.config.get("temporary-directory", None)
            settings["temporary-directory"] = str(
                self._resources.enter_context(private_folder("hrvol-", parent))
            )
        self._resources.enter_context(dask.config.set(settings))

    def _connect(self) -> Client:
        spec = self._spec
        if spec.running_cluster:
            # _current_workers reports a lost scheduler itself.
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
            address = find_scheduler(spec)
            self._runner = sigint_masked_loop()
            return connect_running(address, CONNECT, self._runner.loop)
        check_engine(spec)
        self._runner = sigint_masked_loop()
        loop, keys = self._runner.loop, RunKeys.create()
        try:
            if spec.name == "slurm":
                folder = private_folder(".hrvol-keys-", slurm_folder(spec) or Path.cwd())
                keys = keys.saved(self._resources.enter_context(folder))
                self._cluster = slurm_cluster(spec, loop, keys.security())
                submit_jobs(self._cluster, spec.count)
            else:
                start = cuda_cluster if spec.local_gpus else local_cluster
                self._cluster = start(spec, self.workers, loop, keys.security())
        except HrvolError:
            raise
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise self._start_error(root_cause(error)) from error
        return Client(self._cluster, set_as_default=False)

    @property
    def _scheduler(self) -> str:
        """Scheduler file, address or engine name, for messages."""
        return self._spec.scheduler_file or self._spec.name

    def _close(self, quickly: bool) -> None:
        """End the workers; ``quickly``: without waiting for running tasks."""
        if isinstance(self._cluster, LocalCluster) and quickly:
            for nanny in list(self._cluster.workers.values()):
                with suppress(Exception):  # while starting, and once dead, it has no process
                    nanny.auto_restart = False
                    nanny.process.process._process.kill()
        local = isinstance(self._cluster, LocalCluster)
        for resource in (self._client, self._cluster):
            with suppress(Exception):
                if resource is not None:
                    # Dask would wait forever for processes that were killed while they started. SLURM takes
                    # a while to cancel jobs.
                    resource.close(timeout=2 if quickly and local else 10)
        with suppress(Exception):
            if self._runner is not None:
                self._runner.stop(timeout=2)
        self._client = self._cluster = self._runner = None
        self._resources.close()

    def _outcomes(self, request: MapRequest[T, R]) -> Iterator[Outcome[T, R]]:
        topic = f"hrvol-{uuid4().hex}"
        reported: dict[str, tuple[str, Outcome[T, R]]] = {}  # worker and outcome, by the future's name

        def on_event(event: tuple[float, list[Any]]) -> None:
            kind, *content = event[1]
            if kind == "outcome":
                name, worker, pickled = content
                reported[name] = worker, pickle.loads(pickled)
            elif request.on_tick is not None:
                request.on_tick(content[0])

        self._client.subscribe_topic(topic, on_event)
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        pending = TaskQueue(len(request.tasks))
        futures: dict[str, tuple[Any, Job]] = {}

        def submit(job: Job) -> None:
            name = f"{topic}-{uuid4().hex}"
            future = self._client.submit(
                _run_on_worker,
                request.function,
                request.tasks[job.number],
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
                stopping = request.stopping
                if pending.refresh_is_due() or (self._admission is not None and self._admission.waiting):
                    pending.refresh_workers(self._current_workers())
                    for name, (_, job) in futures.items():
                        if not pending.knows(job.worker):
                            ended.put(name)
                if not stopping:
                    for job in pending.assign():
                        submit(job)
                if not futures and (stopping or pending.finished):
                    return
                with suppress(queue.Empty):
                    name = ended.get(timeout=_POLL)
                    if name not in futures:  # handled before, when its worker was lost
                        continue
                    future, job = futures.pop(name)
                    worker, outcome = reported.pop(name, (job.worker, None))
                    pending.release(job)
                    if outcome is None:
                        # Refresh first: if the scheduler is gone, the task is not to blame.
                        pending.refresh_workers(self._current_workers())
                        outcome = _outcome_of_loss(future, job)
                        future.cancel(force=True)
                        if worker in self._ended:  # another task broke the process
                            pending.requeue(job, job.failed)
                            continue
                    future.release()  # otherwise Dask runs it again if the worker is lost now
                    outcome = replace(outcome, task=request.tasks[job.number])
                    if outcome.broken:
                        self._end_process(worker)
                        pending.refresh_workers(self._current_workers())
                    if request.is_final(outcome):
                        yield outcome
                    else:
                        pending.requeue(job, outcome.tries, exclusive=outcome.details is None)
        finally:
            with suppress(Exception):
                self._client.cancel([future for future, _ in futures.values()], force=True)
                self._client.unsubscribe_topic(topic)

    def _current_workers(self) -> list[str]:
        """Return the addresses of the workers that may run tasks."""
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
            except Exception as error:  # a broken connection raises many types
                LOG.debug("lost the scheduler: %s", error)
        raise StoppedError(f"{self._scheduler}: the Dask scheduler was lost")

    def _end_process(self, worker: str) -> None:
        """End a worker process whose GPU failed; its nanny starts another."""
        if worker in self._ended:
            return
        self._ended.add(worker)
        LOG.warning("%s: its GPU failed: starting another process", worker)
        # Its other task is lost with it; that does not count as a failed try.
        self._client.run(os._exit, 1, workers=[worker], on_error="ignore")

    def _replenish(self, cluster: LocalCluster) -> None:
        """Start workers again that failed to start, which Dask does not try again.

        Raises
        ------
        EngineError
            No worker has ever started: the cause affects all of them.
        """
        given_up = [n for n, nanny in list(cluster.workers.items()) if nanny.status in _OVER]
        if cluster.scheduler.workers:
            self._failed_starts = None
        if self._failed_starts is not None:
            self._failed_starts += [cluster.workers[name].reason for name in given_up]
            if len(self._failed_starts) >= START_TRIES * self.workers:
                raise self._start_error(next(filter(None, self._failed_starts), "its process ended"))
        for name in given_up:
            del cluster.workers[name]
        if given_up:
            cluster.scale(self.workers)

    def _start_error(self, reason: str) -> EngineError:
        return EngineError(f"engine: {self._spec.name}: no worker process starts: {reason}")

    def _replace_jobs(self) -> None:
        """Replace SLURM jobs that have ended, by time limit or node failure.

        Raises
        ------
        EngineError
            Jobs end before they start a worker.
        """
        cluster, now = self._cluster, time.monotonic()
        names = {str(state.name) for state in list(cluster.scheduler.workers.values())}
        ended = []
        for job in list(cluster.worker_spec):
            if any(name == str(job) or name.startswith(f"{job}-") for name in names):
                self._jobs_seen[job] = now
                self._jobs_failed = 0
            elif now - self._jobs_seen.get(job, now) > JOB_SILENT:
                ended.append(job)
        if now - self._jobs_checked > JOB_CHECK:
            self._jobs_checked = now
            failed = ended_jobs(cluster, cluster.worker_spec.keys() - self._jobs_seen.keys())
            self._jobs_failed += len(failed)
            if self._jobs_failed >= (START_TRIES if self._jobs_seen else 1) * self.workers:
                raise start_failure(cluster, failed)
            ended += failed
        for job in ended:  # dask-jobqueue itself keeps a job until it is cancelled
            self._jobs_seen.pop(job, None)  # the name is used again
            cluster.worker_spec.pop(job)
            cluster.loop.add_callback(cluster.workers.pop, job, None)
        if ended:
            LOG.warning("%d SLURM jobs ended before the run: submitting others", len(ended))
            cluster.scale(jobs=self.workers)


def _outcome_of_loss(future: Any, job: Job) -> Outcome[Any, Any]:
    """Return the outcome of a task that has ended without reporting one."""
    error = future.exception() if future.status == "error" else None
    if error is not None and not isinstance(error, KilledWorker):
        return Outcome(None, error=one_line(error), details=repr(error), tries=job.failed + 1)
    times = f"{job.failed + 1} times" if job.failed else "once"
    return Outcome(None, error=f"its worker process died {times} (out of memory?)", tries=job.failed + 1)
