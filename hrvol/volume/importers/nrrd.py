"""Open NRRD files (header by pynrrd): raw ones as memory maps, compressed and ASCII ones as a whole."""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import WholeArray, mapped, read_exactly
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, grey_axes, voxel_size

_HEADER_BYTES = 2**20

# Names of types in the definition of the format, http://teem.sourceforge.net/nrrd/format.html#type
_TYPES = {
    "i1": r"signed char|int8|int8_t",
    "u1": r"uchar|unsigned char|uint8|uint8_t",
    "i2": r"short|short int|signed short|signed short int|int16|int16_t",
    "u2": r"ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": r"int|signed int|int32|int32_t",
    "u4": r"uint|unsigned int|uint32|uint32_t",
    "i8": r"longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": r"ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": r"float",
    "f8": r"double",
}

_OPENERS: dict[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}

_PLAIN_TEXT = ("ascii", "text", "txt")

_SPACE = ("domain", "space", "none", "???")  # kinds of axes that may be z, y or x


@dataclass(frozen=True)
class _Layout:
    """Where the values are."""

    path: Path
    start: int
    skip: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_nrrd(request: Request) -> StoredImage:
    """Open a ``.nrrd`` or ``.nhdr`` file."""
    source, path = request.source, request.path
    nrrd = require("nrrd", source, "an NRRD file")
    with path.open("rb") as file:
        # A header without an end may be gigabytes of one line.
        lines = io.BytesIO(file.read(_HEADER_BYTES))
    header = nrrd.read_header(lines)
    encoding = str(header.get("encoding", "")).lower()
    layout = _layout(header, path, lines.tell(), source)
    array: Any
    if encoding == "raw":
        start = layout.start + layout.skip if layout.skip >= 0 else layout.path.stat().st_size - layout.nbytes
        array = mapped(source, layout.path, layout.dtype, layout.shape, start, "C")
    elif encoding in _OPENERS:
        array = WholeArray(
            source,
            "a compressed NRRD file",
            lambda: _decompressed(layout, _OPENERS[encoding]),
            layout.shape,
            layout.dtype,
        )
    elif encoding in _PLAIN_TEXT:
        array = WholeArray(
            source,
            "an NRRD file of text",
            lambda: np.asarray(nrrd.read(str(path), index_order="C")[0]).astype(layout.dtype),
            layout.shape,
            layout.dtype,
        )
    else:
        raise InputError(
            f"{source}: found encoding {printable(encoding, 60)}, expected raw, gzip, bzip2 or ascii"
        )
    axes = _axes(header, layout.shape)
    return StoredImage(array, axes, _size(header, axes or _default(layout.shape)), (path, layout.path)[:2])


def _layout(header: Mapping[str, Any], path: Path, after: int, source: str) -> _Layout:
    shape = tuple(int(side) for side in reversed(header.get("sizes", ())))
    if len(shape) != header.get("dimension") or min(shape, default=0) < 1:
        raise InputError(f"{source}: found sizes {shape[::-1]}, expected {header.get('dimension')} above 0")
    name = " ".join(str(header.get("type", "")).split())
    kind = next((kind for kind, names in _TYPES.items() if re.fullmatch(names, name)), None)
    if kind is None:
        raise InputError(f"{source}: found type {printable(name, 60)}, expected integers or floats")
    dtype = np.dtype(kind).newbyteorder(">" if header.get("endian") == "big" else "<")
    detached = header.get("datafile", header.get("data file"))
    data, start = path, after
    if detached is not None:
        if str(detached).startswith("LIST") or "%" in str(detached):
            raise InputError(f"{source}: found values in several files, expected one")
        data, start = path.parent / str(detached), 0
        if not data.is_file():
            raise InputError(f"{source}: found no file {printable(str(detached), 100)}, which it names")
    lines = int(header.get("lineskip", header.get("line skip", 0)))
    skip = int(header.get("byteskip", header.get("byte skip", 0)))
    if lines < 0 or lines > 2**20 or skip < -1:
        raise InputError(f"{source}: found line skip {lines} and byte skip {skip}, expected 0 or more")
    with data.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            file.readline(2**20)
        start = file.tell()
    return _Layout(data, start, skip, dtype, shape)


def _decompressed(layout: _Layout, opener: Any) -> NDArray[Any]:
    with layout.path.open("rb") as file:
        file.seek(layout.start)
        with opener(file, "rb") as stream:
            if layout.skip >= 0:
                data = read_exactly(stream, layout.skip, layout.nbytes)
                if stream.read(1):
                    raise ValueError(
                        f"found more than {layout.nbytes:,} bytes of values (a header before them?)"
                    )
            else:  # the last bytes
                data = stream.read(layout.nbytes + 2**20)
                if stream.read(1) or len(data) < layout.nbytes:
                    raise ValueError(f"found other than {layout.nbytes:,} bytes of values and a short header")
                data = data[len(data) - layout.nbytes :]
    return np.frombuffer(data, layout.dtype).reshape(layout.shape)


def _axes(header: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Name the axes: those that are no space are channels."""
    kinds = [str(kind).lower() for kind in reversed(header.get("kinds") or ())]
    if len(kinds) != len(shape) or all(kind in _SPACE for kind in kinds):
        return grey_axes(shape)
    spatial = [i for i, kind in enumerate(kinds) if kind in _SPACE]
    if not 2 <= len(spatial) <= 3:
        return grey_axes(shape)
    names = dict(zip(spatial, "zyx"[-len(spatial) :], strict=True))
    return tuple(names.get(i, "c" if "time" not in kinds[i] else "t") for i in range(len(shape)))


def _default(shape: tuple[int, ...]) -> tuple[str, ...]:
    return ("", *"zyx")[-len(shape) :] if len(shape) <= 3 else ("",) * len(shape)


def _size(header: Mapping[str, Any], axes: tuple[str, ...]) -> VoxelSize:
    directions, spacings = header.get("space directions"), header.get("spacings")
    if directions is not None:
        steps = [
            None if row is None or np.isnan(row).any() else float(np.linalg.norm(row)) for row in directions
        ]
        units: Any = header.get("space units") or ()
    elif spacings is not None:
        steps, units = (
            [None if np.isnan(step) else float(step) for step in spacings],
            header.get("units") or (),
        )
    else:
        return VoxelSize()
    sizes = dict(zip(axes, reversed(steps), strict=False))
    names = dict(zip("xyz", (str(unit).strip('"') or None for unit in units), strict=False))
    return voxel_size([sizes.get(axis) for axis in "zyx"], [names.get(axis) for axis in "zyx"], "NRRD header")
