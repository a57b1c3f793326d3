"""Name strokes, and what their file does not hold: the place of a crop, the lane of a project, the class."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.arrays import Shape3
from hrvol.errors import InputError, StrokesError
from hrvol.reading.bounded import read_file
from hrvol.text import printable
from hrvol.volume.storage.input_store import METADATA
from hrvol.volume.storage.location import Location

SEPARATOR = "::"
"""Between a file of strokes and a lane of it, or the class of what is drawn in it."""

CSV, GEOJSON, ROI, ROIS, PROJECT = (".csv",), (".geojson", ".json"), (".roi",), (".zip",), (".ilp",)

DRAWINGS = (*CSV, *GEOJSON, *ROI, *ROIS, *PROJECT)
"""Suffixes of files of drawings; anything else is an array."""

_ARRAYS = (".zarr.zip", ".ozx.zip")

MOST_BYTES = 2**30
"""Most bytes of a file of drawings."""


@dataclass(frozen=True)
class StrokesSource:
    """Strokes, and what their file does not hold.

    Attributes
    ----------
    source
        Path, URL, array, volume or :class:`hrvol.volume.strokes.strokes.Strokes`. A path may end in
        ``::LANE`` or ``::CLASS``, instead of ``part``.
    offset
        First voxel (z, y, x) of the source in the volume; ``None``: from the metadata, or the whole volume.
    part
        Name or number (from 0) of the lane of an ilastik project; for points, shapes and ROIs that name no
        class, the class (name or value).
    """

    source: Any
    offset: Shape3 | None = None
    part: str | int | None = None

    @classmethod
    def of(cls, source: Any) -> StrokesSource:
        """Return a source as an object, ``FILE::PART`` divided."""
        if isinstance(source, StrokesSource):
            if source.part is None and isinstance(source.source, str | Path | Location):
                inner = cls.of(source.source)
                return cls(inner.source, source.offset, inner.part)
            return source
        if isinstance(source, str | Path | Location):
            url = str(source)
            file, mark, part = url.rpartition(SEPARATOR)
            if mark and suffix_of(file):
                options = source.options if isinstance(source, Location) else {}
                return cls(Location(file, options) if options else file, part=part)
        return cls(source)


def suffix_of(source: Any) -> str:
    """Return the suffix of a file of drawings, lower case; empty for arrays."""
    name = str(source).lower()
    if name.endswith(_ARRAYS):
        return ""
    return next((suffix for suffix in DRAWINGS if name.endswith(suffix)), "")


def is_drawing(source: Any) -> bool:
    """Return whether a source is a file of drawings; a zip archive may also hold a Zarr hierarchy."""
    if not isinstance(source, str | Path | Location) or not (suffix := suffix_of(source)):
        return False
    path = Location.of(source).path
    if suffix not in ROIS or path is None or not path.is_file():
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True
    return not any(name.rpartition("/")[2] in METADATA for name in names)


def place_of(source: Any) -> Any:
    """Return the path, URL or array of strokes, for checks that no output replaces them."""
    return StrokesSource.of(source).source


def read_drawing(location: Location, expected: str) -> bytes:
    """Return the bytes of a file of drawings; :class:`InputError` if it is missing or too large."""
    if location.path is not None:
        return read_file(location.path, MOST_BYTES, expected)
    folder, _, name = location.url.rpartition("/")
    parent = Location.of(folder, location.options)
    (size,) = parent.sizes([name])
    if size is None:
        raise InputError(f"{location}: found no such file, expected {expected}")
    if size > MOST_BYTES:
        raise InputError(f"{location}: found {size:,} bytes, expected at most {MOST_BYTES:,}")
    data = parent.read_bytes(name)
    assert data is not None
    return data


def class_value(text: str, source: str) -> int | None:
    """Return a class value written as a number, ``None`` for a name.

    Raises
    ------
    StrokesError
        The number is no class.
    """
    cleaned = text.strip()
    try:
        number = float(cleaned)
    except ValueError:
        return None
    if not (number.is_integer() and 1 <= number <= 65_535):
        raise StrokesError(f"{source}: found class {printable(cleaned, 40)}, expected 1 to 65535 or a name")
    return int(number)
