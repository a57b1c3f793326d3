"""Answer where to draw next: in the view, in visited tiles, or in a sample of the volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hrvol.errors import ResourceError, UsageError
from hrvol.interactive.drawing import Drawn
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import Fitted, LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.places import Candidates, candidates_of, choose_places
from hrvol.interactive.region import Region
from hrvol.interactive.regions import TileKey, keys_of_region, spread_keys, tile_keys
from hrvol.interactive.results import Place, Scope
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import whole

VIEW = 24
"""Tiles of a view that are looked at, at most: of a larger one, evenly spread ones."""

VISITED = 24
"""Visited tiles that are looked at, at most."""

SAMPLE = 12
"""Tiles of a volume that are looked at."""


@dataclass(frozen=True)
class Search:
    """Which places are wanted.

    Attributes
    ----------
    scope
        Where to look.
    count
        How many places; there may be fewer.
    sample
        Tiles of the volume that are looked at.
    """

    scope: Scope = "view"
    count: int = 1
    sample: int = SAMPLE

    def __post_init__(self) -> None:
        if self.scope not in ("view", "visited", "volume"):
            raise UsageError(f"planes: found {self.scope!r}, expected view, visited or volume")


def find_places(
    parts: TileParts,
    live: LivePreviews,
    drawn: Drawn,
    region: Region | None,
    search: Search,
    gate: Gate,
    *,
    progress: Callable[[str, int, int], None],
    threads: int = 1,
) -> tuple[Place, ...]:
    """Return places where a stroke would teach most, see :func:`hrvol.interactive.places.choose_places`.

    Parameters
    ----------
    parts, live, drawn
        Features, classifiers and strokes.
    region
        What is seen.
    search
        Which places.
    gate
        Checked between steps.
    progress
        Called with stage, tiles done, all tiles.
    threads
        Threads of predictions.

    Raises
    ------
    StrokesError
        Fewer than two classes are drawn.
    UsageError
        There is no view yet.
    ResourceError
        Features of strokes were dropped before they were used.
    """
    if region is None:
        raise UsageError("places: found no view, expected one to look in")
    drawn.check()
    fitted = _fitted(parts, live, drawn, region, gate)
    keys = _keys(parts, region, search)
    found: list[Candidates] = []
    for number, key in enumerate(keys):
        progress("places", number, len(keys))
        parts.prepare(fitted.stage, key, gate)
        values = parts.get(fitted.stage, key)
        if values is None:
            continue
        within = region if search.scope == "view" else None
        some = candidates_of(parts, key, values, fitted, gate, within=within, threads=threads)
        if some is not None:
            found.append(some)
    progress("places", len(keys), len(keys))
    if not found:
        return ()
    features = fitted.classifier.describe(live.features(fitted.stage, drawn))
    return choose_places(Candidates.joined(found), drawn, features, search.count)


def _fitted(parts: TileParts, live: LivePreviews, drawn: Drawn, region: Region, gate: Gate) -> Fitted:
    """Return the classifier of the best stage that enough is known of; compute the coarsest if needed."""
    for usable in live.usable(drawn):
        found = live.fit(usable, drawn, gate)
        if found is not None:
            return found
    stage = live.stages[0]
    for key in keys_of_region(parts.volume.shape, parts.tiles, region, 1):
        parts.prepare(stage, key, gate)
        live.note_basis(stage, key)
    for key in live.missing(stage, drawn):
        parts.prepare(stage, key, gate)
        live.missing(stage, drawn)  # keeps the features of its stroke pixels
    found = live.fit(stage, drawn, gate)
    if found is None:  # others needed the memory meanwhile
        raise ResourceError(f"{drawn.source}: found too little memory for features of all strokes, try again")
    return found


def _keys(parts: TileParts, region: Region, search: Search) -> tuple[TileKey, ...]:
    shape = parts.volume.shape
    if search.scope == "view":
        return spread_keys(shape, parts.tiles, region, VIEW)
    if search.scope == "visited":
        visited, count = parts.visited, min(VISITED, len(parts.visited))
        return tuple(visited[i * len(visited) // count] for i in range(count))
    found = []
    for z, owned, _ in stratified_tiles(shape, whole(shape), parts.tiles, search.sample, 0):
        corner = np.array([[z, owned[1].start, owned[2].start]], np.int64)
        key = tile_keys(shape, parts.tiles, corner)[0]
        found.append((int(key[0]), int(key[1]), int(key[2])))
    return tuple(found)
