"""Divide the classes of a block into basins: one around each peak of a landscape.

The lattice of *cells* is fixed in the volume, and no basin crosses its faces: so basins are the same whatever
the blocks are, if these are made of whole cells. Where a face cuts through an object, the part without its
peak rises to the face, and becomes a basin as high as the way over the face. It is not a peak: merging
(:mod:`hrvol.analysis.separating.merging`) joins the two, whatever the depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from hrvol.arrays import Shape3
from hrvol.volume.grid.tiling import grid

CELL = 128
"""Voxels of the sides of cells."""

_ID, _HEIGHT, _CLASS = np.uint64(0), np.uint64(32), np.uint64(48)


def basins_of(
    heights: NDArray[np.uint16], kept: NDArray[np.uint16], cell: int = CELL
) -> tuple[NDArray[np.uint32], int]:
    """Divide a block into basins.

    Parameters
    ----------
    heights
        ``(z, y, x)``; above 0 in classes. The first voxel is the corner of a cell.
    kept
        Classes, 0 for what belongs to none. No basin has two.
    cell
        Sides of cells.

    Returns
    -------
    tuple
        Basins ``(z, y, x)`` from 1, 0 outside of classes, and their number.
    """
    basins, count = np.zeros(heights.shape, np.uint32), 0
    for piece in grid(_triple(heights.shape), (cell, cell, cell)):
        classes = kept[piece.core]
        for value in np.unique(classes):
            if not value:
                continue
            mask = classes == value
            (part,) = ndimage.find_objects(mask.astype(np.uint8))
            found = _watershed(np.where(mask, heights[piece.core], 0)[part], mask[part])
            target = basins[piece.core][part]  # a view
            target[mask[part]] = found[mask[part]] + np.uint32(count)
            count += int(found.max())
    return basins, count


def _watershed(heights: NDArray[np.uint16], mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the basins of a mask that is 0 outside, from 1; all of the mask belongs to one."""
    # One voxel around: a part of the same height everywhere is a peak, too.
    padded = np.pad(heights, 1)
    peaks = local_maxima(padded, connectivity=3) & (padded > 0)
    markers, _ = ndimage.label(peaks, np.ones((3, 3, 3)))
    flooded = watershed(-padded.astype(np.int32), markers, connectivity=3, mask=np.pad(mask, 1))
    return np.asarray(flooded[1:-1, 1:-1, 1:-1], np.uint32)


def pack(
    basins: NDArray[np.uint32], heights: NDArray[np.uint16], kept: NDArray[np.uint16]
) -> NDArray[np.uint64]:
    """Return basins, heights and classes as one array, to be stored between two passages."""
    packed: NDArray[np.uint64] = (
        basins.astype(np.uint64) | (heights.astype(np.uint64) << _HEIGHT) | (kept.astype(np.uint64) << _CLASS)
    )
    return np.where(basins > 0, packed, np.uint64(0))


def unpack(
    packed: NDArray[np.uint64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint16]]:
    """Return basins, heights and classes of :func:`pack`."""
    basins = packed.astype(np.uint32)  # the lower 32 bits
    return basins, (packed >> _HEIGHT).astype(np.uint16), (packed >> _CLASS).astype(np.uint16)


def _triple(values: Any) -> Shape3:
    z, y, x = values
    return z, y, x
