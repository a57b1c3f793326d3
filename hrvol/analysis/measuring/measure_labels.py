"""Measure a label volume block by block, on any engine, and write tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.classes_of_objects import holds_objects
from hrvol.analysis.label_classes import classes_of
from hrvol.analysis.measuring.block_measures import (
    BlockMeasures,
    MeasureJob,
    measure_block,
    measured_voxels,
)
from hrvol.analysis.measuring.cells import plan_cells
from hrvol.analysis.measuring.chords import column_chords, columns
from hrvol.analysis.measuring.measure_objects import measure_objects
from hrvol.analysis.measuring.measure_options import BLOCK, MeasureOptions
from hrvol.analysis.measuring.structure import add_structure, check_structure
from hrvol.analysis.measuring.tables import (
    Measured,
    Table,
    chord_table,
    class_rows,
    class_table,
    component_table,
    contact_table,
    correlation_table,
    deviation_table,
    mean_chords,
    plane_table,
)
from hrvol.analysis.measuring.totals import add_up
from hrvol.analysis.measuring.write_tables import check_folder, write_results
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.engine.check import check_engine
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.errors import BlockError, InputError, UsageError
from hrvol.progress import ProgressCallback, Tally
from hrvol.version import VERSION
from hrvol.volume.grid.tiling import box_shape, grid
from hrvol.volume.storage.location import located
from hrvol.volume.volume import open_labels

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Distances of the two-point correlation, in voxels."""

LEAST = 8
"""Voxels of the smallest component in the table."""

MOST_CLASSES = 100


@dataclass(frozen=True)
class Measurements:
    """Result of a measurement.

    Attributes
    ----------
    summary
        JSON values: units, measures of each class, how intervals were made.
    tables
        By name: ``classes``, ``planes``, ``contacts``, ``representative``, ``correlation``, and if they were
        measured ``components``, ``chords``, ``thickness`` and ``tortuosity``; of volumes of objects
        ``objects`` only. Headers have units.
    """

    summary: dict[str, Any]
    tables: Mapping[str, Table] = field(repr=False)


def measure_labels(
    labels: Any,
    out: str | Path | None = None,
    *,
    background: bool = False,
    name: str | None = None,
    components: bool = True,
    chords: bool = True,
    correlation: bool = True,
    min_size: int | None = None,
    cell: int | None = None,
    seed: int = 0,
    block_shape: tuple[int, int, int] = BLOCK,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    objects: bool | None = None,
    classes: str | Sequence[str] = (),
    thickness: bool = False,
    max_thickness: str | None = None,
    thickness_map: str | Path | None = None,
    tortuosity: str | None = None,
    tortuosity_size: int | None = None,
    device: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Measurements:
    """Measure labels of any size: fractions with intervals, surfaces, contacts, components, ...

    Of volumes of objects, each object is measured: size, surface, axes, neighbours, box. Labels are read
    block by block; the results do not depend on the blocks.

    Parameters
    ----------
    labels
        Path, URL or array of whole numbers: classes, at most 100.
    out
        Folder for ``summary.json`` and a CSV file of each table (and Parquet, if pyarrow is installed);
        ``None``: nothing is written.
    background
        Whether 0 is a class, ``background (0)``; otherwise it is what was not labelled, and does not count.
    name
        Name of the labels, if the image has several.
    components, chords, correlation
        Whether to label connected components (by faces, edges and corners; with percolation), to count
        chords, which reads the labels once more along each axis, and the two-point correlation.
    min_size
        Voxels of the smallest component in the table; smaller ones count in all other measures. ``None``: 8
        voxels, of objects 1.
    cell
        Voxels along x of the side of the cubes (in units of length) that the bootstrap of intervals draws;
        should be larger than the structure. ``None``: the largest of which there are 30.
    seed
        Of the draws.
    block_shape
        Voxels (z, y, x) of the blocks that are read.
    engine, workers, scheduler_file, engine_options, storage_options
        As in :func:`hrvol.segment_volume`.
    overwrite
        Replace the files of an earlier measurement in ``out``, and an earlier map of thickness.
    objects
        Whether values are objects, not classes: any whole numbers. ``None``: if the labels are an output of
        :func:`hrvol.separate_instances`.
    classes
        Names or numbers of the classes of which thickness and tortuosity are measured; empty: all.
    thickness
        Whether to measure the local thickness: the diameter of the largest ball inside of the class that
        holds a voxel (extra ``measure``).
    max_thickness
        Largest diameter that is tested, ``40um`` or voxels; so much is read around blocks. ``None``: 64
        voxels.
    thickness_map
        Path of an OME-Zarr image to write: the thickness of each voxel in units of length, 0 outside of the
        classes. It is computed a second time, in this process. ``None``: none.
    tortuosity
        ``z``, ``y``, ``x`` or ``all``: compute the tortuosity factor of classes along these axes, in memory
        (extra ``measure``).
    tortuosity_size
        Voxels of the side of the central part of which it is computed. ``None``: the whole volume, if it
        fits in half of the free memory, or else 256.
    device
        Where it is computed: ``auto``, ``cpu`` or ``cuda``.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    Measurements
        Lengths, areas and volumes in the unit of the voxel size, or of voxels where it is unknown.

    Raises
    ------
    UsageError
        An option cannot be used.
    InputError
        The labels cannot be read, are of too many classes, or a chosen class has no voxels.
    MissingExtraError
        Thickness or tortuosity need a package that is not installed.
    ResourceError
        They do not fit in memory.
    OutputExistsError
        The folder holds files.
    BlockError
        A block cannot be read.
    """
    spec = EngineSpec(
        engine, workers, None if scheduler_file is None else str(scheduler_file), dict(engine_options or {})
    )
    options = MeasureOptions(
        background,
        name,
        components,
        chords,
        correlation,
        min_size,
        cell,
        seed,
        spec,
        block_shape,
        objects,
        (classes,) if isinstance(classes, str) else tuple(classes),
        thickness,
        max_thickness,
        None if thickness_map is None else str(thickness_map),
        overwrite,
        tortuosity,
        tortuosity_size,
        device,
    )
    folder = None if out is None else check_folder(out, overwrite)
    result = measure(labels, options, storage_options, progress)
    if folder is not None:
        write_results(folder, result.summary, result.tables)
    return result


def measure(
    labels: Any,
    options: MeasureOptions,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Measurements:
    """Measure labels as :func:`measure_labels` does, with its keywords as one object."""
    # No features: no torch.
    modules = ("block_measures", "chords", "measure_thickness", "object_measures")
    imports = ("hrvol.engine.dask_engine", *(f"hrvol.analysis.measuring.{module}" for module in modules))
    spec = replace(options.engine, imports=imports)
    check_engine(spec)
    source = located(labels, storage_options)
    opened = open_labels(source, name=options.name)
    if holds_objects(source) if options.objects is None else options.objects:
        if options.thickness or options.tortuosity:
            raise UsageError(f"{opened.source}: found objects, expected classes for thickness and tortuosity")
        least = options.min_size or 1
        summary, table = measure_objects(opened, source, least, options.block_shape, spec, progress)
        return Measurements(summary, {"objects": table})
    sizes = VoxelGrid.of(opened)
    if opened.shape[0] == 1:  # a volume of one plane has areas, too
        sizes = replace(sizes, ndim=2)
    classes = classes_of(opened, source, options.block_shape, options.name)
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{opened.source}: found {len(classes)} labels, expected at most {MOST_CLASSES} classes"
            " (of objects: --objects)"
        )
    structure = check_structure(opened, classes, sizes, options)
    job = MeasureJob(
        opened,
        (*([0] if options.background else []), *(info.value for info in classes)),
        plan_cells(opened.shape, sizes.voxel_size, options.cell),
        tuple(lag for lag in LAGS if lag < max(opened.shape)) if options.correlation else (),
        options.components,
    )
    totals = add_up(_reports(job, spec, options.block_shape, progress), job, options.min_size or LEAST)
    names = (*(["background (0)"] if options.background else []), *(info.name for info in classes))
    measured = Measured(job, names, sizes, totals, options.seed)
    rows = class_rows(measured)
    tables: dict[str, Table] = {
        "classes": class_table(rows),
        "planes": plane_table(measured),
        "contacts": contact_table(measured),
        "representative": deviation_table(measured),
    }
    if options.correlation:
        tables["correlation"] = correlation_table(measured)
    if options.components:
        tables["components"] = component_table(measured)
    summary = _summary(measured, rows, options)
    if options.chords:
        chords = _chords(job, spec, progress)
        tables["chords"] = chord_table(measured, chords)
        summary[f"mean_chord [{measured.unit(1)}]"] = mean_chords(measured, chords)
    if structure is not None:
        add_structure(measured, structure, options, spec, summary, tables, progress)
    return Measurements(summary, tables)


def _reports(
    job: MeasureJob, spec: EngineSpec, block: Shape3, progress: ProgressCallback | None
) -> Iterator[BlockMeasures]:
    """Measure all blocks."""
    pieces = grid(job.labels.shape, block)
    tally = Tally(progress, "measure", math.prod(job.labels.shape))
    with open_engine(spec.limited(len(pieces)), job) as engine:
        for outcome in engine.map_bounded(measure_block, pieces):
            if outcome.value is None:
                raise BlockError(f"{job.labels.source}: block {outcome.task.index}: {outcome.error}")
            tally.finish(outcome.task.index, measured_voxels(outcome.task))
            yield outcome.value


def _chords(
    job: MeasureJob, spec: EngineSpec, progress: ProgressCallback | None
) -> dict[int, NDArray[np.int64]]:
    """Count the chords along each axis with more than one voxel."""
    tasks = list(columns(job.labels.shape, job.labels.chunks, job.labels.source))
    tally = Tally(progress, "chords", sum(math.prod(box_shape(task.box)) for task in tasks))
    found: dict[int, NDArray[np.int64]] = {}
    if not tasks:
        return found
    with open_engine(spec.limited(len(tasks)), job) as engine:
        for number, outcome in enumerate(engine.map_bounded(column_chords, tasks)):
            if outcome.value is None:
                raise BlockError(f"{job.labels.source}: axis {outcome.task.axis}: {outcome.error}")
            tally.finish(number, math.prod(box_shape(outcome.task.box)))
            axis = outcome.task.axis
            found[axis] = found[axis] + outcome.value if axis in found else outcome.value
    return found


def _summary(measured: Measured, rows: list[dict[str, Any]], options: MeasureOptions) -> dict[str, Any]:
    """Return what was measured, and how, as JSON values."""
    labels, plan, sizes = measured.job.labels, measured.job.cells, measured.grid
    side = plan.side * plan.sides[2]
    cells = math.prod(-(-count // plan.side) if count > 1 else 1 for count in plan.counts)
    return {
        "labels": labels.source,
        "shape": list(labels.shape[-labels.ndim :]),
        "unit": sizes.length_unit(),
        "voxel_size": list(sizes.voxel_size[-labels.ndim :]) if sizes.unit else None,
        "notes": [] if sizes.unit else ["no voxel size: all lengths, areas and volumes are in voxels"],
        "labelled_voxels": int(measured.totals.planes.sum()),
        "classes": rows,
        "empty_classes": [row["name"] for row in rows if not row["voxels"]],
        "intervals": {
            "method": "95 %, expanded percentiles of 1000 bootstrap draws of cells",
            "cell_side [voxel]": side,
            f"cell_side [{sizes.length_unit()}]": side * sizes.voxel_size[2],
            "cells": cells,
            "seed": measured.seed,
        },
        "surfaces": "Crofton's formula, 13 directions (4 of a plane); not those at borders of the volume",
        "components": (
            {"connectivity": "faces, edges and corners", "min_size [voxel]": options.min_size or LEAST}
            if options.components
            else None
        ),
        "version": VERSION,
    }
