"""Regions of a volume as boxes, and the guard that keeps outputs away from the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hrvol.errors import UsageError
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume

Region = Sequence[slice]
"""``(z, y, x)`` or, of a single plane, ``(y, x)`` slices in voxels; an open end is ``None``."""


def region_box(roi: Region | None, volume: Volume) -> Box:
    """Return a region as a box with explicit bounds; :class:`UsageError` where it is not inside."""
    if roi is None:
        return whole(volume.shape)
    spans = tuple(roi)
    if len(spans) == 2 and volume.shape[0] == 1:
        spans = (slice(None), *spans)
    if len(spans) != 3:
        raise UsageError(f"{volume.source}: region has {len(spans)} axes, expected 3 (z, y, x)")
    box = []
    for axis, span, length in zip("zyx", spans, volume.shape, strict=True):
        start = 0 if span.start is None else span.start
        stop = length if span.stop is None else span.stop
        if span.step not in (None, 1) or not 0 <= start < stop <= length:
            raise UsageError(
                f"{volume.source}: region {start}:{stop} along {axis}, expected a part of 0:{length}"
            )
        box.append(slice(start, stop))
    return box[0], box[1], box[2]


def keep_input(volume: Volume, out: str | Path | Location) -> None:
    """Refuse an output that would replace the volume it is made from, whatever the user wants replaced."""
    if volume.origin is None:
        return
    here, there = volume.origin[0].path, Location.of(out).path
    if here is not None and there is not None:
        here, there = here.resolve(), there.resolve()
    source, target = (
        PurePosixPath(place or str(name).rstrip("/")) for place, name in ((here, volume.source), (there, out))
    )
    if target == source or target in source.parents or source in target.parents:
        raise UsageError(
            f"{out}: is (or holds, or is inside) the input {volume.source}; choose another place"
        )
