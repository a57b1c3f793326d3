"""Add local thickness and tortuosity to the measures of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.analysis.label_classes import class_value, class_values
from hrvol.analysis.measuring.measure_options import MeasureOptions
from hrvol.analysis.measuring.measure_thickness import (
    ThicknessJob,
    largest_diameter,
    measure_thickness,
    sides_of,
    thickness_notes,
    thickness_summary,
    thickness_table,
)
from hrvol.analysis.measuring.measure_tortuosity import (
    axes_to_solve,
    box_to_solve,
    measure_tortuosity,
    tortuosity_notes,
    tortuosity_summary,
    tortuosity_table,
)
from hrvol.analysis.measuring.tables import Measured, Table
from hrvol.analysis.measuring.thickness import check_distances
from hrvol.analysis.measuring.thickness_map import check_map, write_thickness_map
from hrvol.analysis.measuring.tortuosity import check_taufactor
from hrvol.analysis.sizes import VoxelGrid
from hrvol.classes import ClassInfo
from hrvol.device import choose_device
from hrvol.engine.spec import EngineSpec
from hrvol.errors import InputError
from hrvol.progress import ProgressCallback
from hrvol.text import printable
from hrvol.volume.volume import Volume


@dataclass(frozen=True)
class Structure:
    """What of the structure is measured.

    Attributes
    ----------
    values
        Of the chosen classes; ``None``: all that have voxels.
    most
        Largest diameter that is tested, in shortest sides of voxels; ``None``: no thickness.
    axes
        Along which tortuosity is computed.
    device
        Where: ``cpu`` or ``cuda``.
    """

    values: tuple[int, ...] | None
    most: int | None
    axes: tuple[int, ...]
    device: str


def check_structure(
    labels: Volume, classes: Sequence[ClassInfo], sizes: VoxelGrid, options: MeasureOptions
) -> Structure | None:
    """Check the request for thickness and tortuosity before anything is measured; ``None``: no request.

    Raises
    ------
    UsageError
        A class does not exist, a length cannot be used, or the volume has one voxel along an axis.
    MissingExtraError
        A package is not installed.
    DeviceError
        There is no such device.
    OutputExistsError
        The path of the map is occupied.
    ResourceError
        The part of which the tortuosity is computed does not fit in memory.
    """
    if not options.thickness and options.tortuosity is None:
        return None
    values = _chosen(options.classes, classes, options.background)
    most = None
    if options.thickness:
        check_distances()
        most = largest_diameter(options.max_thickness, sizes)
        if options.thickness_map is not None:
            check_map(options.thickness_map, labels, options.overwrite)
    axes: tuple[int, ...] = ()
    device = "cpu"
    if options.tortuosity is not None:
        check_taufactor()
        axes = axes_to_solve(options.tortuosity, labels)
        box_to_solve(labels, options.tortuosity_size)
        device = choose_device(options.device, lack=tuple).device  # torch is all that is needed
    return Structure(values, most, axes, device)


def _chosen(texts: Sequence[str], classes: Sequence[ClassInfo], background: bool) -> tuple[int, ...] | None:
    """Return the values of classes that a user names, in order; ``None`` if none is named."""
    if not texts:
        return None
    found: set[int] = set()
    for text in texts:
        if background and text in ("0", "background (0)"):
            found.add(class_value("0", classes, "class", zero=True))
        else:
            found.update(class_values(text, classes, "class"))
    return tuple(sorted(found))


def add_structure(
    measured: Measured,
    structure: Structure,
    options: MeasureOptions,
    spec: EngineSpec,
    summary: dict[str, Any],
    tables: dict[str, Table],
    progress: ProgressCallback | None = None,
) -> None:
    """Measure thickness and tortuosity, and add them to a summary and its tables.

    Parameters
    ----------
    measured
        The volume, and voxels of its classes.
    structure, options, spec, progress
        What is measured, and where.
    summary, tables
        Of the measures of classes.

    Raises
    ------
    InputError
        A chosen class has no voxels.
    BlockError
        A block cannot be read.
    ResourceError
        A block does not fit in memory.
    """
    job = measured.job
    voxels = measured.totals.planes.sum(axis=0)
    chosen = tuple(
        number
        for number, value in enumerate(job.values)
        if (voxels[number] if structure.values is None else value in structure.values)
    )
    for number in chosen:
        if not voxels[number]:
            raise InputError(
                f"{job.labels.source}: found no voxels of the class"
                f" '{printable(measured.names[number], 50)}', expected some for thickness and tortuosity"
            )
    names = [measured.names[number] for number in chosen]
    if structure.most is not None:
        task = ThicknessJob(job.labels, job.values, chosen, sides_of(measured.grid), structure.most)
        thick = measure_thickness(
            task,
            names,
            measured.grid,
            options.block_shape,
            spec,
            progress,
        )
        tables["thickness"] = thickness_table(thick)
        summary["thickness"] = thickness_summary(thick)
        summary["notes"] = [*summary["notes"], *thickness_notes(thick)]
        if options.thickness_map is not None:
            write_thickness_map(options.thickness_map, task, measured.grid, options.overwrite, progress)
    if structure.axes:
        found = measure_tortuosity(
            job.labels,
            job.values,
            list(zip(chosen, names, strict=True)),
            measured.grid,
            structure.axes,
            box_to_solve(job.labels, options.tortuosity_size),
            device=structure.device,
            progress=progress,
        )
        tables["tortuosity"] = tortuosity_table(found)
        summary["tortuosity"] = tortuosity_summary(found)
        summary["notes"] = [*summary["notes"], *tortuosity_notes(found)]
