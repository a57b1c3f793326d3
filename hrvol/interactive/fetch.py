"""Prepare features in the background: of what is seen first, then of strokes, then of neighbouring planes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile

from hrvol.errors import InputError
from hrvol.interactive.drawing import DrawnStrokes
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.region import Region
from hrvol.interactive.regions import TileKey, keys_of_region
from hrvol.interactive.results import StageName
from hrvol.interactive.stages import Stage
from hrvol.memory import release_memory

MOST_TILES = 25
"""Tiles of a view that features are prepared of, those near its middle first."""

AHEAD = 2
"""Neighbouring planes on either side that are prepared too, if the memory holds them beside the view."""

_OFTEN = 2.0  # seconds between reports of new features, at least, until all of a stage are there

_RETRY = 30.0  # seconds from when a tile could not be read until it is tried again

_SPARE = 1.3  # memory of a view, over that of its tiles

Want = tuple[Stage, TileKey]

Name = tuple[StageName, TileKey]
"""A want, as a key."""


@dataclass(frozen=True, eq=False)
class _View:
    """What is seen, and what was done for it."""

    region: Region | None = None
    keys: tuple[TileKey, ...] = ()
    done: set[Name] = field(default_factory=set)  # its tiles and those of neighbours that were prepared
    lost: set[Name] = field(default_factory=set)  # prepared and not there then: not tried again
    unreadable: set[TileKey] = field(default_factory=set)


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
    on_error
        Called with the error of a tile that cannot be read, of several of a view with the first one.
    idle
        Whether nothing else is computed: neighbouring planes wait for it.
    threads
        Tiles that filters are applied to at once.
    """

    def __init__(
        self,
        parts: TileParts,
        live: LivePreviews,
        strokes: DrawnStrokes,
        *,
        on_new: Callable[[], None],
        on_progress: Callable[[str, int, int], None],
        on_error: Callable[[BaseException], None],
        idle: Callable[[], bool],
        threads: int = 1,
    ) -> None:
        self._parts, self._live, self._strokes = parts, live, strokes
        self._on_new, self._on_progress, self._on_error = on_new, on_progress, on_error
        self._idle = idle
        self._threads = threads
        self._view = _View()  # replaced as a whole, as threads read it
        self._current: tuple[TileKey, ...] = ()
        self._failed: dict[TileKey, float] = {}  # when tiles could not be read
        self._unseen = False
        self._reported = 0.0

    def look(self, region: Region | None) -> bool:
        """Set the region that is seen; return whether what is computed now is not part of it."""
        keys: tuple[TileKey, ...] = ()
        if region is not None:
            keys = keys_of_region(self._parts.volume.shape, self._parts.tiles, region, MOST_TILES)
        last = self._view
        same = set(keys) == set(last.keys)
        self._view = replace(last, region=region, keys=keys) if same else _View(region, keys)
        current = set(self._current)
        return bool(current) and not current & set(keys)

    def run(self, gate: Gate) -> None:
        """Prepare all features that are wanted, also those that come to be wanted meanwhile."""
        try:
            with ThreadPoolExecutor(self._threads, "hrvol-filters") as pool:
                while wants := self._next():
                    gate.check()
                    self._prepare(wants, pool, gate)
        finally:
            self._current = ()
        self._report()

    def _prepare(self, wants: Sequence[Want], pool: ThreadPoolExecutor, gate: Gate) -> None:
        self._current = tuple(key for _, key in wants)
        stage, view = wants[0][0], self._view
        self._parts.holds.set({*view.keys, *self._current})
        held = all(self._parts.get(stage, key) is not None for key in self._current)
        if len(wants) == 1:
            self._one(view, stage, self._current[0], gate)
        else:
            for _ in pool.map(lambda key: self._one(view, stage, key, gate), self._current):
                pass
        release_memory()  # arrays of tiles that differ leave gaps that others do not fit
        if not held:
            self._live.missing(stage, self._strokes.read())  # keeps the features of its stroke pixels
            self._unseen = True
        for key in self._current:
            there = key in self._failed or self._parts.get(stage, key) is not None
            (view.done if there else view.lost).add((stage.name, key))
        if not set(self._current) & set(view.keys):
            return
        self._parts.memory.allow(int(_SPARE * len(view.keys) * self._size(stage, self._current[0])))
        done = sum(
            (stage.name, each) in view.done or not self._possible(view, stage, each) for each in view.keys
        )
        self._on_progress(f"features: {stage.name}", done, len(view.keys))
        if done == len(view.keys) or time.monotonic() - self._reported > _OFTEN:
            self._report()

    def _one(self, view: _View, stage: Stage, key: TileKey, gate: Gate) -> None:
        try:
            self._parts.prepare(stage, key, gate)
            self._failed.pop(key, None)
        except (InputError, OSError) as error:  # others are there, and this one may be readable later
            known = key in self._failed or bool(view.unreadable)
            self._failed[key] = time.monotonic()
            view.unreadable.add(key)
            if not known:
                self._on_error(error)

    def _report(self) -> None:
        if self._unseen:
            self._unseen = False
            self._reported = time.monotonic()
            self._on_new()

    def _next(self) -> list[Want]:
        """Return what is wanted most: a tile, or several to which only filters are applied."""
        view = self._view
        wants = (want for want in self._wants(view) if self._possible(view, *want))
        first = next(wants, None)
        if first is None:
            return []
        if first[0].features.uses_deep or self._threads == 1:
            return [first]
        more = takewhile(lambda want: want[0] == first[0] and want[1] != first[1], wants)
        return [first, *islice(more, self._threads - 1)]

    def _wants(self, view: _View) -> Iterator[Want]:
        """Yield all features that are wanted, the most urgent first."""
        region, keys, stages = view.region, view.keys, self._live.stages
        if region is None:
            return
        drawn = self._strokes.read()
        for stage in stages:
            yield from ((stage, key) for key in keys if not self._kept(view, stage, key))
            missing = self._live.missing(stage, drawn)
            yield from ((stage, key) for key in nearest(missing, region.plane))
        if self._unseen:
            self._report()
        if region.level == 0 and self._idle():
            planes = ahead(region.plane, self._parts.volume.shape[0], self._room(keys, stages[-1]))
            for z in planes:
                for stage in stages:
                    around = ((z, row, column) for _, row, column in keys)
                    yield from ((stage, key) for key in around if (stage.name, key) not in view.done)

    def _possible(self, view: _View, stage: Stage, key: TileKey) -> bool:
        """Whether it makes sense to prepare a tile now."""
        since = time.monotonic() - self._failed.get(key, -_RETRY)
        return since >= _RETRY and (stage.name, key) not in view.lost

    def _kept(self, view: _View, stage: Stage, key: TileKey) -> bool:
        """Whether a tile of the view was prepared since it is seen, and still is in memory."""
        return (stage.name, key) in view.done and self._parts.get(stage, key) is not None

    def _room(self, keys: Sequence[TileKey], stage: Stage) -> int:
        """Return how many planes the memory holds beside the one that is seen, on either side."""
        whole = sum(self._size(stage, key) for key in keys)
        return min(AHEAD, (self._parts.memory.most_bytes // whole - 1) // 2) if whole else 0

    def _size(self, stage: Stage, key: TileKey) -> int:
        """Return the bytes of the features of a tile; 0 if they are not in memory."""
        values = self._parts.get(stage, key)
        if values is None:
            return 0
        deep = 0 if values.deep is None else values.deep.tokens.nbytes
        return deep + (0 if values.filters is None else values.filters.values.nbytes)


def nearest(keys: Sequence[TileKey], plane: int) -> tuple[TileKey, ...]:
    """Return tiles in order of the distance of their planes."""
    return tuple(sorted(keys, key=lambda key: (abs(key[0] - plane), key)))


def ahead(plane: int, depth: int, count: int) -> tuple[int, ...]:
    """Return neighbouring planes, the nearest first, ``count`` on either side at most."""
    planes = [plane + sign * step for step in range(1, count + 1) for sign in (1, -1)]
    return tuple(z for z in planes if 0 <= z < depth)
