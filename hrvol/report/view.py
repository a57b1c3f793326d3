"""Read planes of a volume for pictures, from the level that suffices, at a bounded cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.volume import Volume

PIXELS = 512
"""Pixels of the longer side of a plane, about."""

PLANE_VOXELS = 2**27
"""Most voxels that are decoded for one plane."""

_AVERAGED = 2**25  # voxels of a plane up to which pixels are means


@dataclass(frozen=True, eq=False)
class View:
    """A box of a volume with its coarser levels.

    Attributes
    ----------
    levels
        Finest first.
    box
        Voxels (z, y, x) of the finest level.
    averaged
        Whether pixels of pictures are means of voxels: of grey values, not of classes.
    """

    levels: tuple[Volume, ...]
    box: Box
    averaged: bool = False

    @property
    def lengths(self) -> tuple[float, float, float]:
        """Sides (z, y, x) of the box in units of length."""
        z, y, x = (
            side * size for side, size in zip(box_shape(self.box), self.levels[0].voxel_size, strict=True)
        )
        return z, y, x

    def box_at(self, level: int) -> Box:
        """Return the box in voxels of a level."""
        return scaled_box(self.box, self.levels[0].shape, self.levels[level].shape)

    def level_of(self, axis: int) -> int:
        """Return the coarsest level whose planes across an axis have enough pixels."""
        for level in reversed(range(len(self.levels))):
            sides = box_shape(self.box_at(level))
            if max(side for other, side in enumerate(sides) if other != axis) >= PIXELS:
                return level
        return 0

    def cost(self, axis: int) -> int:
        """Return the number of voxels that are decoded for a plane across an axis."""
        level = self.level_of(axis)
        return decoded_voxels(self.levels[level], self.box_at(level), axis)

    def affordable(self, axis: int) -> Box:
        """Return the box, cropped around its middle such that a plane across an axis is not too costly."""
        level = self.level_of(axis)
        volume, box = self.levels[level], self.box_at(level)
        cost = decoded_voxels(volume, box, axis)
        if cost <= PLANE_VOXELS or _of_planes(volume, axis):
            return self.box
        share = math.sqrt(PLANE_VOXELS / cost)
        z, y, x = (span if number == axis else _middle(span, share) for number, span in enumerate(self.box))
        return z, y, x

    def plane(self, axis: int, position: int) -> NDArray[Any]:
        """Read the plane across an axis at a voxel of the finest level.

        Returns
        -------
        numpy.ndarray
            The two other axes in order; about :data:`PIXELS` pixels along the longer side, or fewer where the
            volume has fewer. Where chunks are whole planes, one across y or x is read from some of them.
        """
        level = self.level_of(axis)
        volume, box = self.levels[level], list(self.box_at(level))
        factor = self.levels[0].shape[axis] / volume.shape[axis]
        at = min(max(int(position / factor), box[axis].start), box[axis].stop - 1)
        box[axis] = slice(at, at + 1)
        picture = _read(volume, (box[0], box[1], box[2]), axis)
        step = math.ceil(max(picture.shape) / PIXELS)
        if step == 1 or min(picture.shape) < step:
            return picture
        if not self.averaged or picture.size > _AVERAGED:
            return picture[step // 2 :: step, step // 2 :: step]
        height, width = (side // step for side in picture.shape)
        cells = picture[: height * step, : width * step].reshape(height, step, width, step)
        means: NDArray[Any] = cells.mean(axis=(1, 3), dtype=np.float32)
        return means


def scaled_box(box: Box, shape: Shape3, other: Shape3) -> Box:
    """Return a box of a volume of one shape as that of a coarser level of another shape; never empty."""
    spans = []
    for span, side, coarse in zip(box, shape, other, strict=True):
        factor = side / coarse
        start = min(int(span.start / factor), coarse - 1)
        spans.append(slice(start, max(start + 1, min(math.ceil(span.stop / factor - 1e-9), coarse))))
    z, y, x = spans
    return z, y, x


def decoded_voxels(volume: Volume, box: Box, axis: int) -> int:
    """Return how many voxels are decoded for one plane across an axis of a box."""
    sides = list(box_shape(box))
    sides[axis] = 1
    if not volume.decodes:
        return math.prod(sides)
    total = 1
    for number, (span, chunk, side) in enumerate(zip(box, volume.chunks, volume.shape, strict=True)):
        if number == axis:
            total *= min(chunk, side)
        else:
            total *= min(-(-span.stop // chunk) * chunk, side) - span.start // chunk * chunk
    return total


def positions(span: slice, count: int) -> list[int]:
    """Return up to ``count`` voxels that are spread evenly over a span, the middles of equal parts."""
    length = span.stop - span.start
    count = min(count, length)
    return [span.start + (2 * number + 1) * length // (2 * count) for number in range(count)]


def _read(volume: Volume, box: Box, axis: int) -> NDArray[Any]:
    """Read a plane; of chunks that are whole planes only as many as the cost allows, evenly spread."""
    cost = decoded_voxels(volume, box, axis)
    if cost <= PLANE_VOXELS or not _of_planes(volume, axis):
        return volume.read(box).squeeze(axis)
    rows = box[0].stop - box[0].start
    lines: Sequence[NDArray[Any]] = [
        volume.read((slice(z, z + 1), box[1], box[2])).squeeze(axis)
        for z in positions(box[0], max(8, rows * PLANE_VOXELS // cost))
    ]
    return np.concatenate(lines)


def _of_planes(volume: Volume, axis: int) -> bool:
    """Whether a plane across an axis is read from many chunks that are whole planes of z."""
    return axis > 0 and volume.chunks[0] == 1


def _middle(span: slice, share: float) -> slice:
    """Return a part of a span around its middle."""
    length = span.stop - span.start
    part = max(1, round(length * share))
    start = span.start + (length - part) // 2
    return slice(start, start + part)
