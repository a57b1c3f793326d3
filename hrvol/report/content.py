"""Make the tables and texts of a report from what was found of an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hrvol.classes import ClassInfo
from hrvol.figures.charts import Curve, dash_of, draw_curves, draw_sizes
from hrvol.progress import count
from hrvol.report.facts import Facts
from hrvol.report.made import moment
from hrvol.report.measured import Measurement, distribution
from hrvol.report.planes import PlaneDoubt, PlaneShares
from hrvol.text import printable
from hrvol.volume.units import SYMBOLS

_MOST_ROWS = 50

_MOST_CURVES = 12

_MOST_VALUES = 100  # classes whose fractions along z are among the figures


@dataclass(frozen=True)
class PageTable:
    """A table of a page: the first column names the rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A section of a page: what it needs of a text, charts, tables and key."""

    text: str = ""
    note: str = ""
    chart: str = ""
    table: PageTable | None = None
    key: Sequence[Mapping[str, Any]] = ()
    values: Any = field(default=None, repr=False)


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share as per cent; a dash where it is unknown."""
    return "-" if share is None or share != share else f"{100 * share:.{digits}f} %"


def short(number: float) -> str:
    """Return a number with four digits, or a whole one from a thousand on."""
    return f"{number:,.0f}" if 1e3 <= number < 1e12 else f"{number:.4g}"


def symbol(unit: str | None) -> str:
    """Return the symbol of a unit of length; ``voxels`` without one."""
    return SYMBOLS.get(unit or "", printable(unit, 40)) if unit else "voxels"


def summary_text(facts: Facts) -> str:
    """Return one line: voxels, classes, how much is done."""
    voxels, classes = facts.classes.voxels, len(facts.classes.classes)
    finest = facts.labels.finest
    shape = " x ".join(map(str, finest.shape[-finest.ndim :]))
    done, total = facts.status["done"], facts.status["total"]
    share = (
        "complete" if facts.complete else f"{done} of {total} blocks done ({100 * done // max(total, 1)} %)"
    )
    when = (
        "" if facts.totals is None or not facts.totals.last else f"; last block {moment(facts.totals.last)}"
    )
    kind = "voxels" if finest.ndim == 3 else "pixels"
    several = "" if classes == 1 else "es"
    return f"{count(voxels)} labelled {kind} of {shape}, {classes} class{several}, {share}{when}."


def warnings_of(facts: Facts) -> list[str]:
    """Return what a reader has to know first."""
    state, found = facts.status["state"], []
    if not facts.complete:
        words = {
            "running": "a run is writing it now",
            "stopped": "the run was stopped and can be resumed",
            "lost": "the run has ended without notice and can be resumed",
            "failed": "blocks failed",
        }
        found.append(
            f"The output is not complete: {facts.status['done']} of {facts.status['total']} blocks are done,"
            f" {words.get(state, state)}. Pictures and figures are those of the finished blocks."
        )
    return found


def fraction_table(
    facts: Facts, shares: PlaneShares | None, measurement: Measurement | None
) -> tuple[PageTable, list[dict[str, Any]]]:
    """Return the fractions of classes with intervals, as a table and as JSON values."""
    volumes = facts.classes
    power = "³" if volumes.ndim == 3 else "²"
    unit = volumes.unit
    of_class, origin = _intervals(facts, shares, measurement)
    rows, values = [], []
    for row in volumes.classes:
        ends = of_class.get(row.info.value)
        shown = "-" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f} %"
        size = [short(row.volume)] if unit is not None else []
        interval = [shown] if of_class else []
        rows.append([row.info.name, percent(row.fraction), *interval, f"{row.voxels:,}", *size])
        values.append(
            {
                "class": row.info.name,
                "value": row.info.value,
                "colour": list(row.info.colour),
                "voxels": row.voxels,
                "fraction": row.fraction,
                "fraction_95": None if ends is None else list(ends),
                "volume" if volumes.ndim == 3 else "area": row.volume if unit is not None else None,
                "unit": None if unit is None else f"{unit}^{volumes.ndim}",
            }
        )
    kind = ("voxels", "volume") if volumes.ndim == 3 else ("pixels", "area")
    columns = ["class", "fraction", *(["95 % interval"] if of_class else []), kind[0]]
    columns += [f"{kind[1]} [{symbol(unit)}{power}]"] if unit is not None else []
    notes = [origin]
    if unit is None:
        notes.append(f"No voxel size is known: sizes are in {kind[0]}.")
    return PageTable(
        f"Fractions of the labelled {kind[0]}, counted block by block.", columns, rows, tuple(notes)
    ), values


def _intervals(
    facts: Facts, shares: PlaneShares | None, measurement: Measurement | None
) -> tuple[Mapping[int, tuple[float, float]], str]:
    """Return the intervals of fractions by value of the class, and how they were made."""
    about = (
        "They say how much a fraction depends on where the sample was taken, not whether labels are right."
    )
    if measurement is not None and measurement.intervals:
        return (
            measurement.intervals,
            f"Intervals: bootstrap over {measurement.cells} cells, of the measurement. {about}",
        )
    if shares is not None and shares.intervals is not None and facts.complete:
        infos = [row.info for row in facts.classes.classes]
        ends = {
            info.value: (float(low), float(high))
            for info, (low, high) in zip(infos, shares.intervals, strict=True)
        }
        cells, side = shares.cells
        return ends, f"Intervals: bootstrap over {cells} cells of {side} voxels a side. {about}"
    if not facts.complete:
        return {}, "No intervals: the output is not complete."
    if shares is not None and shares.level == 0:
        return {}, "No intervals: the volume is too small for them."
    return {}, "No intervals: they need every voxel; measure the labels (hrvol measure) and give the result."


def plane_section(facts: Facts, shares: PlaneShares | None) -> Section | None:
    """Return fractions along z as a chart; ``None`` for images and where they were not counted."""
    if shares is None or len(shares.positions) < 2:
        return None
    positions, unit = _along_z(facts, shares.positions)
    every = list(enumerate(facts.classes.classes))
    most = sorted(every, key=lambda one: -one[1].voxels)[:_MOST_CURVES]
    shown = [(number, row) for number, row in every if (number, row) in most]
    curves = [Curve(shares.fractions[:, number], row.info.colour) for number, row in shown]
    key = [
        {"name": row.info.name, "colour": row.info.colour, "dash": dash_of(place)}
        for place, (_, row) in enumerate(shown)
    ]
    label = "Fraction of each class in the planes along z"
    chart = draw_curves("planes", label, positions, curves, (f"z [{unit}]", "fraction"), percent=True)
    note = "Fraction of each class in each plane."
    if shares.level:
        note = (
            f"Fraction of each class in each plane, at resolution level {shares.level}, where a voxel has the"
            " most frequent class of the finer ones: structures thinner than its voxels count less."
        )
    if len(every) > len(shown):
        note += f" The {len(shown)} most frequent of {len(every)} classes are shown."
    kept = every if len(every) <= _MOST_VALUES else shown
    values = {
        "level": shares.level,
        "plane": shares.positions,
        "fractions": {row.info.name: shares.fractions[:, number] for number, row in kept},
    }
    return Section(note=note, chart=chart, key=key, values=values)


def doubt_section(facts: Facts, doubt: PlaneDoubt, highest: Sequence[int]) -> Section:
    """Return the mean uncertainty along z, and the planes to annotate next."""
    positions, unit = _along_z(facts, doubt.positions)
    marks = [float(np.interp(plane, doubt.positions, positions)) for plane in highest]
    chart = draw_curves(
        "doubt",
        "Mean uncertainty in the planes along z; vertical lines at the highest",
        positions,
        [Curve(doubt.means)],
        (f"z [{unit}]", "mean uncertainty"),
        percent=True,
        marks=marks if len(doubt.positions) > 1 else (),
    )
    of_plane = [float(np.interp(plane, doubt.positions, doubt.means)) for plane in highest]
    rows = [[f"z = {plane}", percent(mean, 1)] for plane, mean in zip(highest, of_plane, strict=True)]
    level = f", at resolution level {doubt.level}" if doubt.level else ""
    return Section(
        text=(
            f"The mean uncertainty is {percent(doubt.mean, 1)} (entropy of the probabilities: 0 where they"
            " are certain, 100 % where all classes are equally likely)."
        ),
        note=f"Mean uncertainty in each plane{level}. Lines: the planes of the table.",
        chart=chart,
        table=PageTable("Annotate these planes next: the highest mean uncertainty", ["plane", "mean"], rows),
        values={
            "mean": doubt.mean,
            "level": doubt.level,
            "highest": [{"plane": p, "mean": m} for p, m in zip(highest, of_plane, strict=True)],
            "plane": doubt.positions,
            "means": doubt.means,
        },
    )


def size_section(measurement: Measurement, classes: Sequence[ClassInfo]) -> Section | None:
    """Return distributions of sizes of components; ``None`` without any."""
    sizes = measurement.sizes[:_MOST_ROWS]
    if not sizes:
        return None
    colours = {info.name: info.colour for info in classes}
    unit = symbol(measurement.unit if measurement.unit != "voxel" else None)
    shown = sizes[:8]
    edges, shares = distribution(shown)
    of_each = [colours.get(one.name, (128, 128, 128)) for one in shown]
    label = "Distribution of the equivalent diameters of components of each class"
    chart = draw_sizes(
        "sizes", label, edges, shares, of_each, (f"equivalent diameter [{unit}]", "share of components")
    )
    key = [
        {"name": one.name, "colour": colour, "dash": dash_of(number)}
        for number, (one, colour) in enumerate(zip(shown, of_each, strict=True))
    ]
    values = [one.values() for one in sizes]
    names = ("d10", "d50", "d90", "d50_by_volume", "largest")
    rows = [[row["class"], f"{row['components']:,}", *(short(row[name]) for name in names)] for row in values]
    columns = ["class", "components", "D10", "D50", "D90", "D50 by volume", "largest"]
    table = PageTable(f"Equivalent diameters of connected components [{unit}]", columns, rows)
    note = "Share of the components of each class by the diameter of the sphere of their volume."
    return Section(
        note=note, chart=chart, table=table, key=key, values={"unit": measurement.unit, "classes": values}
    )


def _along_z(facts: Facts, planes: Any) -> tuple[Any, str]:
    """Return planes as positions along z in units of length, and the unit's symbol."""
    finest = facts.labels.finest
    if facts.classes.unit is None or finest.unit not in SYMBOLS:
        return planes, "plane"
    return planes * finest.voxel_size[0], symbol(finest.unit)
