"""What a task sees of the engine that runs it, and what the engine hears of the task.

Inside a task :func:`configuration` returns the engine's configuration, :func:`attempt` says how often the
task failed before, :func:`tick` reports progress from the middle of it, and :func:`computing` is held by one
task of a process at a time, so that another can read its input or write its result meanwhile.
"""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hrvol.device import device_failure
from hrvol.errors import HrvolError

T = TypeVar("T")

R = TypeVar("R")

Sink = Callable[[Any], None]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What the system says where nothing more can be written, whichever task tries."""


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
    again
        Whether another try may help.
    fatal
        Whether any other task would fail in the same way, so that the run has to end.
    tries
        How often it was tried.
    broken
        Whether the process should do no other task: a GPU is not sound any more after it had no memory left.
    """

    task: T
    value: R | None = None
    error: str | None = None
    details: str | None = None
    again: bool = True
    fatal: bool = False
    tries: int = 1
    broken: bool = False

    @property
    def ok(self) -> bool:
        """Whether the task was done."""
        return self.error is None


_configuration: Any = None

_sink: ContextVar[Sink | None] = ContextVar("hrvol_tick", default=None)

_attempt: ContextVar[int] = ContextVar("hrvol_attempt", default=0)

_turn = threading.Lock()


def configuration() -> Any:
    """Return the configuration of the engine that runs the calling task."""
    return _configuration


def configure(value: Any) -> Any:
    """Set this process's configuration and return the one before; for engines."""
    global _configuration
    before, _configuration = _configuration, value
    return before


def attempt() -> int:
    """Return how often the calling task failed before: 0 at its first try."""
    return _attempt.get()


def tick(message: Any) -> None:
    """Report progress from inside a task; ``message`` is plain data (numbers, strings, lists)."""
    sink = _sink.get()
    if sink is not None:
        sink(message)


@contextmanager
def computing() -> Iterator[None]:
    """Hold this process's turn to compute."""
    with _turn:
        yield


def one_line(error: BaseException) -> str:
    """Return an exception as one line; deliberate errors speak for themselves, others name their type."""
    text = " ".join(str(error).split())
    if isinstance(error, HrvolError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def run_task(function: Callable[[T], R], task: T, failed: int, sink: Sink | None) -> Outcome[T, R]:
    """Run one task; whatever it raises becomes its outcome.

    Parameters
    ----------
    function, task
        What to call, and with what.
    failed
        How often the task failed before.
    sink
        Where its ticks go.
    """
    tokens = _sink.set(sink), _attempt.set(failed)
    try:
        return Outcome(task, function(task), tries=failed + 1)
    except Exception as error:
        said = error if isinstance(error, HrvolError) else None
        failure = device_failure(error)
        return Outcome(
            task,
            None,
            f"{failure} ({one_line(error)})" if failure else one_line(error),
            traceback.format_exc(),
            again=said is None or said.transient or failure is not None,
            fatal=(said is not None and said.ends_run) or getattr(error, "errno", None) in NO_ROOM,
            tries=failed + 1,
            broken=failure is not None,
        )
    finally:
        _sink.reset(tokens[0])
        _attempt.reset(tokens[1])
