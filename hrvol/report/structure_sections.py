"""Make the sections of a report about local thickness and tortuosity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrvol.classes import ClassInfo
from hrvol.figures.charts import dash_of, draw_sizes
from hrvol.report.content import PageTable, Section, percent, short, symbol
from hrvol.report.measured import Measurement
from hrvol.text import printable

_MOST_ROWS = 50

_MOST_CURVES = 8


def thickness_section(measurement: Measurement, classes: Sequence[ClassInfo]) -> Section | None:
    """Return distributions of the local thickness; ``None`` without any."""
    every = measurement.thickness[:_MOST_ROWS]
    if not every:
        return None
    colours = {info.name: info.colour for info in classes}
    unit = symbol(measurement.thickness_unit if measurement.thickness_unit != "voxel" else None)
    shown = every[:_MOST_CURVES]
    # In steps of two voxels: few balls of an odd number of voxels fit where walls follow the voxels.
    low = min(int(one.diameters[0]) for one in shown) // 2
    high = max(int(one.diameters[-1]) for one in shown) // 2
    shares = [
        np.bincount(one.diameters // 2 - low, one.shares, minlength=high + 1 - low).astype(np.float64)
        for one in shown
    ]
    of_each = [colours.get(one.name, (128, 128, 128)) for one in shown]
    chart = draw_sizes(
        "thickness",
        "Distribution of the local thickness of each class, by volume",
        np.arange(2 * low, 2 * high + 3, 2, dtype=np.float64) * shown[0].side,
        shares,
        of_each,
        (f"local thickness [{unit}]", "share of volume"),
        logarithmic=False,
    )
    key = [
        {"name": one.name, "colour": colour, "dash": dash_of(number)}
        for number, (one, colour) in enumerate(zip(shown, of_each, strict=True))
    ]
    values_of = [one.values() for one in every]
    names = ("mean", "d10", "d50", "d90", "largest")
    rows = [[row["class"], *(short(row[name]) for name in names)] for row in values_of]
    columns = ["class", "mean", "D10", "D50", "D90", "largest"]
    table = PageTable(f"Local thickness by volume [{unit}]", columns, rows)
    note = "Share of the volume of each class by the diameter of the largest ball inside that holds a voxel."
    most = measurement.thickness_tested
    if most is not None and any(int(one.diameters[-1]) >= most for one in every):
        note += f" Balls of more than {most} voxels were not tested: the last step has all thicker voxels."
    return Section(
        note=note,
        chart=chart,
        table=table,
        key=key,
        values={"unit": measurement.thickness_unit, "classes": values_of},
    )


def tortuosity_section(measurement: Measurement) -> Section | None:
    """Return the tortuosity of classes along axes; ``None`` without any."""
    found = measurement.tortuosity
    if found is None or not found.results:
        return None
    rows, values = [], []
    for row in found.results[:_MOST_ROWS]:
        numbers = ["-" if value is None else short(value) for value in (row.factor, row.diffusivity)]
        name, status = printable(row.name, 200), printable(row.status, 100)
        rows.append([name, row.axis, *numbers, percent(row.fraction), status])
        values.append(
            {
                "class": name,
                "axis": row.axis,
                "status": status,
                "tortuosity_factor": row.factor,
                "relative_diffusivity": row.diffusivity,
                "fraction": row.fraction,
            }
        )
    columns = ["class", "axis", "tortuosity factor", "relative diffusivity", "fraction", "status"]
    place = ", ".join(f"{axis} {low} to {high}" for axis, (low, high) in found.box.items())
    part, place = printable(found.part, 100), printable(place, 100)
    note = f"Diffusion through the {part} ({place} voxels), each class alone."
    table = PageTable("Tortuosity of each class along axes", columns, rows)
    return Section(note=note, table=table, values={"box": dict(found.box), "results": values})
