"""Convert regions of a volume to boxes."""

from __future__ import annotations

from collections.abc import Sequence

from hrvol.errors import UsageError
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.volume import Volume

Region = Sequence[slice]
"""``(z, y, x)`` or, for a single plane, ``(y, x)`` slices in voxels; an open end is ``None``."""


def region_box(roi: Region | None, volume: Volume) -> Box:
    """Return a region as a box with explicit bounds; :class:`UsageError` if it is not inside the volume."""
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
