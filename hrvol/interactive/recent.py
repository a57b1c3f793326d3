"""Keep the most recently used values within a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key, of which the least recently used are dropped.

    Parameters
    ----------
    most_bytes
        Bytes of all values together; the most recent value and those that are pinned are kept even if they
        are larger.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._pinned: Callable[[Any], bool] = lambda key: False
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self._bytes

    @property
    def most_bytes(self) -> int:
        """Bytes that all values may have."""
        return self._most

    def allow(self, most_bytes: int) -> None:
        """Allow more bytes from now on; fewer than before change nothing."""
        with self._lock:
            self._most = max(self._most, most_bytes)

    def pin(self, pinned: Callable[[Any], bool]) -> None:
        """Do not drop the values of keys that satisfy a condition, until the next call."""
        with self._lock:
            self._pinned = pinned

    def get(self, key: Hashable) -> V | None:
        """Return a value, which becomes the most recent one, or ``None``."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: V, nbytes: int) -> None:
        """Keep a value of so many bytes; it replaces one with the same key."""
        with self._lock:
            if key in self._values:
                self._bytes -= self._values.pop(key)[1]
            self._values[key] = value, nbytes
            self._bytes += nbytes
            if self._bytes > self._most:
                for other in [one for one in self._values if one != key and not self._pinned(one)]:
                    if self._bytes <= self._most:
                        break
                    self._bytes -= self._values.pop(other)[1]

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values.clear()
            self._bytes = 0
