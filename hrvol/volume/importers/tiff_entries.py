"""Read the entries of a TIFF directory, one per tag, and their values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.recognise import hint

DESCRIPTION_BYTES = 64 * 2**20
"""Most bytes of a description."""

_ENTRIES = 4096  # of a directory

# Bytes of a value by TIFF's number of its type.
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}

_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, DESCRIPTION = 254, 256, 257, 258, 259, 270
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
NESTED = (330, 34665, 34853, 40965)  # tags of directories that are in no list of pages

IMAGE_DEPTH, TILE_DEPTH = 32997, 32998

PRIVATE = 32768  # tags that manufacturers define, from here on

TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES, FORMAT = 322, 323, 324, 325, 339

# Tags that are read. Others may point anywhere: some writers leave a date or a resolution out of the file.
_READ = frozenset(
    (
        SUBFILE,
        255,  # what SUBFILE was before
        WIDTH,
        LENGTH,
        BITS,
        COMPRESSION,
        DESCRIPTION,
        STRIPS,
        SAMPLES,
        ROWS,
        STRIP_BYTES,
        PLANAR,
        TILE_WIDTH,
        TILE_LENGTH,
        TILES,
        TILE_BYTES,
        FORMAT,
        IMAGE_DEPTH,
        TILE_DEPTH,
    )
)

Numbers = np.ndarray[tuple[int], np.dtype[np.uint64]]


@dataclass(frozen=True)
class Layout:
    """How numbers are written: byte order, and their width in the classic or the big format."""

    order: str
    big: bool

    def unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        """Return numbers from bytes, as :func:`struct.unpack` does."""
        return struct.unpack(self.order + code, data)


# Type, number of values, and the bytes that hold the values or their offset.
Entry = tuple[int, int, bytes]


def read_header(file: BinaryIO, path: Path) -> tuple[Layout, int]:
    """Return how numbers are written, and the place of the first directory."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = 0 if order is None or len(head) < 8 else struct.unpack(order + "H", head[2:4])[0]
    if order is None or version not in (42, 43) or (version == 43 and len(head) < 16):
        found = hint(path)
        if found and "TIFF" not in found:
            raise InputError(f"{path}: found {found}")
        raise InputError(f"{path}: cannot be read as a TIFF image (found {printable(repr(head[:4]))})")
    layout = Layout(order, version == 43)
    (offset,) = layout.unpack("Q", head[8:16]) if layout.big else layout.unpack("I", head[4:8])
    return layout, offset


def read_entries(file: BinaryIO, layout: Layout, offset: int, size: int) -> tuple[dict[int, Entry], int]:
    """Return the entries of a directory, and the offset of the next one."""
    head, entry, number, code = (8, 20, "Q", "HHQ") if layout.big else (2, 12, "H", "HHI")
    file.seek(offset)
    (count,) = layout.unpack(number, _exactly(file, head))
    if not 0 < count <= _ENTRIES:
        raise ValueError(f"found {count:,} entries, expected 1 to {_ENTRIES:,}")
    last = 8 if layout.big else 4
    data = _exactly(file, count * entry + last)
    entries: dict[int, Entry] = {}
    for i in range(count):
        start = i * entry
        tag, kind, values = layout.unpack(code, data[start : start + entry - last])
        width = _SIZES.get(kind, 0)
        value = data[start + entry - last : start + entry]
        if width and values * width > last:
            (at,) = layout.unpack("Q" if layout.big else "I", value)
            if at + values * width > size:
                if tag not in _READ:
                    continue
                raise ValueError(
                    f"found tag {tag} with {values:,} values at byte {at:,}, expected them inside of the file"
                )
        entries.setdefault(tag, (kind, values, value))
    (following,) = layout.unpack("Q" if layout.big else "I", data[-last:])
    return entries, following


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise ValueError(f"found {len(data):,} bytes of its directory, expected {count:,}")
    return data


@dataclass(frozen=True)
class Reader:
    """Reads the values of a directory's entries."""

    file: BinaryIO
    layout: Layout
    directory: Mapping[int, Entry]

    def numbers(self, tag: int) -> Numbers | None:
        """Return the values of a tag; ``None`` without it."""
        if tag not in self.directory:
            return None
        kind, count, _ = self.directory[tag]
        if kind not in _INTEGERS or not count:
            raise ValueError(f"found tag {tag} with {count:,} values of type {kind}, expected integers")
        data = _bytes(self.file, self.layout, self.directory[tag])
        return np.frombuffer(data, self.layout.order + _INTEGERS[kind]).astype(np.uint64)

    def number(self, tag: int, default: int | None) -> int:
        """Return the first value of a tag."""
        values = self.numbers(tag)
        if values is None:
            if default is None:
                raise ValueError(f"found no tag {tag}, expected it")
            return default
        return int(values[0])


def _bytes(file: BinaryIO, layout: Layout, entry: Entry) -> bytes:
    kind, count, value = entry
    size = count * _SIZES[kind]
    if size <= len(value):
        return value[:size]
    (at,) = layout.unpack("Q" if layout.big else "I", value)
    file.seek(at)
    return _exactly(file, size)


def outside(layout: Layout, directory: Mapping[int, Entry]) -> Iterator[tuple[int, int]]:
    """Yield where the values are that are not in the directory itself."""
    for kind, count, value in directory.values():
        size = count * _SIZES.get(kind, 0)
        if size > len(value):
            (at,) = layout.unpack("Q" if layout.big else "I", value)
            yield at, at + size


def text_of(file: BinaryIO, layout: Layout, entry: Entry | None) -> str:
    """Return the text of an entry; empty if it has another type."""
    if entry is None or entry[0] not in (1, 2, 7):
        return ""
    if entry[1] > DESCRIPTION_BYTES:
        raise ValueError(f"found a description of {entry[1]:,} bytes, expected at most {DESCRIPTION_BYTES:,}")
    return _bytes(file, layout, entry).rstrip(b"\0").decode("utf-8", "replace")
