"""Retire Dask workers that give no sign of life: end them where they are ours, else give them no tasks."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver
from typing import Any

from distributed import LocalCluster, Status

from hrvol.engine.life import Overdue

LOG = logging.getLogger("hrvol.run")


class RetiredWorkers:
    """The workers that get no tasks: those that were ended, and those set aside until they go on."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._silent: set[str] = set()
        self._stuck: dict[str, str] = {}  # worker, by the task that it is stuck in

    def __contains__(self, worker: str) -> bool:
        return worker in self._ended or worker in self._silent or worker in self._stuck.values()

    def ending(self, worker: str) -> None:
        """Note that a worker process ends; its nanny starts another at another address."""
        self._ended.add(worker)

    def heard(self, name: str, worker: str, *, works: bool) -> None:
        """Use a worker again that was set aside and has gone on with a task."""
        self._silent.discard(worker)
        if works:
            self._stuck.pop(name, None)

    def retire(self, cluster: Any, task: Overdue) -> None:
        """Retire the worker of a task.

        Parameters
        ----------
        cluster
            The cluster that the driver has started; ``None``: the workers are not ours.
        task
            A task that gives no sign of life.
        """
        worker, retired = task.worker, task.worker in self
        if cluster is None:
            if task.silent:
                self._silent.add(worker)
            else:
                self._stuck[task.name] = worker
        else:
            self._ended.add(worker)
        if retired:
            return
        done = "it gets no other tasks until it goes on" if cluster is None else "starting another worker"
        LOG.warning("%s: a task is given to another worker: %s; %s", worker, task.reason, done)
        if isinstance(cluster, LocalCluster):
            kill_worker(cluster, worker)
        elif cluster is not None:  # a nanny on another machine does it
            restart = partial(
                cluster.scheduler.restart_workers,
                [worker],
                wait_for_workers=False,
                on_error="return",
                stimulus_id="hrvol-retire",
            )
            cluster.loop.add_callback(restart)


def kill_worker(cluster: LocalCluster, worker: str) -> None:
    """Kill a worker process of this machine, even if it is stopped; its nanny starts another."""
    for nanny in list(cluster.workers.values()):
        if nanny.worker_address == worker and nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def killing(cluster: Any) -> Iterator[None]:
    """Kill all worker processes of this machine, also those that start while the ``with`` statement lasts."""
    if not isinstance(cluster, LocalCluster):
        yield
        return
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            _kill_all(cluster)
            over.wait(0.1)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _kill_all(cluster: LocalCluster) -> None:
    nannies = list(cluster._created)
    for nanny in nannies:
        with suppress(Exception):  # it may have no process yet, or none any more
            nanny.process.process._process.kill()
    if any(nanny.status in (Status.init, Status.starting) for nanny in nannies):
        # Workers are forked from a process that imports for seconds before it answers.
        server: Any = forkserver._forkserver
        with suppress(TypeError, OSError):  # it has not been started
            os.kill(server._forkserver_pid, signal.SIGKILL)
            server._stop()
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)  # the start fails, as intended
