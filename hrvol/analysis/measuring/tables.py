"""Turn the measures of a volume into tables with units in their headers, and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.block_measures import MeasureJob
from hrvol.analysis.measuring.cells import coarser, deviations, draw_cells, intervals
from hrvol.analysis.measuring.crofton import area_per_crossing
from hrvol.analysis.measuring.shapes import AXES, place_columns, size_columns, unit_of
from hrvol.analysis.measuring.totals import Totals
from hrvol.analysis.sizes import VoxelGrid

UNLABELLED = "not labelled"
"""Name of what has no class."""


@dataclass(frozen=True)
class Table:
    """A table: columns of the same length by their headers."""

    columns: Mapping[str, Sequence[Any]]

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Yield the rows."""
        return zip(*self.columns.values(), strict=True)


@dataclass(frozen=True)
class Measured:
    """A volume and its measures, from which tables are made.

    Attributes
    ----------
    job
        What was measured.
    names
        Of the classes, in order.
    grid
        Size of the voxels.
    totals
        The measures.
    seed
        Of the draws of intervals.
    """

    job: MeasureJob
    names: tuple[str, ...]
    grid: VoxelGrid
    totals: Totals
    seed: int = 0

    def unit(self, power: int) -> str:
        """Return a unit of length, area (2) or volume (3) for headers; negative powers too."""
        return unit_of(self.grid, power)

    def areas(self) -> NDArray[np.float64]:
        """Return the areas ``(K + 1, K + 1)`` between classes; of an image lengths."""
        return np.tensordot(area_per_crossing(self.grid), self.totals.crossings, axes=1)


def plane_table(measured: Measured) -> Table:
    """Return the fractions of classes in each plane, with 95 % intervals."""
    planes, cells = measured.totals.planes, measured.totals.in_plane
    depth, classes = planes.shape
    table = cells.reshape(depth, -1, classes)
    draws = draw_cells(table.shape[1], measured.seed)
    labelled = planes.sum(axis=1)
    position = np.arange(depth) * measured.grid.voxel_size[0]
    columns: dict[str, Sequence[Any]] = {
        "plane": list(range(depth)),
        f"z [{measured.unit(1)}]": position.tolist(),
        "labelled [voxel]": labelled.tolist(),
    }
    ends = np.stack([intervals(table[plane], draws) for plane in range(depth)])
    with np.errstate(invalid="ignore"):
        fractions = planes / labelled[:, None]
    for number, name in enumerate(measured.names):
        columns[f"{name}: fraction"] = fractions[:, number].tolist()
        columns[f"{name}: low"] = ends[:, number, 0].tolist()
        columns[f"{name}: high"] = ends[:, number, 1].tolist()
    return Table(columns)


def class_rows(measured: Measured) -> list[dict[str, Any]]:
    """Return the measures of each class, as JSON values with units in the names."""
    totals, grid = measured.totals, measured.grid
    voxels = totals.planes.sum(axis=0)
    labelled = int(voxels.sum())
    cells = coarser(totals.in_cells, measured.job.cells.side)
    ends = intervals(cells.reshape(-1, cells.shape[-1]), seed=measured.seed)
    areas = measured.areas()
    flat = grid.ndim == 2
    size, area = ("area", "boundary") if flat else ("volume", "surface")
    rows = []
    for number, (name, value) in enumerate(zip(measured.names, measured.job.values, strict=True)):
        count, surface = int(voxels[number]), float(areas[number].sum())
        volume = count * grid.voxel_volume
        row: dict[str, Any] = {
            "name": name,
            "value": value,
            "voxels": count,
            f"{size} [{measured.unit(grid.ndim)}]": volume,
            "fraction": count / labelled if labelled else None,
            "fraction_95": _finite(ends[number]),
            f"{area} [{measured.unit(grid.ndim - 1)}]": surface,
            f"{area} per {size} of class [{measured.unit(-1)}]": surface / volume if count else None,
            f"{area} per {size} of sample [{measured.unit(-1)}]": (
                surface / (labelled * grid.voxel_volume) if labelled else None
            ),
            "euler_number": int(totals.euler[number]),
        }
        if totals.components is not None:
            row |= {
                "components": int(totals.found[number]),
                "largest_component_share": int(totals.largest[number]) / count if count else None,
                "percolating_share": {
                    axis: int(totals.percolating[position, number]) / count if count else None
                    for position, axis in enumerate(AXES)
                    if measured.job.labels.shape[position] > 1
                },
            }
        rows.append(row)
    return rows


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the measures of classes as a table: lists and mappings become columns."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            if name == "fraction_95":
                low, high = value or (None, None)
                parts = {"fraction: low": low, "fraction: high": high}
            elif isinstance(value, Mapping):
                parts = {f"{name}: {axis}": part for axis, part in value.items()}
            else:
                parts = {name: value}
            for header, part in parts.items():
                columns.setdefault(header, []).append(part)
    return Table(columns)


def contact_table(measured: Measured) -> Table:
    """Return the areas between each pair of classes."""
    areas, names = measured.areas(), [*measured.names, UNLABELLED]
    kind = "boundary" if measured.grid.ndim == 2 else "area"
    found = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if areas[i, j] > 0]
    unit = measured.unit(measured.grid.ndim - 1)
    return Table(
        {
            "class": [names[i] for i, _ in found],
            "other class": [names[j] for _, j in found],
            f"contact {kind} [{unit}]": [float(areas[i, j]) for i, j in found],
        }
    )


def deviation_table(measured: Measured) -> Table:
    """Return the representative-volume curve: deviation of fractions among cells, by their side."""
    plan, found = measured.job.cells, list(deviations(measured.totals.in_cells, measured.job.cells))
    side = plan.sides[2]
    columns: dict[str, Sequence[Any]] = {
        "side [voxel]": [times * side for times, _, _ in found],
        f"side [{measured.unit(1)}]": [times * side * measured.grid.voxel_size[2] for times, _, _ in found],
        "cells": [count for _, count, _ in found],
    }
    if measured.grid.unit is None:
        columns = {name: values for name, values in columns.items() if name != f"side [{measured.unit(1)}]"}
        columns = {"side [voxel]": [times * side for times, _, _ in found], **columns}
    for number, name in enumerate(measured.names):
        columns[f"{name}: standard deviation"] = [deviation[number] for _, _, deviation in found]
    return Table(columns)


def correlation_table(measured: Measured) -> Table:
    """Return the two-point correlation: probability that both ends of a line are of a class."""
    totals, grid = measured.totals, measured.grid
    columns: dict[str, list[Any]] = {"axis": [], "distance [voxel]": [], "pairs": []}
    metric = f"distance [{measured.unit(1)}]"
    columns |= {} if grid.unit is None else {metric: []}
    columns |= {f"{name}: probability": [] for name in measured.names}
    for position, axis in enumerate(AXES):
        for row, lag in enumerate(measured.job.lags):
            pairs = int(totals.labelled[position, row])
            if not pairs:
                continue
            columns["axis"].append(axis)
            columns["distance [voxel]"].append(lag)
            columns["pairs"].append(pairs)
            if grid.unit is not None:
                columns[metric].append(lag * grid.voxel_size[position])
            for number, name in enumerate(measured.names):
                columns[f"{name}: probability"].append(int(totals.both[position, row, number]) / pairs)
    return Table(columns)


def chord_table(measured: Measured, chords: Mapping[int, NDArray[np.int64]]) -> Table:
    """Return the number of chords by axis and length; lengths without any chord are left out."""
    grid = measured.grid
    columns: dict[str, list[Any]] = {"axis": [], "length [voxel]": []}
    metric = f"length [{measured.unit(1)}]"
    columns |= {} if grid.unit is None else {metric: []}
    columns |= {f"{name}: chords": [] for name in measured.names}
    for position, table in sorted(chords.items()):
        for length in np.flatnonzero(table.any(axis=0)).tolist():
            columns["axis"].append(AXES[position])
            columns["length [voxel]"].append(length)
            if grid.unit is not None:
                columns[metric].append(length * grid.voxel_size[position])
            for number, name in enumerate(measured.names):
                columns[f"{name}: chords"].append(int(table[number, length]))
    return Table(columns)


def mean_chords(measured: Measured, chords: Mapping[int, NDArray[np.int64]]) -> dict[str, dict[str, float]]:
    """Return the mean length of the chords of each class along each axis that has any."""
    found: dict[str, dict[str, float]] = {}
    for position, table in sorted(chords.items()):
        lengths = np.arange(table.shape[1]) * measured.grid.voxel_size[position]
        for number, name in enumerate(measured.names):
            if total := int(table[number].sum()):
                found.setdefault(name, {})[AXES[position]] = float(table[number] @ lengths) / total
    return found


def component_table(measured: Measured) -> Table:
    """Return the connected components: size, box, centre, surface and roundness."""
    table, grid = measured.totals.components, measured.grid
    assert table is not None
    assert table.sums is not None
    numbers = table.labels - 1
    centres = table.sums[:, :3] / np.maximum(table.sizes, 1)[:, None]
    places, extent = place_columns(centres, table.boxes, measured.job.labels.shape, grid)
    return Table(
        {
            "component": list(range(1, len(numbers) + 1)),
            "class": [measured.names[number] for number in numbers],
            **size_columns(table.sizes, table.sums[:, 3:], grid),
            **places,
            **extent,
        }
    )


def _finite(ends: NDArray[np.float64]) -> list[float] | None:
    return ends.tolist() if np.isfinite(ends).all() else None
