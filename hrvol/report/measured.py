"""Read a measurement that ``hrvol measure`` wrote: intervals, sizes of components, thickness, tortuosity."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrvol.analysis.measuring.write_tables import SUMMARY
from hrvol.errors import InputError
from hrvol.reading.bounded import parse_mapping, read_file
from hrvol.reading.schema import Schema, validated
from hrvol.report.measured_structure import (
    THICKNESS,
    DiffusionRows,
    ThicknessRange,
    ThicknessShares,
    read_thickness,
)
from hrvol.text import printable

COMPONENTS = "components.csv"

MOST_BYTES = 2**30
"""Most bytes of a table of components: some five million rows."""

BINS = 24
"""Bins of a distribution of sizes."""

_DIAMETER = "equivalent diameter ["

_Share = Annotated[float, Field(ge=0, le=1)]


class _Class(Schema):
    name: Annotated[str, Field(max_length=400)]
    value: Annotated[int, Field(ge=0, le=2**31)]
    fraction: _Share | None = None
    fraction_95: tuple[_Share, _Share] | None = None


class _Intervals(Schema):
    cells: Annotated[int, Field(ge=0)]


class _Summary(Schema):
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)]
    unit: Annotated[str, Field(max_length=100)]
    classes: Annotated[list[_Class], Field(max_length=1000)]
    intervals: _Intervals
    thickness: ThicknessRange | None = None
    tortuosity: DiffusionRows | None = None


@dataclass(frozen=True, eq=False)
class Sizes:
    """Diameters of the components of a class.

    Attributes
    ----------
    name
        Of the class.
    diameters
        ``(n,)`` float64, ascending.
    """

    name: str
    diameters: NDArray[np.float64]

    def values(self) -> dict[str, Any]:
        """Return figures as JSON values: percentiles by number and by volume."""
        d10, d50, d90 = (float(value) for value in np.percentile(self.diameters, [10, 50, 90]))
        weights = np.cumsum(self.diameters**3)
        half = int(np.searchsorted(weights, weights[-1] / 2))
        return {
            "class": self.name,
            "components": len(self.diameters),
            "d10": d10,
            "d50": d50,
            "d90": d90,
            "d50_by_volume": float(self.diameters[half]),
            "largest": float(self.diameters[-1]),
        }


@dataclass(frozen=True, eq=False)
class Measurement:
    """What of a measurement a report shows.

    Attributes
    ----------
    source
        The folder or file.
    intervals
        95 % intervals of fractions, by value of the class.
    cells
        Number of cells that they are made of.
    sizes
        Of each class with components, by falling number.
    unit
        Of the diameters.
    thickness, thickness_unit, thickness_tested
        Volume of classes by local thickness, its unit, and the largest that was tested, in voxels (``None``:
        unknown).
    tortuosity
        Of classes along axes; ``None``: was not computed.
    """

    source: str
    intervals: Mapping[int, tuple[float, float]]
    cells: int
    sizes: tuple[Sizes, ...]
    unit: str
    thickness: tuple[ThicknessShares, ...] = ()
    thickness_unit: str = ""
    thickness_tested: int | None = None
    tortuosity: DiffusionRows | None = None


def read_measurement(path: str | Path, shape: Sequence[int]) -> Measurement:
    """Read a folder that ``hrvol measure`` wrote, or one of its files.

    Parameters
    ----------
    path
        The folder, its ``summary.json``, or a table of components (CSV).
    shape
        Of the labels of the report.

    Raises
    ------
    InputError
        It is another thing, damaged, or of labels of another shape.
    """
    place = Path(path)
    if place.is_dir():
        summary, table = place / SUMMARY, place / COMPONENTS
    elif place.suffix.lower() == ".csv":
        summary, table = None, place
    else:
        summary, table = place, place.parent / COMPONENTS
    intervals: dict[int, tuple[float, float]] = {}
    cells, tested, tortuosity = 0, None, None
    if summary is not None:
        expected = "a folder of hrvol measure, or its summary.json"
        values = parse_mapping(read_file(summary, 2**26, expected), str(summary))
        found = validated(_Summary, values, str(summary))
        if list(found.shape) != list(shape):
            raise InputError(
                f"{summary}: found a measurement of labels of shape {tuple(found.shape)},"
                f" expected {tuple(shape)} as the output"
            )
        intervals = {row.value: row.fraction_95 for row in found.classes if row.fraction_95 is not None}
        cells, tortuosity = found.intervals.cells, found.tortuosity
        tested = None if found.thickness is None else found.thickness.tested[1]
    sizes, unit = read_sizes(table) if summary is None or table.exists() else ((), "")
    thick = table.parent / THICKNESS
    thickness, length = read_thickness(thick) if summary is not None and thick.exists() else ((), "")
    return Measurement(str(place), intervals, cells, sizes, unit, thickness, length, tested, tortuosity)


def read_sizes(table: Path) -> tuple[tuple[Sizes, ...], str]:
    """Return the diameters in a table of components by class, and their unit.

    Raises
    ------
    InputError
        It is no such table, or a value is no number.
    """
    text = read_file(table, MOST_BYTES, "a table of components of hrvol measure (CSV)")
    try:
        rows = csv.reader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline=""))
        header = next(rows, [])
        column = next((n for n, name in enumerate(header) if name.startswith(_DIAMETER)), None)
        if column is None or "class" not in header:
            raise InputError(
                f"{table}: found no columns 'class' and 'equivalent diameter [...]',"
                " expected the table of components of hrvol measure"
            )
        class_column = header.index("class")
        found: dict[str, list[float]] = {}
        for row in rows:
            found.setdefault(row[class_column], []).append(float(row[column]))
    except (IndexError, ValueError, csv.Error) as error:
        raise InputError(f"{table}: found {printable(str(error), 100)}, expected rows of a table") from None
    unit = printable(header[column].removeprefix(_DIAMETER).rstrip("]"), 50)
    sizes = []
    for name, values in found.items():
        diameters = np.sort(np.array(values, np.float64))
        if not (diameters[0] > 0 and math.isfinite(diameters[-1])):
            raise InputError(f"{table}: found a diameter that is no number above 0, expected one")
        sizes.append(Sizes(printable(name, 200), diameters))
    return tuple(sorted(sizes, key=lambda one: -len(one.diameters))), unit


def distribution(sizes: Sequence[Sizes]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return bins of diameters, evenly spaced on a logarithmic axis, and the share of each class in them."""
    low = min(float(one.diameters[0]) for one in sizes)
    high = max(float(one.diameters[-1]) for one in sizes)
    if high <= low * 1.001:  # components of one size
        low, high = low / 1.5, high * 1.5
    edges = np.geomspace(low * (1 - 1e-9), high * (1 + 1e-9), BINS + 1)
    return edges, [np.histogram(one.diameters, edges)[0] / len(one.diameters) for one in sizes]
