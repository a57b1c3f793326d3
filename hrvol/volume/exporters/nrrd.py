"""Write NRRD, and raw values with an NRRD header beside them, for 3D Slicer, ParaView, ITK and pynrrd.

Format: https://teem.sourceforge.net/nrrd/format.html. Names and colours of classes are in the keys with which
3D Slicer describes segmentations (``.seg.nrrd``).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import NUMBERS, Content, Format, PlaneWriter, Writing
from hrvol.volume.exporters.metaimage import RawStream

_UNITS = {"nanometer": "nm", "micrometer": "um", "millimeter": "mm", "centimeter": "cm", "meter": "m"}

_MAGIC = b"NRRD0005\n"

_LEVEL = 4


@contextmanager
def open_nrrd(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write header and values, compressed or not, into one file."""
    with path.open("wb") as stream:
        stream.write(_header(content, "gzip" if writing.compress else "raw"))
        if not writing.compress:
            yield RawStream(stream)
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=stream, mtime=0) as zipped:
            yield RawStream(cast(BinaryIO, zipped))


@contextmanager
def open_raw(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write the values as they are, and a header ``.nhdr`` beside them."""
    with path.open("wb") as stream:
        yield RawStream(stream)
    path.with_suffix(".nhdr").write_bytes(_header(content, "raw", path.name))


def _header(content: Content, encoding: str, data: str | None = None) -> bytes:
    n = content.ndim
    sizes, steps, first = (
        tuple(values)[-n:][::-1] for values in (content.shape, content.voxel_size, content.translation)
    )
    directions = [
        "(" + ",".join(str(step) if i == j else "0" for j in range(n)) + ")" for i, step in enumerate(steps)
    ]
    lines = [
        f"# {SOFTWARE}",
        f"type: {content.dtype.name}"
        if content.dtype.kind in "iu"
        else f"type: {_FLOATS[content.dtype.name]}",
        f"dimension: {n}",
        f"space dimension: {n}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(['domain'] * n)}",
        *([f"space units: {' '.join([unit] * n)}"] if (unit := _unit(content)) else []),
        f"space origin: ({','.join(map(str, first))})",
        *(["endian: little"] if content.dtype.itemsize > 1 else []),
        f"encoding: {encoding}",
        *([f"data file: {data}"] if data is not None else []),
        f"content:={content.kind}",
    ]
    for number, info in enumerate(content.classes if content.kind == "labels" else ()):
        name = info.name.replace("\\", "\\\\")
        colour = " ".join(f"{level / 255:.6f}" for level in info.colour)
        extent = " ".join(f"0 {side - 1}" for side in sizes)
        values = {"ID": f"Segment_{info.value}", "Name": name, "LabelValue": str(info.value)}
        values |= {"Color": colour, "Layer": "0", "Extent": extent}
        lines += [f"Segment{number}_{key}:={value}" for key, value in values.items()]
    return _MAGIC + ("\n".join(lines) + "\n\n").encode()


_FLOATS = {"float32": "float", "float64": "double"}


def _unit(content: Content) -> str:
    unit = _UNITS.get(content.unit or "", content.unit or "")
    return f'"{unit}"' if unit else ""


def _ours(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(64).startswith(_MAGIC + b"# hrvol ")


NRRD = Format("nrrd", "NRRD", (".nrrd",), open_nrrd, _ours, NUMBERS)


def _raw_is_ours(path: Path) -> bool:
    header = path.with_suffix(".nhdr")
    return header.is_file() and _ours(header)


RAW = Format("raw", "raw values", (".raw",), open_raw, _raw_is_ours, NUMBERS, parts=("", ".nhdr"))
