"""Call functions in another process, so that a crash there is a result and does not end this one."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from hrvol.engine.safe_path import safe_path
from hrvol.engine.stop import postponed
from hrvol.errors import one_line

T = TypeVar("T")

_TIMEOUT = 300.0  # seconds: a first import from a network file system takes minutes


class IsolatedProcess:
    """A process to call importable functions in; after a crash the next call starts another."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> IsolatedProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:  # a signal: an import may last for minutes, and a second signal not wait
                self._kill()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _kill(self) -> None:
        for process in [] if self._pool is None else list((self._pool._processes or {}).values()):
            process.kill()

    def __call__(self, function: Callable[..., T], *arguments: Any) -> tuple[T | None, str | None]:
        """Call a function there; return its value, or the reason of its failure in one line."""
        try:
            # For the process that the first call starts, and for the pool's own; none may be unknown to it.
            with safe_path(), postponed():
                if self._pool is None:
                    context = multiprocessing.get_context("spawn")
                    self._pool = ProcessPoolExecutor(1, context, initializer=_silence)
                answer = self._pool.submit(function, *arguments)
            return answer.result(_TIMEOUT), None
        except BrokenProcessPool:
            failure = "the process crashed"
        except TimeoutError:
            self._kill()
            failure = f"no answer within {_TIMEOUT:.0f} s"
        except Exception as error:
            return None, one_line(error)
        self.__exit__()
        return None, failure


def import_module(name: str) -> None:
    """Import a module; make an error of ``SystemExit``, which would end the process."""
    try:
        importlib.import_module(name)
    except SystemExit as error:
        raise ImportError(f"{name} ended its process with {error.code}") from None


def _silence() -> None:
    """Discard what imported modules print."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
