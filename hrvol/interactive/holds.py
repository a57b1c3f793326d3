"""Keep the features of some tiles in memory, whatever their size: those that are seen or just computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from hrvol.interactive.recent import Recent
from hrvol.interactive.regions import TileKey


class Holds:
    """Tiles whose features are not dropped.

    Parameters
    ----------
    memory
        Features by a name whose second item is the digest of the tile's grey values.
    digest_of
        Returns the digest of a tile, or ``None`` before it is read.
    """

    def __init__(self, memory: Recent[Any], digest_of: Callable[[TileKey], str | None]) -> None:
        self._memory, self._digest_of = memory, digest_of
        self._keys: frozenset[TileKey] = frozenset()
        self._digests: frozenset[str | None] = frozenset()
        self._lock = threading.Lock()

    def set(self, keys: Iterable[TileKey]) -> None:
        """Keep the features of these tiles until the next call, those to be computed, too."""
        with self._lock:
            self._keys = frozenset(keys)
            self._pin(frozenset(map(self._digest_of, self._keys)))

    def note(self, key: TileKey, digest: str) -> None:
        """Take note of the digest of a tile that was read."""
        with self._lock:
            if key in self._keys and digest not in self._digests:
                self._pin(self._digests | {digest})

    def _pin(self, digests: frozenset[str | None]) -> None:
        self._digests = digests
        self._memory.pin(lambda name: name[1] in digests)
