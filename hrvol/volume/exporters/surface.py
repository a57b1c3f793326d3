"""Surfaces of classes, block by block, such that the pieces fit: one watertight mesh per class.

Between two voxels of which one belongs to the class, marching cubes (scikit-image, the method of Lorensen and
Cline 1987, doi 10.1145/37401.37422) puts a vertex half-way. So every vertex is a whole number of half voxels,
neighbouring blocks give the same numbers on the face they share, and are welded there without tolerances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, Spacing3

_BITS = 21
"""Bits per axis of a vertex's key: 2**20 voxels a side."""

MOST_SIDE = 2 ** (_BITS - 1) - 2
"""Longest side of a volume whose vertices have keys."""


@dataclass(frozen=True)
class Surface:
    """A piece of a surface.

    Attributes
    ----------
    vertices
        ``(n, 3)`` int64: position (z, y, x) in half voxels in the volume with one voxel of padding around it:
        the centre of voxel i is at ``2 * i + 2``.
    faces
        ``(m, 3)`` int64: vertices of triangles, anticlockwise seen from outside, in coordinates (x, y, z).
    """

    vertices: NDArray[np.int64]
    faces: NDArray[np.int64]


def surface_of(mask: NDArray[np.bool_], origin: Shape3) -> Surface | None:
    """Return the surface of a class inside a block; ``None`` if it has none.

    Parameters
    ----------
    mask
        Whether each voxel (z, y, x) is of the class: those of the block and one more plane at the far sides,
        which the next block begins with. What is outside of the volume is not of the class.
    origin
        Position of the first voxel in the volume with one voxel of padding around it.
    """
    if not mask.any() or mask.all():
        return None
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(mask.astype(np.float32), 0.5, method="lorensen")
    halves = np.rint(2 * vertices).astype(np.int64) + 2 * np.array(origin)
    # scikit-image orders triangles for (z, y, x) and values that fall outwards, which is right for (x, y, z).
    return Surface(halves, faces.astype(np.int64))


def positions(halves: NDArray[np.int64], voxel_size: Spacing3, translation: Spacing3) -> NDArray[np.float32]:
    """Return vertices as positions (x, y, z) in physical units, float32; equal keys give equal bits."""
    centred = (halves - 2) / 2
    physical = centred * np.array(voxel_size) + np.array(translation)
    return np.ascontiguousarray(physical[:, ::-1], np.float32)


@dataclass
class Welder:
    """Numbers the vertices of blocks, the shared ones of neighbours once; blocks come ordered by z, y, x.

    It remembers the faces that blocks to come will share: of one layer of blocks, one row, and one block.
    """

    count: int = 0
    _known: dict[tuple[str, int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = field(
        default_factory=dict
    )

    def numbers(
        self, index: Shape3, block: tuple[slice, slice, slice], halves: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the number of each vertex of a block, and whether it is new.

        Parameters
        ----------
        index
            Of the block in its grid.
        block
            Voxels of the padded volume whose cells the block owns; its surface ends at their stops.
        halves
            Its vertices, ``(n, 3)``.
        """
        keys = (halves[:, 0] << 2 * _BITS) | (halves[:, 1] << _BITS) | halves[:, 2]
        found = np.full(len(keys), -1, np.int64)
        for axis, span in enumerate(block):
            shared = self._known.pop(_face(axis, index), None)
            rows = np.flatnonzero(halves[:, axis] == 2 * span.start)
            if shared is not None and len(rows):
                known, numbers = shared
                at = np.minimum(np.searchsorted(known, keys[rows]), len(known) - 1)
                hit = known[at] == keys[rows]
                found[rows[hit]] = numbers[at[hit]]
        new = found < 0
        found[new] = self.count + np.arange(int(new.sum()))
        self.count += int(new.sum())
        for axis, span in enumerate(block):
            rows = np.flatnonzero(halves[:, axis] == 2 * span.stop)
            if len(rows):
                order = rows[np.argsort(keys[rows])]
                following = tuple(i + (a == axis) for a, i in enumerate(index))
                self._known[_face(axis, following)] = keys[order], found[order]
        return found, new


def _face(axis: int, index: tuple[int, ...]) -> tuple[str, int, int]:
    """Return the name of the low face of a block."""
    return "zyx"[axis], index[1] if axis < 1 else index[0], index[2] if axis < 2 else index[1]


def mesh_blocks(shape: Shape3, side: Shape3) -> Iterator[tuple[Shape3, tuple[slice, slice, slice]]]:
    """Yield blocks of the cells of a volume that is padded by one voxel, ordered by z, y, x: index and span.

    A cell lies between a voxel and the next one along each axis; a padded volume has one more of them than
    voxels.
    """
    spans = [
        [slice(start, min(start + step, length + 1)) for start in range(0, length + 1, step)]
        for length, step in zip(shape, side, strict=True)
    ]
    for k, z in enumerate(spans[0]):
        for j, y in enumerate(spans[1]):
            for i, x in enumerate(spans[2]):
                yield (k, j, i), (z, y, x)
