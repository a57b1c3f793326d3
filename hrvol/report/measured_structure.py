"""Read local thickness and tortuosity from a measurement that ``hrvol measure`` wrote."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrvol.errors import InputError
from hrvol.reading.bounded import read_file
from hrvol.reading.schema import Schema
from hrvol.text import printable

THICKNESS = "thickness.csv"

MOST_BYTES = 2**25

_MOST_VOXELS = 100_000  # of a thickness

_VOXELS = "thickness [voxel]"

_Share = Annotated[float, Field(ge=0, le=1)]

_Above0 = Annotated[float, Field(gt=0, le=1e12)]


class DiffusionRow(Schema):
    """The tortuosity of a class along an axis, as ``summary.json`` has it."""

    name: Annotated[str, Field(max_length=400, alias="class")]
    axis: Annotated[str, Field(pattern="^[zyx]$")]
    status: Annotated[str, Field(max_length=100)]
    factor: Annotated[_Above0 | None, Field(alias="tortuosity factor")]
    diffusivity: Annotated[Annotated[float, Field(ge=0, le=1e12)] | None, Field(alias="relative diffusivity")]
    fraction: _Share


class DiffusionRows(Schema):
    """Tortuosities of a measurement."""

    part: Annotated[str, Field(max_length=100)]
    box: Annotated[
        dict[str, tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]],
        Field(max_length=3, alias="box [voxel]"),
    ]
    results: Annotated[list[DiffusionRow], Field(max_length=400)]


class ThicknessRange(Schema):
    """The diameters that a measurement of thickness tested."""

    tested: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=100_000)]],
        Field(alias="tested [voxel]"),
    ]


@dataclass(frozen=True, eq=False)
class ThicknessShares:
    """Volume of a class by its local thickness.

    Attributes
    ----------
    name
        Of the class.
    diameters
        ``(n,)`` in voxels, ascending in steps of 1.
    shares
        ``(n,)`` of its volume, in 0..1.
    side
        Length of a voxel.
    """

    name: str
    diameters: NDArray[np.int64]
    shares: NDArray[np.float64]
    side: float

    def values(self) -> dict[str, Any]:
        """Return figures as JSON values: mean and percentiles by volume, in units of length."""
        lengths = self.diameters * self.side
        below = np.cumsum(self.shares)
        d10, d50, d90 = (
            float(lengths[min(int(np.searchsorted(below, part * below[-1] * (1 - 1e-12))), len(lengths) - 1)])
            for part in (0.1, 0.5, 0.9)
        )
        return {
            "class": self.name,
            "mean": float(self.shares @ lengths / below[-1]),
            "d10": d10,
            "d50": d50,
            "d90": d90,
            "largest": float(lengths[-1]),
        }


def read_thickness(table: Path) -> tuple[tuple[ThicknessShares, ...], str]:
    """Return the thickness of classes, and the unit of lengths.

    Raises
    ------
    InputError
        It is no such table, or a value is no number that can be.
    """
    text = read_file(table, MOST_BYTES, "a table of thickness of hrvol measure (CSV)")
    found: dict[str, list[tuple[int, float]]] = {}
    side, unit = 1.0, "voxel"
    try:
        rows = csv.DictReader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline=""))
        header = list(rows.fieldnames or ())
        share = next((name for name in ("volume share", "area share") if name in header), None)
        if "class" not in header or _VOXELS not in header or share is None:
            raise InputError(
                f"{table}: found no columns 'class', '{_VOXELS}' and 'volume share', expected the table of"
                " thickness of hrvol measure"
            )
        length = next(
            (name for name in header if name.startswith("thickness [") and name != _VOXELS), _VOXELS
        )
        for row in rows:
            diameter = int(row[_VOXELS])
            found.setdefault(row["class"], []).append((diameter, float(row[share])))
            side = float(row[length]) / diameter
        unit = printable(length.removeprefix("thickness [").rstrip("]"), 50)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, csv.Error) as error:
        raise InputError(f"{table}: found {printable(str(error), 100)}, expected rows of a table") from None
    every = []
    for name, pairs in found.items():
        diameters = np.array([diameter for diameter, _ in pairs], np.int64)
        shares = np.array([value for _, value in pairs])
        steps = bool((np.diff(diameters) == 1).all()) and 0 < diameters[0] <= diameters[-1] <= _MOST_VOXELS
        if not (steps and (shares >= 0).all() and 0 < shares.sum() < 1.01 and 0 < side < math.inf):
            raise InputError(
                f"{table}: found rows of '{printable(name, 100)}' that are no distribution, expected shares"
                " by ascending thickness"
            )
        every.append(ThicknessShares(printable(name, 200), diameters, shares, side))
    return tuple(every), unit
