"""Check and erase stored parts of coarser levels, and find the parts computed from given voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from hrvol.volume.grid.tiling import Box
from hrvol.volume.ome.pyramid import HasLevels, ImagePlan


def part_checksums(store: HasLevels, image: int, level: int, parts: Sequence[int]) -> list[str]:
    """Return a checksum of the stored bytes of each part.

    Parameters
    ----------
    store, image, level
        The ``level``-th coarser level of the ``image``-th image of a store.
    parts
        Numbers of the parts.
    """
    return store.location.group_checksums(_keys(store, image, level, parts))


def erase_part(store: HasLevels, image: int, level: int, part: int) -> None:
    """Delete the stored bytes of a part, so that it can be computed again even if they are damaged."""
    store.location.erase(_keys(store, image, level, [part])[0])


def parts_made_of(plan: ImagePlan, box: Box, level: int = -1) -> Iterator[tuple[int, int]]:
    """Yield the parts (level, number) that are computed from given voxels, level by level.

    Parameters
    ----------
    plan
        The image.
    box
        The voxels, (z, y, x), inside a level.
    level
        Number of that level among the coarser ones, -1 for the finest. Only parts of still coarser levels are
        yielded.
    """
    spans = [(span.start, span.stop) for span in box]
    for coarser in range(level + 1, len(plan.levels)):
        target = plan.levels[coarser]
        spans = [(a // f, -(-b // f)) for (a, b), f in zip(spans, target.factor, strict=True)]
        flat = 3 - (len(target.shape) - target.lead)
        sides = target.shards[target.lead :]
        rows = (range(a // n, -(-b // n)) for (a, b), n in zip(spans[flat:], sides, strict=True))
        for index in product(*rows):
            yield coarser, int(np.ravel_multi_index(index, target.counts))


def part_box(plan: ImagePlan, level: int, part: int) -> Box:
    """Return the voxels (z, y, x) of a part of the ``level``-th coarser level."""
    spans = plan.levels[level].box(part)
    z, y, x = (slice(0, 1),) * (3 - len(spans)) + spans
    return z, y, x


def _keys(store: HasLevels, image: int, level: int, parts: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the keys of the objects of each part: several if there are no shards."""
    image_plan = store.images[image]
    plan = image_plan.levels[level]
    array = store.location.open_array(f"{image_plan.path}/{plan.level.path}".lstrip("/"))
    units = array.shards or array.chunks
    channels = [range(-(-array.shape[0] // units[0]))] if plan.lead else []
    keys = []
    for part in parts:
        spans = zip(plan.box(part), units[plan.lead :], strict=True)
        rows = [*channels, *(range(s.start // n, -(-s.stop // n)) for s, n in spans)]
        names = (array.metadata.encode_chunk_key(index) for index in product(*rows))
        keys.append(tuple(f"{array.path}/{name}" for name in names))
    return keys
