"""Write a report about an output: an HTML file, and its figures as JSON and CSV beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.errors import InputError, UsageError
from hrvol.files import FileKind, atomic_write, check_file, json_text
from hrvol.progress import ProgressCallback
from hrvol.report.assemble import FORMAT, assemble
from hrvol.report.facts import Facts, read_facts
from hrvol.report.measured import read_measurement
from hrvol.report.options import ReportOptions
from hrvol.report.page import BEGINNING, GENERATOR, html_page
from hrvol.text import listed, printable
from hrvol.volume.guard import keep_inputs
from hrvol.volume.storage.location import Location

MOST_BYTES = 8_000_000
"""Most bytes of a page."""

_HEAD = 2000  # bytes in which a page names what made it


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
        An output of :func:`hrvol.segment_volume`, :func:`hrvol.cluster_volume` or :func:`hrvol.clean_labels`,
        path or URL.
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
    content, values = assemble(facts, options, measurement, storage_options, progress)
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
