"""Label cubes of a volume with a student of planes, along all three axes, to train students of volumes.

A teacher labels planes, of which few cross a crop of a volume. A student of planes costs so little that it
labels whole cubes, and the mean of what it sees in three planes is better than what it sees in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.distil.examples import Crop, CropShape, LabelledTile, read_around
from hrvol.distil.label import stopped
from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback, Tally
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.intensity import Window, to_unit
from hrvol.volume.volume import Volume

SIDE = 160
"""Side of a cube in voxels."""

MOST = 8
"""Most cubes."""

STEPS = 2
"""Steps of a student of cubes for each step of another one: where all voxels are labelled, many small steps
teach more than few large ones of the same cost."""

_PLANES = 8  # that are predicted together


@dataclass(frozen=True, eq=False)
class Cube:
    """A part of a volume with the probabilities of its voxels.

    Attributes
    ----------
    box
        The part.
    probabilities
        ``(K, z, y, x)`` float16 with sum 1.
    raw
        ``(z, y, x)`` of the volume's type: the part, and what crops around it need.
    origin
        Position of its first voxel in the volume, maybe beyond it.
    window
        Grey values that become 0 and 1.
    """

    box: Box
    probabilities: NDArray[np.float16]
    raw: NDArray[Any]
    origin: Shape3
    window: Window

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Numbers ``(z, y, x)`` of the most probable classes, 0 to K - 1."""
        return np.asarray(self.probabilities.argmax(axis=0), np.uint8)

    @cached_property
    def voxels(self) -> NDArray[np.int64]:
        """Voxels ``(K,)`` of each class."""
        return np.bincount(self.labels.ravel(), minlength=len(self.probabilities))

    def draw_voxel(self, number: int, rng: np.random.Generator) -> Shape3:
        """Return a random voxel of the class with a number, in coordinates of the cube."""
        places = np.flatnonzero(self.labels == number)
        z, y, x = np.unravel_index(int(rng.choice(places)), self.labels.shape)
        return int(z), int(y), int(x)

    def crop(self, start: Shape3, shape: CropShape) -> Crop:
        """Return a crop that begins at a voxel of the volume."""
        target = np.zeros((len(self.probabilities), *shape.side), np.float32)
        labelled = np.zeros(shape.side, bool)
        inner = tuple(
            slice(max(at, span.start), min(at + side, span.stop))
            for at, side, span in zip(start, shape.side, self.box, strict=True)
        )
        there = tuple(slice(s.start - at, s.stop - at) for s, at in zip(inner, start, strict=True))
        here = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(inner, self.box, strict=True))
        target[(slice(None), *there)] = self.probabilities[(slice(None), *here)]
        labelled[there] = True
        reach = tuple(
            slice(at - margin - first, at + side + margin - first)
            for at, side, margin, first in zip(start, shape.side, shape.margin, self.origin, strict=True)
        )
        return Crop(to_unit(self.raw[reach], self.window), target, labelled)


@dataclass(frozen=True, eq=False)
class CubeSource:
    """Draws crops from cubes."""

    cubes: Sequence[Cube]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """``(K,)``: mean probability of each class."""
        total = sum(cube.probabilities.sum(axis=(1, 2, 3), dtype=np.float64) for cube in self.cubes)
        return np.asarray(total / np.sum(total), np.float64)

    def draw(self, shape: CropShape, even: float, rng: np.random.Generator) -> Crop:
        """Return a random crop; see :func:`hrvol.distil.examples.draw_place` for ``even``."""
        voxel = None
        number = int(rng.integers(len(self.cubes)))
        if rng.random() < even:
            voxels = np.stack([cube.voxels for cube in self.cubes])
            of_class = voxels.sum(axis=0)
            chosen = int(rng.choice(np.flatnonzero(of_class)))
            number = int(rng.choice(len(self.cubes), p=voxels[:, chosen] / of_class[chosen]))
            voxel = self.cubes[number].draw_voxel(chosen, rng)
        start = []
        for axis, (span, side) in enumerate(zip(self.cubes[number].box, shape.side, strict=True)):
            first, last = span.start, max(span.stop - side, span.start)
            if voxel is not None:
                place = span.start + voxel[axis]
                first, last = max(first, min(place - side + 1, last)), min(last, place)
            start.append(int(rng.integers(first, last + 1)))
        return self.cubes[number].crop((start[0], start[1], start[2]), shape)


def learns_from_cubes(spec: StudentSpec) -> bool:
    """Return whether students of an architecture are trained on cubes: those that see as far along z."""
    return spec.is_3d and spec.alignment[0] > 1


def steps_of(spec: StudentSpec, steps: int) -> int:
    """Return the optimisation steps of a student of an architecture."""
    return STEPS * steps if learns_from_cubes(spec) else steps


def cube_boxes(shape: Shape3, tiles: Sequence[LabelledTile]) -> list[Box]:
    """Return the cubes around the first tiles, at most :data:`MOST`.

    Tiles come in turn from all clusters of what looks alike. None is around a tile whose centre another one
    holds, so small volumes have few cubes.
    """
    boxes: list[Box] = []
    for tile in tiles:
        centre = [(span.start + span.stop) // 2 for span in tile.where.core]
        if len(boxes) == MOST:
            break
        if any(all(s.start <= c < s.stop for s, c in zip(box, centre, strict=True)) for box in boxes):
            continue
        spans = []
        for middle, length in zip(centre, shape, strict=True):
            start = min(max(middle - SIDE // 2, 0), max(length - SIDE, 0))
            spans.append(slice(start, min(start + SIDE, length)))
        boxes.append((spans[0], spans[1], spans[2]))
    return boxes


def label_cubes(
    volume: Volume,
    window: Window,
    student: StudentClassifier,
    boxes: Sequence[Box],
    shape: CropShape,
    stop: Stop,
    progress: ProgressCallback | None = None,
    device: str = "cpu",
) -> CubeSource:
    """Label cubes with a student of planes, along all three axes.

    Parameters
    ----------
    volume, window
        The volume, and the grey values that become 0 and 1.
    student
        A student of planes.
    boxes
        The cubes.
    shape
        Of the crops that will be drawn.
    stop, progress
        As in :func:`hrvol.distil_model`.
    device
        Name of torch's device.

    Raises
    ------
    StoppedError
        A stop was requested.
    """
    runner = StudentRunner(student, device)
    tally = Tally(progress, "label cubes", sum(3 * prod(box_shape(box)) for box in boxes))
    cubes: list[Cube] = []
    for box in boxes:
        mean = np.zeros((len(student.classes), *box_shape(box)), np.float32)
        for axis in range(3):
            mean += predict_planes(runner, volume, window, box, axis)
            tally.finish((len(cubes), axis), prod(box_shape(box)))
            if stop.requested:
                raise stopped(stop, "while cubes were labelled")
        spans = []
        for span, side, margin, length in zip(box, shape.side, shape.margin, volume.shape, strict=True):
            short = max(side - (span.stop - span.start), 0)
            spans.append((span.start - margin, span.stop + short + margin, length))
        raw, origin = read_around(volume, spans)
        cubes.append(Cube(box, (mean / 3).astype(np.float16), raw, origin, window))
    return CubeSource(tuple(cubes))


def predict_planes(
    runner: StudentRunner, volume: Volume, window: Window, box: Box, axis: int
) -> NDArray[np.float32]:
    """Return the probabilities ``(K, z, y, x)`` of a box by a student that sees planes across an axis."""
    order = (axis, *(other for other in range(3) if other != axis))
    shape = (volume.shape[order[0]], volume.shape[order[1]], volume.shape[order[2]])
    spans = [box[number] for number in order]
    step = runner.spec.alignment
    starts = [span.start // n * n for span, n in zip(spans, step, strict=True)]
    sides = [-(-(s.stop - at) // n) * n for s, at, n in zip(spans, starts, step, strict=True)]
    lattice = Lattice(shape, (_PLANES, sides[1], sides[2]), runner.spec.halo)
    rows, columns = (slice(at, at + side) for at, side in zip(starts[1:], sides[1:], strict=True))

    def windows(first: int, last: int) -> Any:
        return lattice.window((slice(first, last), rows, columns))

    reads = lattice.reads_of(windows(spans[0].start, spans[0].start + -(-sides[0] // _PLANES) * _PLANES))
    origin = (reads[0].start, reads[1].start, reads[2].start)
    raw = volume.read(tuple(reads[order.index(number)] for number in range(3))).transpose(order)  # type: ignore[arg-type]

    def predicted(first: int) -> NDArray[np.float32]:
        values = lattice.cut(windows(first, first + _PLANES), raw, origin)
        return np.asarray(runner.probabilities(to_unit(values, window, source=volume.source)), np.float32)

    def pieces() -> Iterator[NDArray[np.float32]]:
        first = range(spans[0].start, spans[0].stop, _PLANES)
        yield from runner.each(predicted, first, torch.get_num_threads())

    inside = tuple(
        slice(span.start - at, span.stop - at) for span, at in zip(spans[1:], starts[1:], strict=True)
    )
    whole = np.concatenate([piece[(slice(None), slice(None), *inside)] for piece in pieces()], axis=1)
    whole = whole[:, : spans[0].stop - spans[0].start]
    back = [1 + order.index(number) for number in range(3)]
    return np.ascontiguousarray(whole.transpose(0, *back))
