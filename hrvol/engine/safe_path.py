"""Keep the current folder off the module search path of child processes; imports no other package."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that keeps the current folder off Python's module search path."""


class _SafePath:
    """The environment variable, set as long as anybody in any thread needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._previous: str | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the current folder off the search path of Python processes that are started meanwhile.

        Otherwise a file ``struct.py`` of the folder that a run is started in is executed.
        """
        with self._lock:
            if not self._users:
                self._previous = os.environ.get(SAFE_PATH)
            self._users += 1
            os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    if self._previous is None:
                        os.environ.pop(SAFE_PATH, None)
                    else:
                        os.environ[SAFE_PATH] = self._previous


safe_path = _SafePath()
