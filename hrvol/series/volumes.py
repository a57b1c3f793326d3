"""Find the volumes of a workflow: paths, globs and tables become named volumes."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hrvol.errors import InputError, WorkflowError
from hrvol.reading.bounded import read_file
from hrvol.series.records import FOLDER as RECORDS
from hrvol.series.spec import VolumeSpec
from hrvol.series.templates import TemplateError, filled, placeholders
from hrvol.series.workflow_file import Workflow
from hrvol.text import is_name, listed, printable

_TABLE_BYTES = 2**24

_MOST = 100_000  # volumes

_SUFFIXES = (".ome.zarr", ".ome.tiff", ".ome.tif", ".nii.gz", ".zarr.zip")

_INSIDE = "::"
"""Between a file and a place inside of it, as in ``scan.h5::/entry/data``."""

_COLUMNS = ("path", "name", "strokes", "truth")
"""Columns of a table that are keys; others are placeholders."""


@dataclass(frozen=True)
class SeriesVolume:
    """One volume of a workflow.

    Attributes
    ----------
    name
        Unique name.
    path
        Path or URL from the current folder.
    values
        Values of placeholders.
    strokes, truth
        Of this volume alone; ``None``: by the template of a step.
    spec
        What its section of the file overrides.
    section
        Index of its section in the file.
    """

    name: str
    path: str
    values: Mapping[str, str]
    strokes: str | None
    truth: str | None
    spec: VolumeSpec = field(repr=False)
    section: int = 0


def stem_of(path: str) -> str:
    """Return the name of a volume's file without folder and suffix."""
    name = path.partition(_INSIDE)[0].rstrip("/").rpartition("/")[2]
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def find_volumes(workflow: Workflow) -> tuple[SeriesVolume, ...]:
    """Return the volumes of a workflow, those of a glob in natural order.

    Raises
    ------
    WorkflowError
        A glob or a table has no volumes, a table is damaged, or two volumes have one name.
    """
    volumes: dict[str, SeriesVolume] = {}
    for section, spec in enumerate(workflow.spec.volumes):
        for volume in _of_section(workflow, section, spec):
            other = volumes.setdefault(volume.name, volume)
            if other is not volume:
                raise workflow.error(
                    ("volumes", section),
                    f"found two volumes named {volume.name} ({other.path}, {volume.path}), expected different"
                    ' names, such as name: "{folder}-{stem}"',
                )
            if len(volumes) > _MOST:
                raise workflow.error(("volumes", section), f"found more than {_MOST:,} volumes")
    if not volumes:
        raise workflow.error(("volumes",), "found no volumes, expected some")
    return tuple(volumes.values())


def _of_section(workflow: Workflow, section: int, spec: VolumeSpec) -> Iterator[SeriesVolume]:
    keys = ("volumes", section)
    try:
        if spec.path.lower().endswith(".csv"):
            table = Path(workflow.resolved(spec.path))
            for row in _rows(table):
                merged = {k: row[k] for k in _COLUMNS if row.get(k)}
                values = {**spec.values, **{k: v for k, v in row.items() if k not in _COLUMNS}}
                yield _volume(
                    workflow,
                    spec.model_copy(update={**merged, "values": values}),
                    workflow.resolved(row["path"], table.parent),
                    section,
                    table.parent,
                )
            return
        for path in _expanded(workflow, spec, keys):
            yield _volume(workflow, spec, path, section, None)
    except TemplateError as error:
        raise workflow.error((*keys, "name"), str(error)) from None


def _volume(workflow: Workflow, spec: VolumeSpec, path: str, section: int, base: Path | None) -> SeriesVolume:
    stem = stem_of(path)
    parent = path.partition(_INSIDE)[0].rstrip("/").rpartition("/")[0]
    values = {"name": stem, "stem": stem, "folder": parent.rpartition("/")[2] or ".", **spec.values}
    values["name"] = name = filled(spec.name, values) if spec.name else stem
    if not name or name.startswith((".", "-")) or "/" in name or not is_name(name) or len(name) > 200:
        raise workflow.error(
            ("volumes", section),
            f"found the name {printable(name, 60)!r} of {printable(path)}, expected one that a file can have",
        )

    def own(text: str | None) -> str | None:
        return None if text is None else workflow.resolved(filled(text, values), base)

    return SeriesVolume(name, path, values, own(spec.strokes), own(spec.truth), spec, section)


def _expanded(workflow: Workflow, spec: VolumeSpec, keys: tuple[str, int]) -> list[str]:
    """Return the paths of a section: those that a glob finds, or the one that it names."""
    path = workflow.resolved(spec.path)
    literal = spec.name is not None and not placeholders(spec.name)
    if literal or "://" in path or not glob.has_magic(spec.path) or os.path.lexists(path):
        return [path]
    pattern, mark, inside = spec.path.partition(_INSIDE)
    # The names of folders above may have brackets, too.
    found = glob.iglob(str(Path(pattern).expanduser()), root_dir=workflow.path.parent, recursive=True)
    paths = (workflow.resolved(one.rstrip("/")) for one in found)
    kept = sorted((one for one in paths if not _is_output(one)), key=natural)
    if not kept:
        raise workflow.error((*keys, "path"), f"found no file for {spec.path}, expected some")
    return [f"{one}{mark}{inside}" for one in kept]


def _is_output(path: str) -> bool:
    """Whether a path was written by a step of a workflow: a glob may find labels beside their volumes."""
    folder, _, name = path.rpartition("/")
    return os.path.lexists(os.path.join(folder, RECORDS, f"{name}.json"))


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in a text by their value."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _rows(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table of volumes, whose first line has the names of the columns.

    Raises
    ------
    WorkflowError
        The table is no CSV in UTF-8, has no column ``path``, or a row has more or fewer values.
    """
    try:
        text = read_file(table, _TABLE_BYTES, "a table of volumes (CSV)", InputError).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        if "path" not in header or len(set(header)) != len(header) or not all(header):
            raise WorkflowError(
                f"{table}:1: found the columns {listed(header) or 'none'}, expected path, each once"
            )
        rows = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header) or not row[header.index("path")].strip():
                raise WorkflowError(
                    f"{table}:{reader.line_num}: found {len(row)} values, expected {len(header)} with a path"
                )
            rows.append(dict(zip(header, (cell.strip() for cell in row), strict=True)))
    except (InputError, UnicodeDecodeError, csv.Error) as error:
        message = str(error) if isinstance(error, InputError) else f"{table}: no CSV in UTF-8: {error}"
        raise WorkflowError(message) from None
    if not rows:
        raise WorkflowError(f"{table}: found no rows, expected a volume in each")
    return rows
