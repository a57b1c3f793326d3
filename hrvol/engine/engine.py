"""Open an engine, and run tasks in this process.

An engine gets a function, small picklable tasks and one configuration object. It keeps a bounded number of
tasks in flight (no graph over all tasks ever exists) and yields an :class:`~hrvol.engine.task.Outcome` per
task as it completes. An exception inside a task is an outcome too and does not end the run. Results should
be small reports, because they travel back to the caller.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from hrvol.device import free_gpu_memory
from hrvol.engine.spec import Engine, EngineSpec, MapRequest, R, T, pause
from hrvol.engine.task import Outcome, configure, run_task


class SerialEngine(Engine):
    """Runs the tasks one after the other in this process; tasks to try again come last.

    Parameters
    ----------
    configuration
        Returned by :func:`hrvol.engine.task.configuration` inside the tasks.
    """

    workers = 1

    def __init__(self, configuration: Any = None) -> None:
        self._configuration = configuration
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = configure(self._configuration)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        configure(self._previous)

    def _outcomes(self, request: MapRequest[T, R]) -> Iterator[Outcome[T, R]]:
        retries: deque[tuple[float, int, T]] = deque()  # earliest start, failures so far, task

        def final_outcome(task: T, failed: int) -> Outcome[T, R] | None:
            outcome = run_task(request.function, task, failed, request.on_tick)
            if outcome.broken:
                free_gpu_memory()  # no other process could retry the task
            if request.is_final(outcome):
                return outcome
            retries.append((time.monotonic() + pause(failed + 1), failed + 1, task))
            return None

        for number in range(len(request.tasks)):
            if request.stopping:
                return
            outcome = final_outcome(request.tasks[number], 0)
            if outcome is not None:
                yield outcome
        while retries and not request.stopping:
            ready, failed, task = retries.popleft()
            time.sleep(max(0.0, ready - time.monotonic()))
            outcome = final_outcome(task, failed)
            if outcome is not None:
                yield outcome


def open_engine(spec: EngineSpec, configuration: Any = None) -> Engine:
    """Return an engine, to be used in a ``with`` statement.

    Parameters
    ----------
    spec
        Which engine.
    configuration
        Returned by :func:`hrvol.engine.task.configuration` inside the tasks. Picklable.

    Raises
    ------
    MissingExtraError
        The engine needs a package that is not installed.
    """
    if spec.serial:
        return SerialEngine(configuration)
    from hrvol.engine.dask_engine import DaskEngine  # Dask takes a while to import

    return DaskEngine(spec, configuration)
