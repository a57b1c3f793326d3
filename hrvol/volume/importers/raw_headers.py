"""Read side files that describe the layout of a file without a header.

MetaImage: https://docs.itk.org/en/latest/learn/metaio.html. Volume Graphics (``.vgi``) and PyHST (``.info``)
have no published definition: what their programs write is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.reading.bounded import read_file
from hrvol.text import printable
from hrvol.volume.importers.stored import UNKNOWN, VoxelSize, voxel_size
from hrvol.volume.units import METRES, normal_unit

_HEADER_BYTES = 2**16

_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

_VG_KINDS = {"unsigned integer": "u", "signed integer": "i", "integer": "i", "float": "f"}


@dataclass(frozen=True)
class RawHeader:
    """The contents of a side file.

    Attributes
    ----------
    path
        File of the values.
    shape, dtype
        The slowest axis first; type with its byte order.
    offset
        Bytes before the values; negative: they are at the end of the file.
    size
        Voxel size.
    axes
        Names of the axes; ``None``: z, y, x.
    compressed
        Whether they are compressed with zlib.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    size: VoxelSize = UNKNOWN
    axes: tuple[str, ...] | None = None
    compressed: bool = False


def read_metaimage(path: Path, source: str) -> RawHeader:
    """Read the header of a MetaImage, ``.mhd`` or ``.mha``."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    values: dict[str, str] = {}
    place = 0
    while "ElementDataFile" not in values:
        stop = head.find(b"\n", place)
        line = head[place : len(head) if stop < 0 else stop].decode("latin-1")
        name, equals, value = line.partition("=")
        if equals:
            values[name.strip()] = value.strip()
        if stop < 0:
            break
        place = stop + 1
    name = values.get("ElementDataFile", "")
    if not name:
        raise InputError(f"{source}: found no ElementDataFile in a MetaImage header, expected one")
    whole = name.upper() == "LOCAL" or (path.parent / name).is_file()
    if name.upper() == "LIST" or (not whole and ("%" in name or " " in name)):
        raise InputError(f"{source}: found values in several files, expected one file")
    if values.get("BinaryData", "True").lower() == "false":
        raise InputError(f"{source}: found values as text, expected BinaryData = True")
    local = name.upper() == "LOCAL"
    sides = _integers(values, "DimSize", source)
    if not 2 <= len(sides) <= 3:
        raise InputError(f"{source}: found {len(sides)} axes, expected 2 or 3")
    kind = _META_TYPES.get(values.get("ElementType", ""))
    if kind is None:
        raise InputError(
            f"{source}: found ElementType {_shown(values.get('ElementType'))}, expected integers or floats"
        )
    big = values.get("ElementByteOrderMSB", values.get("BinaryDataByteOrderMSB", "False")).lower() == "true"
    channels = int(_number(values.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", source))
    spacing = values.get("ElementSpacing") or values.get("ElementSize")
    sizes = [_float(text) for text in spacing.split()][::-1] if spacing else [None] * len(sides)
    unit = values.get("DistanceUnits")  # which few programs write
    names = "zyx"[-len(sides) :]
    known = dict(zip(names, sizes, strict=False))
    offset = place if local else int(_number(values.get("HeaderSize", "0"), "HeaderSize", source))
    return RawHeader(
        path if local else _named(path, name, source),
        (*reversed(sides), *([channels] if channels > 1 else [])),
        np.dtype(kind).newbyteorder(">" if big else "<"),
        offset,
        _size([known.get(axis) for axis in "zyx"], unit) if spacing else UNKNOWN,
        (*names, "c") if channels > 1 else None,
        values.get("CompressedData", "False").lower() == "true",
    )


def _size(sizes: list[float | None], unit: str | None) -> VoxelSize:
    known = unit if normal_unit(unit) in METRES else None
    return voxel_size(sizes, known, "MetaImage header")


def read_vgi(path: Path, source: str) -> RawHeader:
    """Read a ``.vgi`` of Volume Graphics, which has values per section; those of the file come first."""
    values: dict[str, str] = {}
    of_file: dict[str, str] = {}
    files: set[str] = set()
    for section, name, value in _values(path):
        if re.fullmatch(r"file[0-9]*", section):
            files.add(section)
            of_file.setdefault(name.lower(), value)
        else:
            values.setdefault(name.lower(), value)
    values |= of_file
    if len(files) > 1 or values.get("fileformat", "raw").lower() != "raw":
        found = (
            f"{len(files)} files" if len(files) > 1 else f"values of format {_shown(values['fileformat'])}"
        )
        raise InputError(f"{source}: found {found}, expected one raw file")
    if "size" not in values or "name" not in values:
        raise InputError(f"{source}: found no Size or Name in a file of Volume Graphics, expected both")
    sides = _integers(values, "size", source)
    bits = int(_number(values.get("bitsperelement", "0"), "BitsPerElement", source))
    kind = _VG_KINDS.get(values.get("datatype", "").lower())
    if kind is None or bits not in (8, 16, 32, 64) or len(sides) != 3:
        found = f"{bits} bits of {_shown(values.get('datatype'))} on {len(sides)} axes"
        raise InputError(f"{source}: found {found}, expected integers or floats on 3 axes")
    resolution = values.get("resolution")
    size = UNKNOWN
    if resolution:
        numbers = [_float(text) for text in resolution.split()]
        numbers = numbers * 3 if len(numbers) == 1 else numbers
        if len(numbers) == 3:
            size = voxel_size(numbers[::-1], values.get("unit", "mm").strip("[]"), "file of Volume Graphics")
    return RawHeader(
        _named(path, values["name"], source),
        tuple(reversed(sides)),
        np.dtype(f"{kind}{bits // 8}").newbyteorder("<"),
        int(_number(values.get("skipheader", "0"), "SkipHeader", source)),
        size,
    )


def read_info(path: Path, source: str) -> RawHeader:
    """Read an ``.info`` of PyHST: the type follows from the size of the file beside it."""
    values = {name.upper(): value for _, name, value in _values(path)}
    missing = [name for name in ("NUM_X", "NUM_Y", "NUM_Z") if name not in values]
    if missing:
        raise InputError(f"{source}: found no {missing[0]} in a description of a volume, expected it")
    shape = tuple(_integers(values, f"NUM_{axis}", source)[0] for axis in "ZYX")
    data = path.with_suffix("")
    if not data.suffix:
        data = next((data.with_suffix(s) for s in (".vol", ".raw") if data.with_suffix(s).is_file()), data)
    data = _named(path, data.name, source)
    count = math.prod(shape)
    width, rest = divmod(data.stat().st_size, count) if count else (0, 1)
    kind = {1: "u1", 2: "u2", 4: "f4"}.get(width)
    if kind is None or rest:
        raise InputError(
            f"{source}: found {data.stat().st_size:,} bytes in {data.name}, expected 1, 2 or 4 per voxel of"
            f" shape {shape}"
        )
    big = "HIGH" in values.get("BYTEORDER", "").upper()
    number = values.get("VOXELSIZE")
    size = UNKNOWN if number is None else voxel_size([_float(number)] * 3, "micrometer", "PyHST description")
    return RawHeader(data, shape, np.dtype(kind).newbyteorder(">" if big else "<"), 0, size)


def _values(path: Path) -> list[tuple[str, str, str]]:
    """Return section (empty without one), name and value of each line ``NAME = VALUE``."""
    text = read_file(path, _HEADER_BYTES, "a description of a volume").decode("utf-8", "replace")
    found, section = [], ""
    for line in map(str.strip, text.splitlines()):
        name, equals, value = line.partition("=")
        if line.startswith(("[", "{")) and line.endswith(("]", "}")):
            section = line[1:-1].lower()
        elif equals and not line.startswith(("!", "#", ";")):
            found.append((section, name.strip(), value.strip().strip('"')))
    return found


def _named(path: Path, name: str, source: str) -> Path:
    """Return a file that a side file names; it has to be beside it, or below."""
    plain = Path(re.split(r"[\\]", name)[-1]) if "\\" in name else Path(name)
    if plain.is_absolute():  # on the machine that wrote it
        plain = Path(plain.name)
    if "\0" in name or not (path.parent / plain).is_file():
        raise InputError(f"{source}: found no file {printable(name, 100)}, which it names")
    return path.parent / plain


def _integers(values: Mapping[str, str], name: str, source: str) -> list[int]:
    parts = values.get(name, "").split()
    if not parts or not all(re.fullmatch(r"[0-9]{1,12}", part) for part in parts) or "0" in parts:
        raise InputError(f"{source}: found {name} {_shown(values.get(name))}, expected numbers above 0")
    return [int(part) for part in parts]


def _number(text: str, name: str, source: str) -> float:
    number = _float(text)
    if not math.isfinite(number) or abs(number) > 2**62:
        raise InputError(f"{source}: found {name} {_shown(text)}, expected a number")
    return number


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _shown(text: str | None) -> str:
    return "nothing" if text is None else printable(text, 60)
