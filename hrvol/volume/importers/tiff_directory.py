"""Read the directories of a TIFF file, one per page, and check that the pixels they name are there.

tifffile takes a chain of pages that breaks off for its end, and does not look at the size of later pages.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.recognise import hint

PAGES = 2**20
"""Most pages of a file."""

SIDE = 2**31
"""Most pixels along a side of a page."""

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

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _DESCRIPTION = 254, 256, 257, 258, 259, 270
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_NESTED = (330, 34665, 34853, 40965)  # tags of directories that are in no list of pages

_IMAGE_DEPTH, _TILE_DEPTH = 32997, 32998

_PRIVATE = 32768  # tags that manufacturers define, from here on

_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339

# Tags that are read. Others may point anywhere: some writers leave a date or a resolution out of the file.
_READ = frozenset(
    (
        _SUBFILE,
        255,
        _WIDTH,
        _LENGTH,
        _BITS,
        _COMPRESSION,
        _DESCRIPTION,
        _STRIPS,
        _SAMPLES,
        _ROWS,
        _STRIP_BYTES,
        _PLANAR,
        _TILE_WIDTH,
        _TILE_LENGTH,
        _TILES,
        _TILE_BYTES,
        _FORMAT,
        _IMAGE_DEPTH,
        _TILE_DEPTH,
    )
)

_Numbers = np.ndarray[tuple[int], np.dtype[np.uint64]]

# Parts of a file by their first bytes and the bytes behind them.
_Extents = np.ndarray[tuple[int, int], np.dtype[np.uint64]]

_EXTENTS = 2**22  # of a file

_GAPS = 16  # the largest, of a file

_SEARCHED = 64 * 2**20  # bytes at either end of a gap

_FOUND = 1000  # places that may be directories


@dataclass(frozen=True)
class Page:
    """A page as its directory describes it.

    Attributes
    ----------
    width, length
        Pixels.
    bits, samples, sample_format
        Bits of a sample, samples of a pixel, TIFF's number of their type.
    reduced
        Whether it is declared a smaller version, or a mask, of another page.
    start, stop
        First byte of the pixels; last byte plus 1 if they are contiguous and not compressed, else ``None``.
    depth
        Planes.
    """

    width: int
    length: int
    bits: int
    samples: int
    sample_format: int
    reduced: bool
    start: int
    stop: int | None
    depth: int

    @property
    def kind(self) -> tuple[int, ...]:
        """What the pages of a stack have in common."""
        return self.width, self.length, self.bits, self.samples, self.sample_format, self.depth

    def __str__(self) -> str:
        colour = f" of {self.samples} samples" if self.samples > 1 else ""
        return f"{self.width} x {self.length} pixels{colour} of {self.bits} bits"


@dataclass(frozen=True)
class Directories:
    """The pages of a file.

    Attributes
    ----------
    pages
        In order.
    description
        Text of the first page; empty without one.
    size
        Bytes of the file.
    gaps
        The largest parts of the file to which nothing refers, in order, by their first bytes and the bytes
        behind them; none if there may be directories that only their makers know.
    """

    pages: tuple[Page, ...]
    description: str
    size: int
    gaps: tuple[tuple[int, int], ...]


def read_directories(path: Path) -> Directories:
    """Read all directories of a file, and check that they end, and that all pixels are inside the file.

    Raises
    ------
    InputError
        The file is no TIFF file, or damaged; the message names the page.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        layout, offset = _header(file, path)
        pages: list[Page] = []
        extents: list[_Extents] = []
        description, seen, known, nested = "", set(), 0, False
        while offset:
            number = len(pages)
            if number >= PAGES:
                raise InputError(f"{path}: found more than {PAGES:,} pages, expected fewer")
            if offset in seen or not 8 <= offset < size - 2:
                where = "in a circle" if offset in seen else f"at byte {offset:,} of {size:,}"
                raise InputError(f"{path}: found page {number} {where}, expected it inside of the file")
            seen.add(offset)
            place = offset
            try:
                directory, offset = _directory(file, layout, offset, size)
                parts = [(place, file.tell()), *_outside(layout, directory)]
                if number == 0:
                    description = _text(file, layout, directory.get(_DESCRIPTION))
                nested = nested or any(tag in _NESTED or tag >= _PRIVATE for tag in directory)
                page, pixels = _page(_Reader(file, layout, directory), size)
                pages.append(page)
                if not nested and known <= _EXTENTS:
                    extents += [np.array(parts, np.uint64), pixels]
                    known += len(parts) + len(pixels)
            except (ValueError, struct.error) as error:
                raise InputError(f"{path}: page {number}: {printable(str(error))}") from None
    if not pages:
        raise InputError(f"{path}: found a TIFF file without pages, expected an image")
    gaps = () if nested or known > _EXTENTS else _gaps(np.concatenate(extents), size)
    return Directories(tuple(pages), description, size, gaps)


def _gaps(extents: _Extents, size: int) -> tuple[tuple[int, int], ...]:
    """Return the largest parts of a file that are in no extent."""
    extents = extents[np.argsort(extents[:, 0])]
    starts = np.maximum.accumulate(np.append(np.uint64(8), extents[:, 1]))
    stops = np.append(extents[:, 0], np.uint64(size))
    widths = np.where(stops > starts, stops - starts, np.uint64(0))
    largest = np.sort(np.argsort(widths)[-_GAPS:])
    return tuple((int(starts[i]), int(stops[i])) for i in largest if widths[i])


def find_page(path: Path, directories: Directories) -> int | None:
    """Return the place of a directory that no page refers to, of a page like the first one.

    Earlier versions of directories in the list, which editors leave behind, do not count. Of each gap, the
    first and last 64 MiB are looked through.
    """
    first = next((page for page in directories.pages if not page.reduced), directories.pages[0])
    starts = {page.start for page in directories.pages}
    with path.open("rb") as file:
        layout, _ = _header(file, path)
        for at in _places(file, layout, directories.gaps, first):
            try:
                entries, _ = _directory(file, layout, at, directories.size)
                page, _ = _page(_Reader(file, layout, entries), directories.size)
            except (ValueError, struct.error):
                continue
            if page.kind == first.kind and page.start not in starts:
                return at
    return None


def _places(file: BinaryIO, layout: _Layout, gaps: Sequence[tuple[int, int]], first: Page) -> Iterator[int]:
    """Yield places of a file where directories of pages of the size of another one may be."""
    width = re.compile(b"|".join(re.escape(value) for value in _values(layout, _WIDTH, first.width)))
    lengths = _values(layout, _LENGTH, first.length)
    head, entry = (8, 20) if layout.big else (2, 12)
    found = 0
    for start, stop in gaps:
        middle = max(start + _SEARCHED, stop - _SEARCHED)
        for begin, end in ((start, min(start + _SEARCHED, stop)), (middle, stop)):
            file.seek(begin)
            data = file.read(max(0, end - begin))
            for match in width.finditer(data):
                if not data.startswith(lengths, match.start() + entry):
                    continue
                found += 1
                if found > _FOUND:
                    return
                # Two tags may come first.
                yield from (begin + match.start() - head - i * entry for i in range(3))


def _values(layout: _Layout, tag: int, value: int) -> tuple[bytes, ...]:
    """Return how an entry of a directory with one number may begin."""
    count = "Q" if layout.big else "I"
    return tuple(
        struct.pack(f"{layout.order}HH{count}{code}", tag, kind, 1, value)
        for kind, code in ((3, "H"), (4, "I"), (16, "Q"))
        if value < 2 ** (8 * struct.calcsize(code)) and (kind < 16 or layout.big)
    )


@dataclass(frozen=True)
class _Layout:
    """How numbers are written: byte order, and their width in the classic or the big format."""

    order: str
    big: bool

    def unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + code, data)


# Type, number of values, and the bytes that hold the values or their offset.
_Entry = tuple[int, int, bytes]


def _header(file: BinaryIO, path: Path) -> tuple[_Layout, int]:
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = 0 if order is None or len(head) < 8 else struct.unpack(order + "H", head[2:4])[0]
    if order is None or version not in (42, 43) or (version == 43 and len(head) < 16):
        found = hint(path)
        if found and "TIFF file with" not in found:
            raise InputError(f"{path}: found {found}")
        raise InputError(f"{path}: cannot be read as a TIFF image (found {printable(repr(head[:4]))})")
    layout = _Layout(order, version == 43)
    (offset,) = layout.unpack("Q", head[8:16]) if layout.big else layout.unpack("I", head[4:8])
    return layout, offset


def _directory(file: BinaryIO, layout: _Layout, offset: int, size: int) -> tuple[dict[int, _Entry], int]:
    """Return the entries of a directory, and the offset of the next one."""
    head, entry, number, code = (8, 20, "Q", "HHQ") if layout.big else (2, 12, "H", "HHI")
    file.seek(offset)
    (count,) = layout.unpack(number, _exactly(file, head))
    if not 0 < count <= _ENTRIES:
        raise ValueError(f"found {count:,} entries, expected 1 to {_ENTRIES:,}")
    last = 8 if layout.big else 4
    data = _exactly(file, count * entry + last)
    entries: dict[int, _Entry] = {}
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
class _Reader:
    """Reads the values of a directory's entries."""

    file: BinaryIO
    layout: _Layout
    directory: Mapping[int, _Entry]

    def numbers(self, tag: int) -> _Numbers | None:
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


def _bytes(file: BinaryIO, layout: _Layout, entry: _Entry) -> bytes:
    kind, count, value = entry
    size = count * _SIZES[kind]
    if size <= len(value):
        return value[:size]
    (at,) = layout.unpack("Q" if layout.big else "I", value)
    file.seek(at)
    return _exactly(file, size)


def _outside(layout: _Layout, directory: Mapping[int, _Entry]) -> Iterator[tuple[int, int]]:
    """Yield where the values are that are not in the directory itself."""
    for kind, count, value in directory.values():
        size = count * _SIZES.get(kind, 0)
        if size > len(value):
            (at,) = layout.unpack("Q" if layout.big else "I", value)
            yield at, at + size


def _text(file: BinaryIO, layout: _Layout, entry: _Entry | None) -> str:
    if entry is None or entry[0] not in (1, 2, 7):
        return ""
    if entry[1] > DESCRIPTION_BYTES:
        raise ValueError(f"found a description of {entry[1]:,} bytes, expected at most {DESCRIPTION_BYTES:,}")
    return _bytes(file, layout, entry).rstrip(b"\0").decode("utf-8", "replace")


def _page(read: _Reader, size: int) -> tuple[Page, _Extents]:
    """Return a page, and where its pixels are."""
    width, length = read.number(_WIDTH, None), read.number(_LENGTH, None)
    bits, samples = read.number(_BITS, 1), read.number(_SAMPLES, 1)
    if not (0 < width <= SIDE and 0 < length <= SIDE):
        raise ValueError(f"found {width} x {length} pixels, expected 1 to {SIDE:,} a side")
    if not (0 < bits <= 128 and 0 < samples <= 1024):
        raise ValueError(f"found {samples} samples of {bits} bits, expected at most 1024 of at most 128")
    tiled = _TILES in read.directory
    offsets = read.numbers(_TILES if tiled else _STRIPS)
    if offsets is None:
        raise ValueError("found no offsets of its pixels, expected strips or tiles")
    counts = read.numbers(_TILE_BYTES if tiled else _STRIP_BYTES)
    planar = samples if read.number(_PLANAR, 1) == 2 else 1
    rows = read.number(_TILE_LENGTH, None) if tiled else min(read.number(_ROWS, length), length)
    columns = read.number(_TILE_WIDTH, None) if tiled else width
    if not (0 < rows <= SIDE and 0 < columns <= SIDE):
        raise ValueError(f"found strips or tiles of {columns} x {rows} pixels, expected 1 to {SIDE:,} a side")
    depth, layers = (read.number(_IMAGE_DEPTH, 1), read.number(_TILE_DEPTH, 1)) if tiled else (1, 1)
    if not (0 < depth <= PAGES and 0 < layers <= PAGES):
        raise ValueError(f"found {depth} planes in tiles of {layers}, expected 1 to {PAGES:,}")
    expected = planar * -(-length // rows) * (-(-width // columns) if tiled else 1) * -(-depth // layers)
    if len(offsets) != expected or (counts is not None and len(counts) != expected):
        raise ValueError(f"found {len(offsets):,} strips or tiles, expected {expected:,}")
    plain = read.number(_COMPRESSION, 1) == 1
    row_bytes = layers * -(-columns * bits * (samples // planar) // 8)
    whole = np.full(expected, rows, np.uint64)
    if not tiled:
        whole.reshape(planar, -1)[:, -1] = length - (expected // planar - 1) * rows
    needed = whole * np.uint64(row_bytes)
    _check_bytes(offsets, needed if counts is None else counts, needed, plain, tiled, size)
    contiguous = plain and not tiled and bool((offsets[1:] == offsets[:-1] + needed[:-1]).all())
    start = int(offsets[0])
    page = Page(
        width,
        length,
        bits,
        samples,
        read.number(_FORMAT, 1),
        bool(read.number(_SUBFILE, 0) & 5),
        start,
        start + int(needed.sum()) if contiguous else None,
        depth,
    )
    stored = needed if counts is None else np.maximum(counts, needed) if plain else counts
    return page, _joined(offsets, np.minimum(offsets + stored, np.uint64(size)))


def _joined(starts: _Numbers, stops: _Numbers) -> _Extents:
    """Return extents, those that follow each other as one."""
    breaks = np.flatnonzero(starts[1:] != stops[:-1])
    return np.stack([starts[np.append(0, breaks + 1)], stops[np.append(breaks, len(stops) - 1)]], axis=1)


def _check_bytes(
    offsets: _Numbers, counts: _Numbers, pixels: _Numbers, plain: bool, sparse: bool, size: int
) -> None:
    """Raise a :class:`ValueError` if strips or tiles are not in the file, or too short for their pixels."""
    # Some files declare the last strip to be as long as the others.
    used = np.minimum(counts, pixels) if plain else counts
    bad = (
        (offsets < 8)
        | (counts == 0)
        | (offsets > size)
        | (used > np.uint64(size) - np.minimum(offsets, size))
    )
    bad |= (counts < pixels) if plain else (counts > 2 * pixels + np.uint64(2**16))
    if sparse:  # tiles without values, as GDAL writes them
        bad &= (offsets != 0) | (counts != 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"found strip or tile {i} of {int(counts[i]):,} bytes at byte {int(offsets[i]):,}, expected it"
            f" inside of the file of {size:,} bytes, for {int(pixels[i]):,} bytes of pixels"
        )


def check_stack(path: Path, pages: Sequence[Page]) -> int:
    """Check that the pages of a file are one stack, but for reduced images and what follows.

    Returns
    -------
    int
        Number of planes of the stack.

    Raises
    ------
    InputError
        A page is of another size or type.
    """
    first = next((page for page in pages if not page.reduced), pages[0])
    stack = [i for i, page in enumerate(pages) if page.kind == first.kind]
    for i, page in _others(pages, first):
        # Thumbnails, labels and overviews follow a stack.
        follows = i > stack[-1] and (page.samples > first.samples or _smaller(page, first))
        if not follows:
            raise InputError(f"{path}: found page {i} of {page}, expected {first} as page {stack[0]}")
    return len(stack) * first.depth


def _others(pages: Sequence[Page], first: Page) -> Iterator[tuple[int, Page]]:
    return ((i, page) for i, page in enumerate(pages) if page.kind != first.kind and not page.reduced)


def _smaller(page: Page, first: Page) -> bool:
    return 2 * page.width <= first.width + 1 and 2 * page.length <= first.length + 1


def end_of(first: Page, planes: int) -> int | None:
    """Return the last byte plus 1 of planes that follow each other; ``None`` if they are no plain bytes."""
    return None if first.stop is None else first.start + planes * (first.stop - first.start)
