"""How a session computes: device, threads, memory and disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.tile_cache import MOST_BYTES

MEMORY = 3 * 2**27
"""Bytes of features in memory; more where a view needs more."""


@dataclass(frozen=True)
class SessionOptions:
    """How a session computes.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    weights
        Where the network's weights are loaded from.
    cache
        Folder of tokens on disk; ``None``: nothing is kept there.
    disk
        Bytes of tokens on disk.
    memory
        Bytes of features in memory.
    threads
        Threads of fits and predictions of previews.
    """

    device: str = "cpu"
    weights: WeightsSource = WeightsSource()
    cache: Path | None = None
    disk: int = MOST_BYTES
    memory: int = MEMORY
    threads: int = 1
