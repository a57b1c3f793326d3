"""Measure the local thickness of classes block by block, and make a table of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.block_measures import class_numbers
from hrvol.analysis.measuring.shapes import unit_of
from hrvol.analysis.measuring.tables import Table
from hrvol.analysis.measuring.thickness import SMALLEST, reach_of_diameter, thickness_numbers
from hrvol.analysis.sizes import VoxelGrid, shortest_sides
from hrvol.arrays import Shape3, Spacing3
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.task import computing, configuration
from hrvol.errors import BlockError, ResourceError, UsageError
from hrvol.memory import free_memory
from hrvol.progress import ProgressCallback, Tally
from hrvol.text import printable
from hrvol.volume.grid.tiling import Block, Box, around, box_shape, grid
from hrvol.volume.volume import Volume

LARGEST = 64
"""Largest diameter that is tested by default, in shortest sides of voxels."""

MOST = 1000
"""Largest diameter that can be tested."""

BYTES = 17
"""Bytes of memory per voxel of a block and what is read around it, of labels of one byte."""

QUANTILES = {"10 %": 0.1, "median": 0.5, "90 %": 0.9}
"""By volume."""


@dataclass(frozen=True)
class ThicknessJob:
    """What a worker needs to measure the thickness in any block.

    Attributes
    ----------
    labels
        The labels ``(Z, Y, X)``.
    values
        Label values of all classes, in order.
    chosen
        Numbers of the classes that are measured.
    sampling
        Sides (z, y, x) of a voxel, the shortest 1.
    most
        Largest diameter that is tested, in shortest sides.
    """

    labels: Volume
    values: tuple[int, ...]
    chosen: tuple[int, ...]
    sampling: Spacing3
    most: int

    def box(self, core: Box) -> Box:
        """Return what is read for a block."""
        return around(core, reach_of_diameter(self.most, self.sampling), self.labels.shape)


@dataclass(frozen=True, eq=False)
class Thickness:
    """Local thickness of classes.

    Attributes
    ----------
    names
        Of the classes.
    counts
        ``(n, most + 1)`` int64: voxels of each class by thickness, in shortest sides.
    grid
        Size of the voxels.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    grid: VoxelGrid

    @property
    def side(self) -> float:
        """Length of the shortest side of a voxel, in the unit of the volume."""
        return min(self.grid.voxel_size[-self.grid.ndim :])


def largest_diameter(text: str | None, grid: VoxelGrid) -> int:
    """Return the largest diameter to test in shortest sides of voxels, rounded up.

    Parameters
    ----------
    text
        ``40um``, or a number of voxels; ``None``: :data:`LARGEST`.
    grid
        Of the volume.

    Raises
    ------
    UsageError
        It is no such length, or not in 2 to :data:`MOST` voxels.
    """
    if text is None:
        return LARGEST
    most = math.ceil(shortest_sides(text, grid, "thickness") * (1 - 1e-9))
    if not SMALLEST <= most <= MOST:
        raise UsageError(
            f"max_thickness: found '{printable(text, 50)}', {most} voxels, expected {SMALLEST} to {MOST}"
        )
    return most


def sides_of(grid: VoxelGrid) -> Spacing3:
    """Return the sides (z, y, x) of a voxel, the shortest 1; of an image, z counts for nothing."""
    shortest = min(grid.voxel_size[-grid.ndim :])
    z, y, x = (size / shortest for size in grid.voxel_size)
    return (1.0, y, x) if grid.ndim == 2 else (z, y, x)


def measure_thickness(
    job: ThicknessJob,
    names: Sequence[str],
    sizes: VoxelGrid,
    block: Shape3,
    spec: EngineSpec,
    progress: ProgressCallback | None = None,
) -> Thickness:
    """Measure the local thickness of classes; it does not depend on the blocks.

    Parameters
    ----------
    job
        What is measured.
    names
        Of the chosen classes.
    sizes
        Size of the voxels.
    block
        Voxels (z, y, x) of the blocks.
    spec, progress
        As for :func:`hrvol.analysis.measuring.measure_labels.measure`.

    Raises
    ------
    ResourceError
        A block and what is read around it do not fit in memory.
    BlockError
        A block cannot be read.
    """
    pieces = grid(job.labels.shape, block)
    largest = max(math.prod(box_shape(job.box(piece.core))) for piece in pieces)
    needed, free = largest * (BYTES + job.labels.dtype.itemsize), free_memory()
    if needed > free and not spec.remote:
        raise ResourceError(
            f"{job.labels.source}: found {needed / 1e9:.3g} GB for a block and {job.most} voxels around it,"
            f" expected at most {free / 1e9:.3g} GB of free memory (smaller --max-thickness)"
        )
    counts = np.zeros((len(job.chosen), job.most + 1), np.int64)
    tally = Tally(progress, "thickness", math.prod(job.labels.shape))
    with open_engine(spec.limited(len(pieces)), job) as engine:
        for outcome in engine.map_bounded(thickness_of_block, pieces):
            if outcome.value is None:
                raise BlockError(f"{job.labels.source}: block {outcome.task.index}: {outcome.error}")
            tally.finish(outcome.task.index, math.prod(outcome.task.shape))
            counts += outcome.value
    return Thickness(tuple(names), counts, sizes)


def thickness_of_block(block: Block) -> NDArray[np.int64]:
    """Count the voxels of a block by class and thickness; the task that engines hand to workers."""
    job: ThicknessJob = configuration()
    counts = np.zeros((len(job.chosen), job.most + 1), np.int64)
    for row, found in enumerate(thickness_of_box(job, block.core)):
        counts[row] = np.bincount(found.ravel(), minlength=job.most + 1)
    counts[:, 0] = 0
    return counts


def thickness_of_box(job: ThicknessJob, core: Box) -> Iterator[NDArray[np.uint16]]:
    """Yield the thickness of each chosen class in a box, in shortest sides, 0 outside of the class."""
    box = job.box(core)
    values = job.labels.read(box)
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(core, box, strict=True))
    with computing():
        classes = class_numbers(values, job.values, job.labels.source)
        for number in job.chosen:
            mask = classes == number
            if mask[z, y, x].any():
                yield thickness_numbers(mask, job.sampling, job.most)[z, y, x]
            else:
                yield np.zeros(box_shape(core), np.uint16)


def thickness_table(measured: Thickness) -> Table:
    """Return the volume shares of each class by thickness, up to its largest."""
    unit, known = unit_of(measured.grid, 1), measured.grid.unit is not None
    size = "area" if measured.grid.ndim == 2 else "volume"
    columns: dict[str, list[Any]] = {"class": [], "thickness [voxel]": []}
    columns |= {f"thickness [{unit}]": []} if known else {}
    columns |= {"voxels": [], f"{size} share": [], f"{size} share of at least this thickness": []}
    for name, counts in zip(measured.names, measured.counts, strict=True):
        total = int(counts.sum())
        if not total:
            continue
        for diameter in range(SMALLEST, int(np.flatnonzero(counts)[-1]) + 1):
            columns["class"].append(name)
            columns["thickness [voxel]"].append(diameter)
            if known:
                columns[f"thickness [{unit}]"].append(diameter * measured.side)
            columns["voxels"].append(int(counts[diameter]))
            columns[f"{size} share"].append(int(counts[diameter]) / total)
            columns[f"{size} share of at least this thickness"].append(int(counts[diameter:].sum()) / total)
    return Table(columns)


def thickness_summary(measured: Thickness) -> dict[str, Any]:
    """Return means, percentiles by volume and how they were made, as JSON values."""
    most, unit = measured.counts.shape[1] - 1, unit_of(measured.grid, 1)
    rows = []
    for name, counts in zip(measured.names, measured.counts, strict=True):
        total = int(counts.sum())
        if not total:
            continue
        diameters = np.arange(most + 1) * measured.side
        mean = float(counts @ diameters) / total
        spread = math.sqrt(float(counts @ (diameters - mean) ** 2) / total)
        below = np.cumsum(counts)
        values = {"mean": mean, "standard deviation": spread}
        for quantile, part in QUANTILES.items():
            values[quantile] = float(diameters[np.searchsorted(below, part * total)])
        values["largest"] = float(diameters[np.flatnonzero(counts)[-1]])
        rows.append(
            {"name": name}
            | {f"{key} [{unit}]": value for key, value in values.items()}
            | {"share at the largest tested": int(counts[most]) / total}
        )
    return {
        "method": "diameter of the largest ball inside of the class that holds a voxel; by volume",
        "tested [voxel]": [SMALLEST, most],
        "step [voxel]": 1,
        f"shortest side of a voxel [{unit}]": measured.side,
        "classes": rows,
    }


def thickness_notes(measured: Thickness) -> list[str]:
    """Return a line for each class with voxels at the largest diameter tested."""
    most = measured.counts.shape[1] - 1
    length = f"{most} voxels"
    if measured.grid.unit is not None:
        length += f", {most * measured.side:.4g} {measured.grid.unit}"
    return [
        f"thickness of {name}: {100 * int(counts[most]) / int(counts.sum()):.3g} % of its voxels are at the"
        f" largest diameter tested ({length}), or above it: choose a larger --max-thickness"
        for name, counts in zip(measured.names, measured.counts, strict=True)
        if counts[most]
    ]
