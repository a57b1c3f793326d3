"""Run one task and describe its outcome; the functions that a task may call.

Inside a task :func:`configuration` returns the engine's configuration, :func:`attempt` how often the task
failed before, :func:`tick` reports progress, and :func:`computing` is held by one task of a process at a
time, so that another can read its input or write its result meanwhile.
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
from hrvol.errors import HrvolError, one_line

T = TypeVar("T")

R = TypeVar("R")

Sink = Callable[[Any], None]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of the operating system that make every further write fail, whichever task tries."""


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """Result or failure of one task.

    Attributes
    ----------
    task
        The task as submitted.
    value
        Return value of the function; ``None`` if it failed.
    error
        Reason of the failure in one line, or ``None`` if the task succeeded.
    details
        Traceback of the failure, for debugging; ``None`` if the worker process died.
    again
        Whether another try may help.
    fatal
        Whether every other task would fail in the same way, so that the run has to end.
    tries
        How often the task was tried.
    broken
        Whether the process must not run further tasks: after an error a GPU is unreliable.
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
        """Whether the task succeeded."""
        return self.error is None


_configuration: Any = None

_sink: ContextVar[Sink | None] = ContextVar("hrvol_tick", default=None)

_attempt: ContextVar[int] = ContextVar("hrvol_attempt", default=0)

_compute_lock = threading.Lock()

_waiting: set[int] = set()  # threads that wait for the lock


def configuration() -> Any:
    """Return the configuration of the engine that runs the calling task."""
    return _configuration


def configure(value: Any) -> Any:
    """Set this process's configuration and return the previous one; for engines."""
    global _configuration
    previous, _configuration = _configuration, value
    return previous


def attempt() -> int:
    """Return how often the calling task failed before; 0 at its first try."""
    return _attempt.get()


def tick(message: Any) -> None:
    """Report progress from inside a task; ``message`` is plain data (numbers, strings, lists)."""
    sink = _sink.get()
    if sink is not None:
        sink(message)


@contextmanager
def computing() -> Iterator[None]:
    """Hold this process's lock for computing."""
    thread = threading.get_ident()
    _waiting.add(thread)
    try:
        _compute_lock.acquire()
    finally:
        _waiting.discard(thread)
    try:
        yield
    finally:
        _compute_lock.release()


def waits_to_compute(thread: int) -> bool:
    """Return whether a thread of this process waits while another task computes."""
    return thread in _waiting


def run_task(function: Callable[[T], R], task: T, failed: int, sink: Sink | None) -> Outcome[T, R]:
    """Run one task and return its outcome, also if it raises.

    Parameters
    ----------
    function, task
        The function and its argument.
    failed
        How often the task failed before.
    sink
        Receives its ticks.
    """
    tokens = _sink.set(sink), _attempt.set(failed)
    try:
        return Outcome(task, function(task), tries=failed + 1)
    except Exception as error:
        deliberate = error if isinstance(error, HrvolError) else None
        ends_run = deliberate is not None and deliberate.ends_run
        failure = device_failure(error)
        return Outcome(
            task,
            None,
            f"{failure} ({one_line(error)})" if failure else one_line(error),
            traceback.format_exc(),
            again=deliberate is None or deliberate.transient or failure is not None,
            fatal=ends_run or getattr(error, "errno", None) in NO_ROOM,
            tries=failed + 1,
            broken=failure is not None,
        )
    finally:
        _sink.reset(tokens[0])
        _attempt.reset(tokens[1])
