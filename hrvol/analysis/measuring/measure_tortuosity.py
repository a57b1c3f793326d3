"""Compute the tortuosity of classes along axes, of a volume or its central part, and make a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrvol.analysis.measuring.block_measures import class_numbers
from hrvol.analysis.measuring.measure_thickness import sides_of
from hrvol.analysis.measuring.shapes import AXES
from hrvol.analysis.measuring.tables import Table
from hrvol.analysis.measuring.tortuosity import TOLERANCE, UNFINISHED, Diffusion, diffuse
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.errors import ResourceError, UsageError
from hrvol.memory import free_memory
from hrvol.progress import ProgressCallback
from hrvol.volume.grid.tiling import Box, box_shape, whole
from hrvol.volume.volume import Volume

SIZE = 256
"""Voxels of the side of the central part, where the whole volume does not fit in memory."""

BYTES = 72
"""Bytes of memory per voxel of the solver."""


@dataclass(frozen=True)
class Tortuosities:
    """Diffusion through classes along axes.

    Attributes
    ----------
    box
        Part of the volume that was solved.
    shape
        Of the volume.
    unlabelled
        Share of the box that is of no class: it is closed.
    rows
        Class, number of the axis and result.
    device
        ``cpu`` or ``cuda``.
    """

    box: Box
    shape: Shape3
    unlabelled: float
    rows: tuple[tuple[str, int, Diffusion], ...]
    device: str

    @property
    def of_all(self) -> bool:
        """Whether the whole volume was solved."""
        return self.box == whole(self.shape)

    def place(self) -> str:
        """Return the box for people."""
        return ", ".join(
            f"{axis} {span.start}:{span.stop}" for axis, span in zip(AXES, self.box, strict=True)
        )


def axes_to_solve(text: str, labels: Volume) -> tuple[int, ...]:
    """Return the numbers of axes.

    Parameters
    ----------
    text
        ``z``, ``y``, ``x`` or ``all``: those with more than one voxel.
    labels
        The volume.

    Raises
    ------
    UsageError
        The volume has one voxel along the axis.
    """
    if text == "all":
        found = tuple(axis for axis in range(3) if labels.shape[axis] > 1)
        if found:
            return found
        raise UsageError(f"{labels.source}: found one voxel, expected several along an axis for tortuosity")
    axis = AXES.index(text)
    if labels.shape[axis] < 2:
        kind = ("an image" if labels.ndim == 2 else "one plane") if axis == 0 else f"one voxel along {text}"
        several = "planes" if axis == 0 else "voxels"
        raise UsageError(
            f"{labels.source}: found {kind}, expected several {several} for tortuosity along {text}"
        )
    return (axis,)


def box_to_solve(labels: Volume, size: int | None) -> Box:
    """Return the central part of a volume to solve: all of it, if it fits in half of the free memory.

    Parameters
    ----------
    labels
        The volume.
    size
        Voxels of its sides at most; ``None``: :data:`SIZE`, if the whole volume does not fit.

    Raises
    ------
    ResourceError
        It does not fit in memory.
    """
    free, of_voxel = free_memory(), BYTES + labels.dtype.itemsize
    box = _central(labels.shape, size)
    if size is None and math.prod(labels.shape) * of_voxel > free / 2:
        box = _central(labels.shape, SIZE)
    needed = math.prod(box_shape(box)) * of_voxel
    if needed > free:
        raise ResourceError(
            f"{labels.source}: found {needed / 1e9:.3g} GB for tortuosity, expected at most"
            f" {free / 1e9:.3g} GB of free memory (smaller --tortuosity-size)"
        )
    return box


def _central(shape: Shape3, size: int | None) -> Box:
    sides = [side if size is None else min(side, size) for side in shape]
    z, y, x = (
        slice((side - part) // 2, (side - part) // 2 + part) for side, part in zip(shape, sides, strict=True)
    )
    return z, y, x


def measure_tortuosity(
    labels: Volume,
    values: tuple[int, ...],
    chosen: Sequence[tuple[int, str]],
    sizes: VoxelGrid,
    axes: Sequence[int],
    box: Box,
    *,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
) -> Tortuosities:
    """Compute the tortuosity of classes in a part of a volume.

    Parameters
    ----------
    labels, values
        The volume, and the values of all of its classes.
    chosen
        Number among these and name of each class that is solved.
    sizes
        Size of the voxels.
    axes
        Along which.
    box
        The part.
    device
        ``cpu`` or ``cuda``.
    progress
        Called with the stage, voxels done and the total; how many iterations are needed is a guess.
    """
    classes = class_numbers(labels.read(box), values, labels.source)
    tasks = [(number, name, axis) for number, name in chosen for axis in axes]
    rows = []
    for place, (number, name, axis) in enumerate(tasks):

        def show(iterations: int, place: int = place, usual: int = 10 * classes.shape[axis]) -> None:
            if progress is not None:
                done = place + min(iterations / usual, 1.0)
                progress("tortuosity", int(done * classes.size), len(tasks) * classes.size)

        found = diffuse(classes == number, axis, sides_of(sizes), device=device, progress=show)
        show(10 * classes.shape[axis])
        rows.append((name, axis, found))
    unlabelled = np.count_nonzero(classes == len(values)) / classes.size
    return Tortuosities(box, labels.shape, unlabelled, tuple(rows), device)


def tortuosity_table(measured: Tortuosities) -> Table:
    """Return the results, a row for each class and axis."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            *("class", "axis", "status", "tortuosity factor", "relative diffusivity", "fraction"),
            *("percolating share", "flux imbalance", "iterations"),
        )
    }
    for name, axis, one in measured.rows:
        row = (
            *(name, AXES[axis], one.status, one.factor, one.diffusivity, one.fraction),
            *(one.through, one.imbalance, one.iterations),
        )
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    for end in ("start", "stop"):
        for axis_name, span in zip(AXES, measured.box, strict=True):
            columns[f"{axis_name}{int(end == 'stop')} [voxel]"] = [getattr(span, end)] * len(measured.rows)
    return Table(columns)


def tortuosity_summary(measured: Tortuosities) -> dict[str, Any]:
    """Return the results and how they were made, as JSON values."""
    return {
        "method": (
            "taufactor: steady diffusion through faces between both ends of the axis, other sides closed;"
            " tortuosity factor = fraction / relative diffusivity"
        ),
        "part": "whole volume" if measured.of_all else "central part",
        "box [voxel]": {axis: [span.start, span.stop] for axis, span in zip(AXES, measured.box, strict=True)},
        "share that is not labelled": measured.unlabelled,
        "largest flux imbalance": TOLERANCE,
        "device": measured.device,
        "results": [
            {
                "class": name,
                "axis": AXES[axis],
                "status": one.status,
                "tortuosity factor": one.factor,
                "relative diffusivity": one.diffusivity,
                "fraction": one.fraction,
                "percolating share": one.through,
            }
            for name, axis, one in measured.rows
        ],
    }


def tortuosity_notes(measured: Tortuosities) -> list[str]:
    """Return lines about a part of the volume, voxels of no class, and solutions that did not converge."""
    notes = []
    if not measured.of_all:
        shape = " x ".join(map(str, measured.shape))
        notes.append(f"tortuosity: of the central part {measured.place()} of {shape} voxels")
    if measured.unlabelled:
        notes.append(
            f"tortuosity: {100 * measured.unlabelled:.3g} % of the voxels are of no class, and closed"
        )
    for name, axis, one in measured.rows:
        if one.status == UNFINISHED:
            change = "" if one.imbalance is None else f", flux varies by {100 * one.imbalance:.2g} %"
            notes.append(
                f"tortuosity of {name} along {AXES[axis]}: not converged after {one.iterations} iterations"
                f"{change}"
            )
    return notes
