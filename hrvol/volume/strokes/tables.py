"""Read points and shapes from CSV tables: hrvol's own columns, and the layers that napari saves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import StrokesError
from hrvol.text import listed, printable
from hrvol.volume.strokes.drawing import Shape
from hrvol.volume.strokes.raster import Pixels, disc, ellipse, path, polygon

_CLASS = ("class", "label", "value")
"""Names of the column of classes; the first that is there counts."""

_OUTLINES = ("rectangle", "polygon", "ellipse")

_MOST_ROWS = 20_000_000

_ONE_VOXEL = 0.5  # radius below which a point is one voxel


def read_table(data: bytes, source: str) -> Iterator[Shape]:
    """Yield the shapes of a CSV table.

    Columns ``z, y, x`` (``z`` may be missing in an image), ``class``, ``radius`` in voxels and ``name``: one
    point a row. Instead of z, y, x napari writes ``axis-0``, ``axis-1``, ...: a points layer, with its
    features; or, with ``index``, ``shape-type`` and ``vertex-index``, a shapes layer. Coordinates are those
    of napari: the centre of a voxel is at whole numbers.

    Parameters
    ----------
    data
        The file, UTF-8.
    source
        Name for messages.

    Raises
    ------
    StrokesError
        A column is missing, or a value is no number.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StrokesError(f"{source}: found no text, expected a CSV table in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        axes = _axes(names, source)
        rows = _rows(reader, source)
        yield from (_layer if "vertex-index" in names else _points)(rows, axes, source)
    except csv.Error as error:
        raise StrokesError(f"{source}: line {reader.line_num}: {error}, expected a CSV table") from None


Row = tuple[int, Mapping[str, str]]


def _rows(reader: csv.DictReader[str], source: str) -> Iterator[Row]:
    for number, row in enumerate(reader):
        if number >= _MOST_ROWS:
            raise StrokesError(f"{source}: found more than {_MOST_ROWS:,} rows, expected fewer")
        if any(row.get(None) or ()):
            raise StrokesError(f"{source}: line {reader.line_num}: found more values than columns")
        yield reader.line_num, row


def _axes(names: list[str], source: str) -> tuple[str, ...]:
    """Return the columns of z (if there is one), y and x."""
    numbered = sorted(name for name in names if name.startswith("axis-"))
    if {"y", "x"} <= set(names):
        return ("z", "y", "x") if "z" in names else ("y", "x")
    if len(numbered) in (2, 3):
        return tuple(numbered)
    raise StrokesError(
        f"{source}: found columns {listed(names, 8) or 'none'}, expected z, y, x, class (and radius), or"
        " axis-0, axis-1, axis-2 as napari writes"
    )


def _points(rows: Iterator[Row], axes: tuple[str, ...], source: str) -> Iterator[Shape]:
    """Yield points; those of one voxel that follow each other in a plane, of one class, as one shape."""
    plane: int | None = None
    names: tuple[str | None, str | None] = (None, None)
    together: list[tuple[float, float]] = []

    def single() -> Shape:
        centres = np.floor(np.array(together) + 0.5).astype(np.int64)
        return Shape(plane, names[0], lambda: centres, name=names[1], anchors=len(centres))

    for line, row in rows:
        z, y, x = _place(row, axes, source, line)
        text = (row.get("radius") or "").strip()
        radius = _number(text, source, line, "radius") if text else 0.0
        key = (_class(row), row.get("name") or None)
        if together and (radius >= _ONE_VOXEL or (plane, *names) != (z, *key)):
            yield single()
            together = []
        plane, names = z, key
        if radius < _ONE_VOXEL:
            together.append((y, x))
        else:
            yield Shape(z, key[0], partial(disc, y, x, radius, source), name=key[1], anchors=1)
    if together:
        yield single()


def _layer(rows: Iterator[Row], axes: tuple[str, ...], source: str) -> Iterator[Shape]:
    def index(entry: Row) -> str:
        return entry[1].get("index") or ""

    for _, group in groupby(rows, index):
        entries = list(group)
        line, first = entries[0]
        places = [_place(row, axes, source, number) for number, row in entries]
        planes = {z for z, _, _ in places}
        if len(planes) > 1:
            raise StrokesError(
                f"{source}: line {line}: found a shape across {len(planes)} planes, expected one"
            )
        kind = (first.get("shape-type") or "").strip().lower()
        vertices = np.array([(y, x) for _, y, x in places])
        yield Shape(planes.pop(), _class(first), _pixels(kind, vertices, source, line))


def _pixels(kind: str, vertices: NDArray[np.float64], source: str, line: int) -> Callable[[], Pixels]:
    if kind in ("line", "path"):
        return partial(path, vertices, 1.0, source)
    if kind not in _OUTLINES:
        raise StrokesError(
            f"{source}: line {line}: found shape-type {printable(kind, 40)!r}, expected line, path or"
            f" {', '.join(_OUTLINES)}"
        )
    if kind == "ellipse":
        (top, left), (bottom, right) = vertices.min(axis=0), vertices.max(axis=0)
        return partial(ellipse, (float(top), float(left), float(bottom), float(right)), source)
    return partial(polygon, [vertices], source)


def _place(
    row: Mapping[str, str], axes: tuple[str, ...], source: str, line: int
) -> tuple[int | None, float, float]:
    numbers = [_number(row.get(axis), source, line, axis) for axis in axes]
    z = math.floor(numbers[0] + 0.5) if len(numbers) == 3 else None
    return z, numbers[-2], numbers[-1]


def _number(text: str | None, source: str, line: int, column: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not abs(number) < 2**31:
        raise StrokesError(
            f"{source}: line {line}: found {printable(text or '', 40)!r} as {column}, expected a number"
        )
    return number


def _class(row: Mapping[str, str]) -> str | None:
    for name in _CLASS:
        if row.get(name) and row[name].strip():
            return row[name].strip()
    return None
