"""Prepare features in the background: of what is seen first, then of strokes, then of neighbouring planes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from hrvol.interactive.drawing import DrawnStrokes
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.regions import Region, TileKey, keys_of_region
from hrvol.interactive.stages import Stage

MOST_TILES = 64
"""Tiles of a view that features are prepared of, those near its middle first."""

AHEAD = 2
"""Neighbouring planes on either side that are prepared too, if the memory holds them beside the view."""

_OFTEN = 2.0  # seconds between reports of new features, at least, until all of a stage are there

Want = tuple[Stage, TileKey]


class Fetcher:
    """Prepares the features of the tiles that a session needs, one after the other.

    Parameters
    ----------
    parts
        Features of tiles.
    live
        Knows which stroke pixels lack features.
    strokes
        The strokes.
    on_new
        Called when there are new features.
    on_progress
        Called with stage, tiles done, all tiles.
    idle
        Whether nothing else is computed: neighbouring planes wait for it.
    """

    def __init__(
        self,
        parts: TileParts,
        live: LivePreviews,
        strokes: DrawnStrokes,
        *,
        on_new: Callable[[], None],
        on_progress: Callable[[str, int, int], None],
        idle: Callable[[], bool],
    ) -> None:
        self._parts, self._live, self._strokes = parts, live, strokes
        self._on_new, self._on_progress, self._idle = on_new, on_progress, idle
        self._region: Region | None = None
        self._keys: tuple[TileKey, ...] = ()
        self._done: set[tuple[str, TileKey]] = set()
        self._current: TileKey | None = None
        self._unseen = False
        self._reported = 0.0

    def look(self, region: Region | None) -> bool:
        """Set the region that is seen; return whether what is computed now is not part of it."""
        self._region = region
        keys: tuple[TileKey, ...] = ()
        if region is not None:
            keys = keys_of_region(self._parts.volume.shape, self._parts.tiles, region)[:MOST_TILES]
        if set(keys) != set(self._keys):
            self._done = set()
        self._keys = keys
        return self._current is not None and self._current not in keys

    def run(self, gate: Gate) -> None:
        """Prepare all features that are wanted, also those that come to be wanted meanwhile."""
        try:
            while (want := self._next()) is not None:
                gate.check()
                self._prepare(*want, gate)
        finally:
            self._current = None
        self._report()

    def _prepare(self, stage: Stage, key: TileKey, gate: Gate) -> None:
        self._current = key
        of_view = key in self._keys
        held = self._parts.get(stage, key) is not None
        self._parts.prepare(stage, key, gate)
        self._done.add((stage.name, key))
        if not held:
            self._live.missing(stage, self._strokes.read())  # keeps the features of its stroke pixels
            self._unseen = True
        if not of_view or self._region is None:
            return
        done = sum((stage.name, each) in self._done for each in self._keys)
        self._on_progress(f"features: {stage.name}", done, len(self._keys))
        if done == len(self._keys) or time.monotonic() - self._reported > _OFTEN:
            self._report()

    def _report(self) -> None:
        if self._unseen:
            self._unseen = False
            self._reported = time.monotonic()
            self._on_new()

    def _next(self) -> Want | None:
        wants = self._wants()
        return next((w for w in wants if (w[0].name, w[1]) not in self._done), None)

    def _wants(self) -> Iterator[Want]:
        """Yield all features that are wanted, the most urgent first."""
        region, keys, stages = self._region, self._keys, self._live.stages
        if region is None:
            return
        drawn = self._strokes.read()
        for stage in stages:
            yield from ((stage, key) for key in keys)
            missing = self._live.missing(stage, drawn)
            yield from ((stage, key) for key in nearest(missing, region.plane))
        if self._unseen:
            self._report()
        if region.level == 0 and self._idle():
            planes = ahead(region.plane, self._parts.volume.shape[0], self._room(keys, stages[-1]))
            for z in planes:
                for stage in stages:
                    yield from ((stage, (z, row, column)) for _, row, column in keys)

    def _room(self, keys: Sequence[TileKey], stage: Stage) -> int:
        """Return how many planes the memory holds beside the one that is seen, on either side."""
        sizes = []
        for key in keys:
            values = self._parts.get(stage, key)
            if values is None:
                return 0
            deep = 0 if values.deep is None else values.deep.tokens.nbytes
            sizes.append(deep + (0 if values.filters is None else values.filters.values.nbytes))
        whole = max(sum(sizes), 1)
        return min(AHEAD, (self._parts.memory.most_bytes // whole - 1) // 3)


def nearest(keys: Sequence[TileKey], plane: int) -> tuple[TileKey, ...]:
    """Return tiles in order of the distance of their planes."""
    return tuple(sorted(keys, key=lambda key: (abs(key[0] - plane), key)))


def ahead(plane: int, depth: int, count: int) -> tuple[int, ...]:
    """Return neighbouring planes, the nearest first, ``count`` on either side at most."""
    planes = [plane + sign * step for step in range(1, count + 1) for sign in (1, -1)]
    return tuple(z for z in planes if 0 <= z < depth)
