"""Count chords: runs of voxels of one class along an axis, between two others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.block_measures import MeasureJob, class_numbers
from hrvol.arrays import Shape3
from hrvol.engine.task import computing, configuration
from hrvol.errors import ResourceError
from hrvol.volume.grid.tiling import Box, grid

_VOXELS = 2**25
"""Voxels of a column of whole lines, about."""

_MOST = 2**29


@dataclass(frozen=True)
class Column:
    """Whole lines along an axis: one task.

    Attributes
    ----------
    axis
        Of the lines: 0 (z), 1 (y) or 2 (x).
    box
        Where they are.
    """

    axis: int
    box: Box


def columns(shape: Shape3, chunks: Shape3, source: str) -> Iterator[Column]:
    """Yield columns that hold all lines of a volume along each axis with more than one voxel.

    Raises
    ------
    ResourceError
        Chunks are so large that one column of them has more than 2**29 voxels.
    """
    for axis in range(3):
        if shape[axis] == 1:
            continue
        sides = [min(chunk, side) for chunk, side in zip(chunks, shape, strict=True)]
        sides[axis] = shape[axis]
        others = [other for other in (2, 1, 0) if other != axis]
        # Planes that are stored whole are cut: they are decoded more than once.
        while math.prod(sides) > _VOXELS and max(sides[other] for other in others) > 64:
            longest = max(others, key=lambda other: sides[other])
            sides[longest] = -(-sides[longest] // 2)
        for other in others:
            while math.prod(sides) * 2 <= _VOXELS and sides[other] < shape[other]:
                sides[other] *= 2
        if math.prod(sides) > _MOST:
            raise ResourceError(
                f"{source}: found lines of {shape[axis]} voxels in columns of {math.prod(sides):.2g} voxels,"
                f" expected at most {_MOST:.2g} (leave out chords)"
            )
        for block in grid(shape, (sides[0], sides[1], sides[2])):
            yield Column(axis, block.core)


def column_chords(column: Column) -> NDArray[np.int64]:
    """Count the chords of a column; the task that engines hand to workers."""
    job: MeasureJob = configuration()
    values = job.labels.read(column.box)
    with computing():
        classes = class_numbers(values, job.values, job.labels.source)
        return count_chords(np.moveaxis(classes, column.axis, -1), len(job.values))


def count_chords(classes: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Count runs along the last axis by class and length; those that end at its ends are not whole.

    Parameters
    ----------
    classes
        Numbers 0..count of any shape; ``count`` is not counted.
    count
        Number of classes.

    Returns
    -------
    numpy.ndarray
        ``(count, n + 1)`` int64: runs of each class of 0..n voxels; n is the length of a line.
    """
    length = classes.shape[-1]
    lines = np.ascontiguousarray(classes).reshape(-1, length)
    begins = np.ones(lines.shape, np.bool_)
    begins[:, 1:] = lines[:, 1:] != lines[:, :-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=lines.size)
    first = starts % length
    whole = (first > 0) & (first + lengths < length)
    numbers = lines.ravel()[starts[whole]].astype(np.int64)
    keys = numbers * (length + 1) + lengths[whole]
    table = np.bincount(keys, minlength=(count + 1) * (length + 1)).reshape(count + 1, length + 1)
    return table[:count].astype(np.int64)
