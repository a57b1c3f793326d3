"""Where work happens: a bounded map over tasks, on this process, on worker processes or on a cluster.

An engine knows no imaging. It is given a function, small picklable tasks and one configuration object, keeps
a bounded number of tasks under way (there is never a graph over all of them), and yields an
:class:`~hrvol.engine.task.Outcome` per task as it completes. An exception inside a task is an outcome too,
not the end of the run; results should be small reports, because they travel back to the caller.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from hrvol.device import free_gpu_memory
from hrvol.engine.spec import TRIES, Engine, EngineSpec, R, T, pause
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome, configure, run_task


class SerialEngine:
    """Runs the tasks one after the other in this process.

    Parameters
    ----------
    configuration
        What :func:`hrvol.engine.task.configuration` returns in the tasks.
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


def open_engine(spec: EngineSpec, configuration: Any = None) -> Engine:
    """Return an engine, to be used in a ``with`` statement.

    Parameters
    ----------
    spec
        Which one.
    configuration
        What :func:`hrvol.engine.task.configuration` returns inside the tasks. Picklable.

    Raises
    ------
    MissingExtraError
        The engine needs a package that is not installed.
    """
    if spec.serial:
        return SerialEngine(configuration)
    from hrvol.engine.dask_engine import DaskEngine  # Dask takes a while to import

    return DaskEngine(spec, configuration)
