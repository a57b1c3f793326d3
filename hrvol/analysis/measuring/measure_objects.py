"""Measure each object of a volume of objects block by block, and make a table of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.classes_of_objects import classes_of_objects
from hrvol.analysis.measuring.object_measures import (
    MOMENTS,
    ObjectMeasures,
    ObjectsJob,
    join_objects,
    measure_object_block,
    neighbours,
)
from hrvol.analysis.measuring.shapes import axis_columns, place_columns, size_columns, unit_of
from hrvol.analysis.measuring.tables import Table
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.errors import BlockError
from hrvol.progress import ProgressCallback, Tally
from hrvol.version import VERSION
from hrvol.volume.grid.tiling import grid
from hrvol.volume.volume import Volume

QUANTILES = {"10 %": 0.1, "median": 0.5, "90 %": 0.9}
"""Of the sizes in a summary."""


def measure_objects(
    labels: Volume,
    source: Any,
    least: int,
    block: Shape3,
    spec: EngineSpec,
    progress: ProgressCallback | None = None,
) -> tuple[dict[str, Any], Table]:
    """Return the summary and the table of the objects of a volume; 0 is no object.

    Parameters
    ----------
    labels
        Numbers of objects.
    source
        What was opened.
    least
        Voxels of the smallest object in the table.
    block
        Voxels (z, y, x) of the blocks that are read.
    spec, progress
        As for :func:`hrvol.analysis.measuring.measure_labels.measure`.

    Raises
    ------
    InputError, BlockError
        A block cannot be read, or has negative numbers.
    """
    sizes = VoxelGrid.of(labels)
    if labels.shape[0] == 1:  # a volume of one plane has areas, too
        sizes = replace(sizes, ndim=2)
    measured = join_objects(_reports(ObjectsJob(labels), spec, block, progress))
    table = object_table(measured, labels, sizes, least, classes_of_objects(source))
    return _summary(measured, table, labels, sizes, least), table


def object_table(
    measured: ObjectMeasures, labels: Volume, sizes: VoxelGrid, least: int, classes: Sequence[str] | None
) -> Table:
    """Return a row for each object of at least so many voxels.

    Parameters
    ----------
    measured
        Of the whole volume.
    labels, sizes
        The volume, and the size of its voxels.
    least
        Voxels of the smallest object.
    classes
        Class of each object, by number (0 for none); ``None``: unknown.
    """
    rows = measured.objects.sizes >= least
    found, touching = measured.objects[rows], neighbours(measured)[rows]
    assert found.sums is not None
    first, second, crossings = (found.sums[:, part] for part in MOMENTS)
    middle = np.array(ObjectsJob(labels).origin)
    centres = first / np.maximum(found.sizes, 1)[:, None] + middle
    places, extent = place_columns(centres, found.boxes, labels.shape, sizes)
    numbers = found.labels.tolist()
    return Table(
        {
            "object": numbers,
            **({} if classes is None else {"class": _named(numbers, classes)}),
            **size_columns(found.sizes, crossings, sizes),
            **places,
            **axis_columns(found.sizes, first, second, sizes),
            "touching objects": touching.tolist(),
            **extent,
        }
    )


def _named(numbers: Sequence[int], classes: Sequence[str]) -> list[str | None]:
    return [classes[number] if number < len(classes) else None for number in numbers]


def _reports(
    job: ObjectsJob, spec: EngineSpec, block: Shape3, progress: ProgressCallback | None
) -> Iterator[ObjectMeasures]:
    """Measure all blocks."""
    pieces = grid(job.labels.shape, block)
    tally = Tally(progress, "objects", math.prod(job.labels.shape))
    with open_engine(spec.limited(len(pieces)), job) as engine:
        for outcome in engine.map_bounded(measure_object_block, pieces):
            if outcome.value is None:
                raise BlockError(f"{job.labels.source}: block {outcome.task.index}: {outcome.error}")
            tally.finish(outcome.task.index, math.prod(outcome.task.shape))
            yield outcome.value


def _summary(
    measured: ObjectMeasures, table: Table, labels: Volume, sizes: VoxelGrid, least: int
) -> dict[str, Any]:
    """Return how many objects there are, and the distribution of their sizes, as JSON values."""
    columns = table.columns
    border = np.array(columns["at border"], np.int64)
    unit = unit_of(sizes, 1)
    shown = [name for name in columns if name.startswith(("volume [", "area ["))]
    shown += [f"equivalent diameter [{unit}]", f"length [{unit}]"]
    return {
        "labels": labels.source,
        "shape": list(labels.shape[-labels.ndim :]),
        "unit": sizes.length_unit(),
        "voxel_size": list(sizes.voxel_size[-labels.ndim :]) if sizes.unit else None,
        "notes": [] if sizes.unit else ["no voxel size: all lengths, areas and volumes are in voxels"],
        "objects": len(border),
        "objects_at_border": int(border.sum()),
        "smaller_objects": int(np.count_nonzero(measured.objects.sizes < least)),
        "min_size [voxel]": least,
        "voxels": int(measured.objects.sizes.sum()),
        "touching_pairs": len(measured.touching),
        "distributions": {name: _distribution(np.array(columns[name], np.float64)) for name in shown},
        "surfaces": "Crofton's formula, 13 directions (4 of a plane); not those at borders of the volume",
        "axes": "of the ellipsoid with the same second moments; length: of a straight rod with the largest",
        "version": VERSION,
    }


def _distribution(values: NDArray[np.float64]) -> dict[str, float] | None:
    if not len(values):
        return None
    found = {"mean": float(values.mean()), "smallest": float(values.min())}
    found |= {name: float(np.quantile(values, part)) for name, part in QUANTILES.items()}
    return found | {"largest": float(values.max())}
