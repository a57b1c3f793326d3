"""Run tasks in a Dask worker: its configuration, and what it reports to the driver."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from distributed import WorkerPlugin, get_worker

from hrvol.engine.life import REPORTER
from hrvol.engine.spec import R, T
from hrvol.engine.task import Outcome, configure, run_task


class Configure(WorkerPlugin):  # type: ignore[misc]
    """Sends the configuration to each worker, including replacements of lost ones.

    It loads nothing: the first task that needs a model or network opens it, so that workers start at once and
    a failure to load is the failure of a task, with its reason.
    """

    name = "hrvol-configuration"

    def __init__(self, value: Any) -> None:
        self._value = value

    def setup(self, worker: Any) -> None:
        """Set the configuration of a worker."""
        configure(self._value)


def run_on_worker(
    function: Callable[[T], R], task: T, failed: int, topic: str, name: str, seconds: float
) -> None:
    """Run one task in a Dask worker; publish its ticks, signs of life and outcome under ``topic``.

    The outcome is not the result of the Dask task, which would stay on the worker until it is fetched and be
    lost if the worker dies in between.
    """
    worker = get_worker()

    def publish(kind: str, content: Any) -> None:
        worker.log_event(topic, [kind, name, worker.address, content])

    with REPORTER.running(name, seconds, lambda works: publish("alive", works)):
        outcome: Outcome[Any, R] = run_task(function, task, failed, lambda message: publish("tick", message))
    publish("outcome", pickle.dumps(replace(outcome, task=None)))
    if outcome.broken:
        # The driver will end this process. Dask would run its tasks again elsewhere, unless they failed.
        raise RuntimeError(outcome.error)
