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
from distributed import Client, KilledWorker, LocalCluster, SpecCluster, Status

from hrvol.engine import life
from hrvol.engine.check import find_sbatch, find_scheduler
from hrvol.engine.dask_clusters import (
    connect_running,
    cuda_cluster,
    local_cluster,
    sigint_masked_loop,
)
from hrvol.engine.dask_retired import RetiredWorkers, kill_worker, killing
from hrvol.engine.dask_servers import root_cause
from hrvol.engine.dask_worker import Configure, run_on_worker
from hrvol.engine.gpu_admission import GpuAdmission
from hrvol.engine.life import LifeWatch
from hrvol.engine.private import RunKeys, private_folder
from hrvol.engine.safe_path import safe_path
from hrvol.engine.scheduling import Job, TaskQueue
from hrvol.engine.slurm import SlurmJobs, slurm_cluster, slurm_folder
from hrvol.engine.spec import Engine, EngineSpec, MapRequest, R, T
from hrvol.engine.stop import postponed
from hrvol.engine.task import Outcome
from hrvol.errors import EngineError, HrvolError, StoppedError, one_line

LOG = logging.getLogger("hrvol.run")

CONNECT = 15.0
"""Seconds for the answer of a scheduler whose port is open."""

START_TRIES = 3
"""How often each worker process may fail to start before the run ends, as long as none has started."""

LAST_WORKER = 30.0
"""Seconds after the first worker process has started in which the run waits for the others."""

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
    # Dask's clock runs while a laptop sleeps. The driver itself retires silent workers.
    "distributed.scheduler.worker-ttl": None,
}


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
        self._jobs: SlurmJobs | None = None
        self._client: Any = None
        self._runner: Any = None
        self._resources = ExitStack()
        self._admission: GpuAdmission | None = None
        self._topic = f"hrvol-{uuid4().hex}"
        self._take_report: Callable[[str, str, str, Any], bool] | None = None  # while a map runs
        self._retired = RetiredWorkers()
        self._failed_starts: list[str] | None = []  # reasons; None once a worker has started

    def __enter__(self) -> Self:
        # A connection logs its own end after the cluster has stopped silencing the logs.
        logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
        try:
            self._prepare()
            self._client = self._connect()
            self._client.register_plugin(Configure(self._configuration))
            self._client.subscribe_topic(self._topic, self._on_event)
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
        if spec.name == "slurm":
            find_sbatch()
        self._runner = sigint_masked_loop()
        try:
            if spec.local_gpus:
                self._cluster = self._start_on_gpus(RunKeys.create())
            else:
                with postponed():  # the cluster would be left without an owner
                    self._cluster = self._start_cluster(RunKeys.create())
            if spec.name == "slurm":
                self._jobs = SlurmJobs(self._cluster, spec.count)
                self._jobs.submit()
        except HrvolError:
            raise
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise self._start_error(root_cause(error)) from error
        if spec.name != "slurm":
            self._cluster.scale(self.workers)
            self._await_workers(self._cluster)
        return Client(self._cluster, set_as_default=False)

    def _start_cluster(self, keys: RunKeys) -> Any:
        """Return a cluster without workers."""
        spec, loop = self._spec, self._runner.loop
        if spec.name == "slurm":
            folder = private_folder(".hrvol-keys-", slurm_folder(spec) or Path.cwd())
            saved = keys.saved(self._resources.enter_context(folder))
            return slurm_cluster(spec, loop, saved.security())
        return local_cluster(spec, 0, loop, keys.security())

    def _start_on_gpus(self, keys: RunKeys) -> Any:
        """Return a cluster with a worker for each GPU, for which it waits itself."""
        others = set(SpecCluster._instances)
        try:
            return cuda_cluster(self._spec, self.workers, self._runner.loop, keys.security())
        except BaseException:  # a signal: its processes are ended with what has been made
            self._cluster = next(iter(set(SpecCluster._instances) - others), None)
            raise

    def _await_workers(self, cluster: LocalCluster) -> None:
        """Wait until all workers have started, but not long for the last ones.

        They are waited for here, and not by Dask, so that a signal ends the wait and no worker is left.
        """
        first: float | None = None
        while (started := len(cluster.scheduler.workers)) < self.workers:
            if started:
                first = first or time.monotonic()
                if time.monotonic() - first > LAST_WORKER:
                    return
            self._replenish(cluster)
            time.sleep(0.02)

    @property
    def _scheduler(self) -> str:
        """Scheduler file, address or engine name, for messages."""
        return self._spec.scheduler_file or self._spec.name

    def _close(self, quickly: bool) -> None:
        """End the workers; ``quickly``: without waiting for running tasks."""
        with postponed(), killing(self._cluster if quickly else None):  # or processes would be left
            self._end(quickly)

    def _end(self, quickly: bool) -> None:
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
        topic = self._topic
        reported: dict[str, tuple[str, Outcome[T, R]]] = {}  # worker and outcome, by the future's name

        watch = LifeWatch(life.LIMITS)
        stuck: dict[str, str] = {}  # reason, by the future's name

        def take(kind: str, name: str, worker: str, content: Any) -> bool:
            if not watch.report(name, worker, works=kind != "alive" or content):
                return False
            if kind == "outcome":
                reported[name] = worker, pickle.loads(content)
            elif kind == "tick" and request.on_tick is not None:
                request.on_tick(content)
            return True

        self._take_report = take
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        pending = TaskQueue(len(request.tasks), request.starts)
        futures: dict[str, tuple[Any, Job]] = {}

        def submit(job: Job) -> None:
            name = f"{topic}-{uuid4().hex}"
            watch.submitted(name, job.worker)
            future = self._client.submit(
                run_on_worker,
                request.function,
                request.tasks[job.number],
                job.failed,
                topic,
                name,
                watch.limits.report,
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
                overdue = watch.overdue()
                for task in overdue:
                    self._retired.retire(self._cluster, task)
                    stuck[task.name] = task.reason
                    ended.put(task.name)
                waiting = self._admission is not None and self._admission.waiting
                if pending.refresh_is_due() or waiting or overdue:
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
                    worker, outcome = reported.pop(name, (watch.ended(name) or job.worker, None))
                    reason = stuck.pop(name, None)
                    pending.release(job)
                    if outcome is None:
                        # Refresh first: if the scheduler is gone, the task is not to blame.
                        pending.refresh_workers(self._current_workers())
                        outcome = _outcome_of_loss(future, job, reason)
                        future.cancel(force=True)
                        if reason is None and worker in self._retired:  # because of another task
                            pending.requeue(job, job.failed)
                            continue
                    if outcome.ok:
                        watch.succeeded()
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
            self._take_report = None
            with suppress(Exception):
                self._client.cancel([future for future, _ in futures.values()], force=True)

    def _on_event(self, event: tuple[float, list[Any]]) -> None:
        """Take a report of a worker, in another thread."""
        kind, name, worker, content = event[1]
        take = self._take_report
        if take is None or not take(kind, name, worker, content):
            # Nobody waits for this task any more, as another worker has it.
            self._retired.heard(name, worker, works=kind != "alive" or content)

    def _current_workers(self) -> list[str]:
        """Return the addresses of the workers that may run tasks."""
        if isinstance(self._cluster, LocalCluster):
            self._replenish(self._cluster)
        if self._client.status == "running":
            if self._jobs is not None:
                self._jobs.replace_ended()
            try:
                workers = [worker for worker in self._client.nthreads() if worker not in self._retired]
                return workers if self._admission is None else self._admission.admitted(workers)
            except HrvolError:
                raise
            except Exception as error:  # a broken connection raises many types
                LOG.debug("lost the scheduler: %s", error)
        raise StoppedError(f"{self._scheduler}: the Dask scheduler was lost")

    def _end_process(self, worker: str) -> None:
        """End a worker process whose GPU failed; its nanny starts another."""
        if worker in self._retired:
            return
        self._retired.ending(worker)
        LOG.warning("%s: its GPU failed: starting another process", worker)
        # Its other task is lost with it; that does not count as a failed try.
        if isinstance(self._cluster, LocalCluster):
            kill_worker(self._cluster, worker)
            return
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


def _outcome_of_loss(future: Any, job: Job, reason: str | None) -> Outcome[Any, Any]:
    """Return the outcome of a task that has ended without reporting one, or was given up for a reason."""
    if reason is not None:
        return Outcome(None, error=reason, tries=job.failed + 1)
    error = future.exception() if future.status == "error" else None
    if error is not None and not isinstance(error, KilledWorker):
        return Outcome(None, error=one_line(error), details=repr(error), tries=job.failed + 1)
    times = f"{job.failed + 1} times" if job.failed else "once"
    return Outcome(None, error=f"its worker process died {times} (out of memory?)", tries=job.failed + 1)
