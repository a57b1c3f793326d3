"""Examples for a student: tiles with their teacher's probabilities, and the voxels around them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.distil.planes import PlaneTile
from hrvol.segment.student.lattice import reflected
from hrvol.segment.student.spec import StudentSpec
from hrvol.volume.grid.tiling import Box
from hrvol.volume.intensity import Window, check_finite, to_unit
from hrvol.volume.volume import Volume

CROP = 128
"""Side in pixels of the crops of planes that a student is trained on."""

CROPS = 8
"""Crops of planes in a step: many small ones show more of a volume at once than few large ones, without which
a student of planes that differ much does not learn what they have in common."""

CROP_3D = (16, 96, 96)
"""Voxels (z, y, x) of the crops of volumes, for students that see few planes."""

SHARE = 1e-3
"""Least share of a class that its weight is computed from."""

CROP_CUBE = (48, 64, 64)
"""The same for students whose levels are coarser along z, too."""

CROPS_3D = 2
"""Crops of volumes in a step, for students that see few planes; of cubes there is one."""


@dataclass(frozen=True, eq=False)
class LabelledTile:
    """What a teacher predicts for a tile.

    Attributes
    ----------
    where
        The tile.
    probabilities
        ``(K, rows, columns)`` float16 of its core, with sum 1.
    """

    where: PlaneTile
    probabilities: NDArray[np.float16]

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels ``(K,)`` of each class."""
        return np.bincount(self.probabilities.argmax(axis=0).ravel(), minlength=len(self.probabilities))

    def describe(self) -> dict[str, Any]:
        """Return the position, the labelled pixels and a digest of the labels as JSON values."""
        digest = hashlib.sha256(np.ascontiguousarray(self.probabilities).tobytes()).hexdigest()
        return {**self.where.describe(), "labels": digest[:32]}

    def draw_pixel(self, number: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random pixel (row, column) of the class with a number, 0 to K - 1."""
        places = np.flatnonzero(self.probabilities.argmax(axis=0) == number)
        row, column = divmod(int(rng.choice(places)), self.probabilities.shape[2])
        return row, column


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled tile with the grey values that crops around it need.

    Attributes
    ----------
    tile
        The labelled tile.
    raw
        ``(z, y, x)`` of the volume's type, mirrored where it lies beyond the volume.
    origin
        Position of its first voxel in the volume, maybe beyond it.
    window
        Grey values that become 0 and 1.
    """

    tile: LabelledTile
    raw: NDArray[Any]
    origin: Shape3
    window: Window


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of the volume to train on.

    Attributes
    ----------
    grey
        ``(z, y, x)`` float32 in [0, 1], with ``margins`` around what is predicted.
    target
        ``(K, z, y, x)`` float32 probabilities, the mean of those of all tiles that label a voxel.
    labelled
        ``(z, y, x)`` bool: where there is a target.
    """

    grey: NDArray[np.float32]
    target: NDArray[np.float32]
    labelled: NDArray[np.bool_]


@dataclass(frozen=True)
class CropShape:
    """Shape and number of the crops of a step of a student's training.

    Attributes
    ----------
    side
        Voxels (z, y, x) that are predicted.
    margin
        Voxels on each side of grey values beyond these.
    count
        Number of crops.
    """

    side: Shape3
    margin: Shape3
    count: int = 1


def crop_shape(spec: StudentSpec) -> CropShape:
    """Return the shape and number of the crops that a student of this architecture is trained on."""
    margin = [whole - network for whole, network in zip(spec.halo, spec.network_halo, strict=True)]
    side, count = (1, CROP, CROP), CROPS
    if spec.is_3d:
        side, count = (CROP_CUBE, 1) if spec.alignment[0] > 1 else (CROP_3D, CROPS_3D)
    return CropShape(side, (margin[0], margin[1], margin[2]), count)


def trimmed(tile: LabelledTile, side: int) -> LabelledTile:
    """Return the middle of a labelled tile, at most ``side`` pixels long: its surroundings fit the memory."""
    y0, y1, x0, x1 = tile.where.tile.core
    top, left = (max(length - side, 0) // 2 for length in (y1 - y0, x1 - x0))
    rows, columns = (slice(first, first + side) for first in (top, left))
    height, width = min(side, y1 - y0), min(side, x1 - x0)
    core = (y0 + top, y0 + top + height, x0 + left, x0 + left + width)
    where = replace(tile.where, tile=replace(tile.where.tile, core=core))
    return LabelledTile(where, tile.probabilities[:, rows, columns])


def read_example(
    volume: Volume, window: Window, tile: LabelledTile, shape: CropShape, *, turned: bool = False
) -> Example:
    """Read the grey values around a labelled tile that any of its crops may need.

    Parameters
    ----------
    volume, window
        The volume, and the grey values that become 0 and 1.
    tile
        The labelled tile.
    shape
        Shape of crops.
    turned
        Whether the axis that the tile's plane is perpendicular to becomes the first, so that a student of
        planes learns from it as from a plane along z. Only examples of one axis may be drawn from together.
    """
    axis = tile.where.axis if turned else 0
    order = (axis, *(number for number in range(3) if number != axis))
    where = replace(tile.where, axis=0) if turned else tile.where
    spans = [(0, 0, 0)] * 3
    for number, (span, side, margin) in enumerate(zip(where.core, shape.side, shape.margin, strict=True)):
        start, stop = span.start, span.stop
        if number == where.axis and side > 1:
            start, stop = start - side + 1, stop + side - 1
        short = max(side - (stop - start), 0)
        length = volume.shape[order[number]]
        spans[order[number]] = (start - short // 2 - margin, stop + short - short // 2 + margin, length)
    raw, origin = read_around(volume, spans)
    z, y, x = (origin[number] for number in order)
    return Example(replace(tile, where=where), raw.transpose(order), (z, y, x), window)


def read_around(volume: Volume, spans: Sequence[tuple[int, int, int]]) -> tuple[NDArray[Any], Shape3]:
    """Return voxels that may lie beyond a volume, which is mirrored there, and the position of the first.

    Parameters
    ----------
    volume
        The volume.
    spans
        Start and stop along z, y and x, and the length of the volume.
    """
    indices = [reflected(*span) for span in spans]
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in indices)
    values = volume.read((box[0], box[1], box[2]))
    for axis, (index, span) in enumerate(zip(indices, box, strict=True)):
        values = np.take(values, index - span.start, axis=axis)
    origin = (spans[0][0], spans[1][0], spans[2][0])
    check_finite(values, volume.source, origin)
    return np.ascontiguousarray(values), origin


class Source(Protocol):
    """What crops are drawn from."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """``(K,)``: mean probability of each class."""

    def draw(self, shape: CropShape, even: float, rng: np.random.Generator) -> Crop:
        """Return a random crop; see :func:`draw_place` for ``even``."""


@dataclass(frozen=True, eq=False)
class TileSource:
    """Draws crops from labelled tiles."""

    examples: Sequence[Example]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """``(K,)``: mean probability of each class."""
        total = sum(entry.tile.probabilities.sum(axis=(1, 2), dtype=np.float64) for entry in self.examples)
        return np.asarray(total / np.sum(total), np.float64)

    def draw(self, shape: CropShape, even: float, rng: np.random.Generator) -> Crop:
        """Return a random crop; see :func:`draw_place` for ``even``."""
        number, pixel = draw_place(self.examples, even, rng)
        return draw_crop(self.examples, number, shape, rng, pixel)


@dataclass(frozen=True, eq=False)
class MixedSource:
    """Draws crops from several sources, each as often as it has weight."""

    sources: Sequence[Source]
    weights: Sequence[float]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """``(K,)``: mean probability of each class."""
        return np.average([source.shares for source in self.sources], axis=0, weights=self.weights)

    def draw(self, shape: CropShape, even: float, rng: np.random.Generator) -> Crop:
        """Return a random crop; see :func:`draw_place` for ``even``."""
        parts = np.asarray(self.weights, np.float64) / np.sum(self.weights)
        return self.sources[int(rng.choice(len(self.sources), p=parts))].draw(shape, even, rng)


def class_weights(shares: NDArray[np.float64], power: float) -> NDArray[np.float32]:
    """Return weights ``(K,)`` of classes: their mean probability to a negative power.

    The mean weight of a voxel is 1. Shares below :data:`SHARE` count as that.
    """
    weights = np.maximum(shares, SHARE) ** -power
    return np.asarray(weights / (weights * shares).sum(), np.float32)


def draw_place(
    examples: Sequence[Example], even: float, rng: np.random.Generator
) -> tuple[int, tuple[int, int] | None]:
    """Return the number of a random example, and a pixel of its tile that a crop has to hold; ``None``: any.

    Parameters
    ----------
    examples
        All examples.
    even
        Probability (0..1) that a class is drawn first, each that some tile has as likely as another, and
        then a pixel of it: a class in few pixels of few tiles is hardly seen in crops from anywhere.
    rng
        Random numbers.
    """
    if rng.random() >= even:
        return int(rng.integers(len(examples))), None
    pixels = np.stack([example.tile.pixels for example in examples])
    of_class = pixels.sum(axis=0)
    chosen = int(rng.choice(np.flatnonzero(of_class)))
    number = int(rng.choice(len(examples), p=pixels[:, chosen] / of_class[chosen]))
    return number, examples[number].tile.draw_pixel(chosen, rng)


def draw_crop(
    examples: Sequence[Example],
    number: int,
    shape: CropShape,
    rng: np.random.Generator,
    pixel: tuple[int, int] | None = None,
) -> Crop:
    """Cut a random crop that holds labelled voxels of an example.

    Parameters
    ----------
    examples
        All examples: tiles of others that cross the crop label voxels of it, too.
    number
        Of the example.
    shape
        Shape of crops.
    rng
        Chooses the position.
    pixel
        Pixel (row, column) of the tile that the crop has to hold; ``None``: any.
    """
    example = examples[number]
    inside = None if pixel is None else iter(pixel)
    start = []
    for axis, (span, side, margin) in enumerate(
        zip(example.tile.where.core, shape.side, shape.margin, strict=True)
    ):
        if axis == example.tile.where.axis:
            first, last = span.start - side + 1, span.start
        else:
            first, last = span.start, max(span.stop - side, span.start)
            if inside is not None:
                place = span.start + next(inside)
                first, last = max(first, min(place - side + 1, last)), min(last, place)
        at = int(rng.integers(first, last + 1))
        room = example.origin[axis] + margin
        start.append(min(max(at, room), example.origin[axis] + example.raw.shape[axis] - side - margin))
    box = tuple(slice(at, at + side) for at, side in zip(start, shape.side, strict=True))
    reach = tuple(
        slice(span.start - margin - first, span.stop + margin - first)
        for span, margin, first in zip(box, shape.margin, example.origin, strict=True)
    )
    target, count = _targets(examples, (box[0], box[1], box[2]))
    mean = np.divide(target, np.maximum(count, 1), dtype=np.float32)
    return Crop(to_unit(example.raw[reach], example.window), mean, count > 0)


def _targets(examples: Sequence[Example], box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add up the probabilities of the tiles that cross a box; return also how many do."""
    sides = [span.stop - span.start for span in box]
    classes = examples[0].tile.probabilities.shape[0]
    total = np.zeros((classes, *sides), np.float32)
    count = np.zeros(sides, np.float32)
    for example in examples:
        core = example.tile.where.core
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(core, box, strict=True)]
        if any(span.start >= span.stop for span in shared):
            continue
        axis = example.tile.where.axis
        there = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(shared, box, strict=True))
        here = tuple(
            slice(s.start - c.start, s.stop - c.start)
            for number, (s, c) in enumerate(zip(shared, core, strict=True))
            if number != axis
        )
        total[(slice(None), *there)] += np.expand_dims(
            example.tile.probabilities[(slice(None), *here)], axis + 1
        )
        count[there] += 1
    return total, count
