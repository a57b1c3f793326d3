"""Write MetaImage: ``.mha``, or ``.mhd`` with ``.raw``, for ITK, 3D Slicer and ParaView.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import NUMBERS, Content, Format, PlaneWriter, Writing, class_lines

_TYPES = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "int64": "MET_LONG_LONG",
    "uint64": "MET_ULONG_LONG",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}

_UNITS = {"nanometer": "nm", "micrometer": "um", "millimeter": "mm", "centimeter": "cm", "meter": "m"}

_HEADER_BYTES = 2**16

_COMMENT_BYTES = 480  # ITK reads no file with a comment of 500

_BEGINNING = b"ObjectType = Image\n"


class RawStream:
    """Values as they are, little-endian, after each other."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, planes: NDArray[Any]) -> None:
        """Write planes."""
        self._stream.write(np.ascontiguousarray(planes, planes.dtype.newbyteorder("<")).data)


@contextmanager
def open_mha(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write header and values into one file."""
    with path.open("wb") as stream:
        stream.write(_header(content, "LOCAL"))
        yield RawStream(stream)


@contextmanager
def open_mhd(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write the values to a file beside the header."""
    data = path.with_suffix(".raw")
    with data.open("wb") as stream:
        yield RawStream(stream)
    path.write_bytes(_header(content, data.name))


def _header(content: Content, data: str) -> bytes:
    n = content.ndim

    def by_axis(values: Any) -> str:  # x first
        return " ".join(str(value) for value in tuple(values)[-n:][::-1])

    comment = "; ".join([SOFTWARE, content.kind, *class_lines(content.classes)])
    fields = {
        "NDims": str(n),
        "Comment": _shortened(comment),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(str(int(v)) for v in np.eye(n, dtype=int).ravel()),
        "Offset": by_axis(content.translation),
        "ElementSpacing": by_axis(content.voxel_size),
        "DimSize": by_axis(content.shape),
        "DistanceUnits": _UNITS.get(content.unit or "", ""),
        "ElementType": _TYPES[content.dtype.name],
        "ElementDataFile": data,  # has to be the last one
    }
    lines = (f"{name} = {value}\n" for name, value in fields.items() if value)
    return _BEGINNING + "".join(lines).encode()


def _shortened(comment: str) -> str:
    """Return a comment with as many classes as ITK reads."""
    short = comment.encode()[:_COMMENT_BYTES].decode(errors="ignore")
    return short if short == comment else short.rpartition("; ")[0]


def _ours(path: Path) -> bool:
    with path.open("rb") as stream:
        beginning = stream.read(_HEADER_BYTES)
    return beginning.startswith(_BEGINNING) and b"\nComment = hrvol " in beginning


MHA = Format("mha", "MetaImage", (".mha",), open_mha, _ours, NUMBERS)

MHD = Format("mhd", "MetaImage", (".mhd",), open_mhd, _ours, NUMBERS, parts=(".raw", ""))
