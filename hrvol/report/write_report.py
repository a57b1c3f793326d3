"""Write a report about an output: an HTML file, and its figures as JSON and CSV beside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.errors import InputError, UsageError
from hrvol.figures.charts import dash_of
from hrvol.files import SOFTWARE, FileKind, atomic_write, check_file, json_text
from hrvol.progress import ProgressCallback
from hrvol.report.agreement import accuracy_section, cluster_section, seams_text, student_section
from hrvol.report.content import (
    PageTable,
    Section,
    doubt_section,
    fraction_table,
    plane_section,
    size_section,
    summary_text,
    warnings_of,
)
from hrvol.report.facts import Facts, read_facts
from hrvol.report.inputs import find_grey, find_model
from hrvol.report.made import citation, command, made_rows, recipe_text, time_rows
from hrvol.report.measured import Measurement, read_measurement
from hrvol.report.page import BEGINNING, GENERATOR, html_page
from hrvol.report.planes import average_planes, count_planes
from hrvol.report.sections import (
    Scene,
    doubtful_plane,
    montage_of,
    orthogonal,
    slice_of,
    slider_positions,
    surface_classes,
    surface_of,
)
from hrvol.report.view import View
from hrvol.text import is_name, listed, printable
from hrvol.volume.guard import keep_inputs
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume

FORMAT = "hrvol report"

MOST_BYTES = 8_000_000
"""Most bytes of a page."""

ANNOTATE = 5
"""Planes that are suggested."""

_HEAD = 2000  # bytes in which a page names what made it

_TITLE = 200  # characters


def _is_report(file: Path) -> bool:
    """Whether the head of an HTML file names hrvol as what made it."""
    with file.open("rb") as stream:
        return GENERATOR.encode() in stream.read(_HEAD)


REPORT = FileKind("report of hrvol", (BEGINNING.encode(),), written_by_us=_is_report)

FIGURES = FileKind("figures of a report", (f'{{\n  "format": "{FORMAT}"'.encode(),))

TABLE = FileKind("table of a report", (b"class,value,voxels,fraction,",))


@dataclass(frozen=True)
class ReportFiles:
    """A report that was written.

    Attributes
    ----------
    page, figures, table
        The HTML file, its figures as JSON, and the fractions of classes as CSV.
    values
        The figures, JSON values.
    """

    page: Path
    figures: Path
    table: Path
    values: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows besides what the output records.

    Attributes
    ----------
    volume
        The grey volume: path, URL or array; ``None``: the recorded one, if it is there and unchanged.
    model
        File of the model; ``None``: the recorded one, if it is there and unchanged, or the output's copy.
    measurement
        Folder or file of ``hrvol measure``.
    truth
        Ground truth.
    surfaces
        Names or numbers of classes whose surfaces are drawn; empty: the rarest.
    title
        Of the page; ``None``: the name of the output.
    seed
        Of the draws of intervals.
    """

    volume: Any = None
    model: str | Path | None = None
    measurement: str | Path | None = None
    truth: Any = None
    surfaces: tuple[str, ...] = ()
    title: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.title is not None and not (0 < len(self.title) <= _TITLE and is_name(self.title)):
            raise UsageError(f"title: found {printable(self.title, 60)!r}, expected 1 to {_TITLE} characters")


def write_report(
    out: str | Path | Location,
    path: str | Path,
    *,
    volume: Any = None,
    model: str | Path | None = None,
    measurement: str | Path | None = None,
    truth: Any = None,
    surfaces: Sequence[str] = (),
    title: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ReportFiles:
    """Write a report about an output, complete or not, as one HTML file that needs no network.

    Pictures are read from the coarser levels of the output and of its input. The same output and arguments
    give the same bytes.

    Parameters
    ----------
    out
        An output of :func:`hrvol.segment_volume` or :func:`hrvol.cluster_volume`, path or URL.
    path
        ``*.html`` to write. Beside it ``*.json`` gets the figures and ``*-fractions.csv`` the fractions of
        classes.
    volume
        The grey volume, of the shape of the labels: path, URL or array. ``None``: the input that the output
        records, if it is a file on this machine and unchanged.
    model
        The model's file, for what a student records of its teacher. ``None``: the file that the output
        records, if it is unchanged, or the copy in the output.
    measurement
        A folder that ``hrvol measure`` wrote, its ``summary.json``, or a table of components: for intervals
        and sizes.
    truth
        Ground truth, see :func:`hrvol.evaluate_volumes`: for confusion and IoU. Classes that were found
        without strokes are matched first.
    surfaces
        Names or numbers of classes whose surfaces are drawn in 3D; empty: the rarest.
    title
        Of the page; ``None``: the name of the output.
    seed
        Of the draws of the intervals of fractions.
    overwrite
        Replace an earlier report.
    storage_options
        Keywords of the fsspec file system of URLs.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    ReportFiles
        The files and the figures.

    Raises
    ------
    UsageError
        The path, the title or a class cannot be used.
    InputError
        The output, the volume, the truth or the measurement cannot be read or do not belong together.
    OutputExistsError
        There is a file.
    """
    options = ReportOptions(volume, model, measurement, truth, tuple(surfaces), title, seed)
    return report(out, path, options, overwrite, storage_options, progress)


def report(
    out: str | Path | Location,
    path: str | Path,
    options: ReportOptions,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ReportFiles:
    """Write a report as :func:`write_report` does, with its keywords as one object."""
    page, figures, table = _check_paths(path, overwrite)
    location = Location.of(out, storage_options)
    for file in (page, figures, table):
        keep_inputs(file, location, options.volume, options.model, options.measurement, options.truth)
    facts = read_facts(location)
    shape = facts.labels.finest.shape[-facts.labels.finest.ndim :]
    measurement = None if options.measurement is None else read_measurement(options.measurement, shape)
    _check_surfaces(facts, options.surfaces)
    content, values = _content(facts, options, measurement, storage_options, progress)
    beside = f"{figures.name}, {table.name}"
    text = html_page(content | {"beside": beside})
    if len(text.encode("utf-8")) > MOST_BYTES:
        raise InputError(f"{location}: found a page of {len(text):,} bytes, expected at most {MOST_BYTES:,}")
    _write(table, _csv(values["classes"]))
    _write(figures, json_text(values) + "\n")
    _write(page, text)
    return ReportFiles(page, figures, table, values)


def _check_paths(path: str | Path, overwrite: bool) -> tuple[Path, Path, Path]:
    """Return the files to write; raise an error if one of them cannot be."""
    page = Path(path)
    if page.suffix.lower() != ".html":
        raise UsageError(f"{page}: found {page.suffix or 'no suffix'}, expected .html")
    figures, table = page.with_suffix(".json"), page.with_name(f"{page.stem}-fractions.csv")
    for file, kind in ((page, REPORT), (figures, FIGURES), (table, TABLE)):
        check_file(file, kind, overwrite)
    return page, figures, table


def _check_surfaces(facts: Facts, chosen: Sequence[str]) -> None:
    names = {row.info.name for row in facts.classes.classes}
    numbers = {str(row.info.value) for row in facts.classes.classes}
    for name in chosen:
        if name not in names | numbers:
            raise UsageError(
                f"surfaces: found {printable(name, 100)!r}, expected one of {listed(sorted(names))}"
            )


def _content(
    facts: Facts,
    options: ReportOptions,
    measurement: Measurement | None,
    storage_options: Mapping[str, Any] | None,
    progress: ProgressCallback | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the page shows, and the same figures as JSON values."""
    grey, no_grey = find_grey(facts, options.volume, storage_options)
    scene = _scene(facts, grey)
    infos = scene.classes
    accuracy = (
        None if options.truth is None else accuracy_section(facts, options.truth, storage_options, progress)
    )
    shares = count_planes(scene.labels, infos, options.seed, progress)
    table, class_values = fraction_table(facts, shares, measurement)
    planes = plane_section(facts, shares)
    sizes = None if measurement is None else size_section(measurement, infos)
    drawn = surface_classes(infos, [row.fraction for row in facts.classes.classes], options.surfaces)
    surface = surface_of(scene, drawn)
    at = slider_positions(scene)
    doubt, worst = _doubt(facts, scene, progress)
    student = student_section(facts, find_model(facts, options.model))
    clusters = cluster_section(facts)
    seams = seams_text(facts)
    made, times = made_rows(facts), time_rows(facts)
    title = options.title or printable(Path(str(facts.location).rstrip("/")).name, _TITLE)
    contents = [
        ("slices", "Slices"),
        ("fractions", "Fractions"),
        *([("sizes", "Sizes")] if sizes else []),
        *([("uncertainty", "Uncertainty")] if doubt else []),
        *([("accuracy", "Accuracy")] if accuracy else []),
        *([("clusters", "Classes found")] if clusters else []),
        *([("student", "Student")] if student else []),
        *([("seams", "Seams")] if seams else []),
        ("made", "How it was made"),
        ("cite", "How to cite"),
    ]
    content = {
        "title": title,
        "summary": summary_text(facts),
        "warnings": warnings_of(facts),
        "contents": contents,
        "has_grey": grey is not None,
        "no_grey": no_grey,
        "classes": [
            {"name": info.name, "colour": info.colour, "dash": dash_of(number)}
            for number, info in enumerate(infos)
        ],
        "orthogonal": orthogonal(scene),
        "slider": [slice_of(scene, 0, position) for position in at] if len(at) > 1 else [],
        "montage": montage_of(scene, at) if len(at) > 1 else None,
        "surface": surface,
        "surface_note": "" if options.surfaces else "The rarest classes are drawn.",
        "fractions": table,
        "plane_chart": "" if planes is None else planes.chart,
        "plane_note": "" if planes is None else planes.note,
        "sizes": sizes,
        "doubt": None if doubt is None else vars(doubt) | {"picture": worst},
        "accuracy": accuracy,
        "clusters": clusters,
        "student": student,
        "seams": seams,
        "made": made,
        "times": times,
        "failures": _failures(facts),
        "command": command(facts),
        "repeat_note": "recipe.yaml is the recipe below." if facts.clustered else "",
        "recipe": recipe_text(facts),
        "citation": citation(facts),
        "location": printable(str(facts.location), 400),
    }
    values = {
        "format": FORMAT,
        "software": SOFTWARE,
        "output": str(facts.location),
        "title": title,
        "status": {key: facts.status[key] for key in ("state", "total", "done", "failed", "left", "voxels")},
        "classes": class_values,
        "planes": None if planes is None else planes.values,
        "sizes": None if sizes is None else sizes.values,
        "uncertainty": None if doubt is None else doubt.values,
        "accuracy": None if accuracy is None else accuracy["values"],
        "clusters": None if clusters is None else clusters["values"],
        "student": None if student is None else student["values"],
        "seams": None if facts.totals is None else vars(facts.totals.seams),
        "made": dict(made),
        "times": dict(times),
        "failures": facts.status["failures"],
        "command": content["command"],
        "recipe": facts.recipe.to_dict(),
    }
    return content, values


def _scene(facts: Facts, grey: tuple[Volume, ...] | None) -> Scene:
    """Return what is drawn."""
    labels = View(facts.labels.levels, facts.shown)
    infos = tuple(row.info for row in facts.classes.classes)
    if grey is None:
        return Scene(labels, None, infos, (0.0, 1.0))
    view = View(grey, facts.shown, averaged=True)
    recorded = facts.attributes.get("window")
    if (
        isinstance(recorded, list)
        and len(recorded) == 2
        and all(isinstance(v, int | float) for v in recorded)
    ):
        low, high = (float(value) for value in recorded)
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return Scene(labels, view, infos, (low, high))
    middle = view.plane(0, (facts.shown[0].start + facts.shown[0].stop) // 2)
    low, high = (float(value) for value in np.nanpercentile(middle, [0.5, 99.5]))
    return Scene(labels, view, infos, (low, high))


def _doubt(facts: Facts, scene: Scene, progress: ProgressCallback | None) -> tuple[Section | None, Any]:
    """Return the section about uncertainty and the picture of the worst plane, where the output has it."""
    if facts.uncertainty is None:
        return None, None
    view = View(facts.uncertainty.levels, facts.shown)
    doubt = average_planes(view, scene.labels, progress)
    if doubt is None:
        return None, None
    highest = doubt.highest(ANNOTATE)
    return doubt_section(facts, doubt, highest), doubtful_plane(scene, view, highest[0])


def _failures(facts: Facts) -> PageTable | None:
    found = facts.status["failures"]
    if not found:
        return None
    rows = [[str(tuple(one["block"])), printable(str(one["reason"]), 400)] for one in found[:100]]
    more = f" (the first 100 of {len(found)})" if len(found) > 100 else ""
    return PageTable(f"Blocks that failed{more}", ["block (z, y, x)", "reason"], rows)


def _csv(classes: Sequence[Mapping[str, Any]]) -> str:
    """Return the fractions of classes as CSV; what is unknown is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["class", "value", "voxels", "fraction", "low (95 %)", "high (95 %)", "size", "unit"])
    for row in classes:
        ends = row["fraction_95"] or ("", "")
        size = row.get("volume", row.get("area"))
        values = [row["class"], row["value"], row["voxels"], row["fraction"], *ends, size, row["unit"]]
        writer.writerow("" if value is None else value for value in values)
    return stream.getvalue()


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8")
