"""Parts of coarser levels: in which objects they lie, and which of them come of which voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from hrvol.volume.grid.tiling import Box
from hrvol.volume.ome.pyramid import HasLevels, ImagePlan
from hrvol.volume.storage.location import checksum


def part_checksums(store: HasLevels, image: int, level: int, parts: Sequence[int]) -> list[str]:
    """Return a checksum of what is stored of each part: of its objects' bytes, as they lie there.

    Parameters
    ----------
    store, image, level
        The ``level``-th coarser level of the ``image``-th image of a store.
    parts
        Their numbers.
    """
    names = _keys(store, image, level, parts)
    found = iter(store.location.checksums(name for keys in names for name in keys))
    return [str(checksum("".join(next(found) or "-" for _ in keys).encode())) for keys in names]


def erase_part(store: HasLevels, image: int, level: int, part: int) -> None:
    """Delete what is stored of a part, so that it can be made again whatever lies there."""
    store.location.erase(_keys(store, image, level, [part])[0])


def parts_made_of(plan: ImagePlan, box: Box, level: int = -1) -> Iterator[tuple[int, int]]:
    """Yield the parts (level, number) that voxels have come into, level by level.

    Parameters
    ----------
    plan
        Of the image.
    box
        The voxels, (z, y, x), of a level; inside it.
    level
        Which: the ``level``-th coarser one, -1 the finest. Its own parts are not among those yielded.
    """
    spans = [(span.start, span.stop) for span in box]
    for coarser in range(level + 1, len(plan.levels)):
        made = plan.levels[coarser]
        spans = [(a // f, -(-b // f)) for (a, b), f in zip(spans, made.factor, strict=True)]
        flat = 3 - (len(made.shape) - made.lead)
        sides = made.shards[made.lead :]
        rows = (range(a // n, -(-b // n)) for (a, b), n in zip(spans[flat:], sides, strict=True))
        counts = tuple(-(-n // side) for n, side in zip(made.shape[made.lead :], sides, strict=True))
        for place in product(*rows):
            yield coarser, int(np.ravel_multi_index(place, counts))


def part_box(plan: ImagePlan, level: int, part: int) -> Box:
    """Return the voxels (z, y, x) of a part of the ``level``-th coarser level."""
    spans = plan.levels[level].box(part)
    z, y, x = (slice(0, 1),) * (3 - len(spans)) + spans
    return z, y, x


def _keys(store: HasLevels, image: int, level: int, parts: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the names of the objects that hold each part; without shards those are several."""
    plan = store.images[image]
    made = plan.levels[level]
    array = store.location.open_array(f"{plan.path}/{made.level.path}".lstrip("/"))
    units = array.shards or array.chunks
    channels = [range(-(-array.shape[0] // units[0]))] if made.lead else []
    found = []
    for part in parts:
        spans = zip(made.box(part), units[made.lead :], strict=True)
        rows = [*channels, *(range(s.start // n, -(-s.stop // n)) for s, n in spans)]
        keys = (array.metadata.encode_chunk_key(place) for place in product(*rows))
        found.append(tuple(f"{array.path}/{key}" for key in keys))
    return found
