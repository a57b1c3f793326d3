"""Where to load network weights from."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights of the network are loaded from.

    ``path`` names a file that replaces the cache and the download; ``offline`` forbids network access.
    """

    path: str | None = None
    offline: bool = False

    @classmethod
    def of(cls, path: str | os.PathLike[str] | None = None, offline: bool = False) -> WeightsSource:
        """Return the source of a path of any kind."""
        return cls(None if path is None else os.fspath(path), offline)
