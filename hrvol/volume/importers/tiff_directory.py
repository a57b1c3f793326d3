"""Read the directories of a TIFF file, one per page, and check that the pixels they name are there.

tifffile takes a chain of pages that breaks off for its end, and does not look at the size of later pages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.tiff_entries import (
    BITS,
    COMPRESSION,
    DESCRIPTION,
    FORMAT,
    IMAGE_DEPTH,
    LENGTH,
    NESTED,
    PLANAR,
    PRIVATE,
    ROWS,
    SAMPLES,
    STRIP_BYTES,
    STRIPS,
    SUBFILE,
    TILE_BYTES,
    TILE_DEPTH,
    TILE_LENGTH,
    TILE_WIDTH,
    TILES,
    WIDTH,
    Numbers,
    Reader,
    outside,
    read_entries,
    read_header,
    text_of,
)

PAGES = 2**20
"""Most pages of a file."""

SIDE = 2**31
"""Most pixels along a side of a page."""

# Parts of a file by their first bytes and the bytes behind them.
_Extents = np.ndarray[tuple[int, int], np.dtype[np.uint64]]

_EXTENTS = 2**22  # of a file

_GAPS = 16  # the largest, of a file


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
        behind them.
    nested
        Whether there may be directories that only their makers know.
    """

    pages: tuple[Page, ...]
    description: str
    size: int
    gaps: tuple[tuple[int, int], ...]
    nested: bool


def read_directories(path: Path) -> Directories:
    """Read all directories of a file, and check that they end, and that all pixels are inside the file.

    Raises
    ------
    InputError
        The file is no TIFF file, or damaged; the message names the page.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        layout, offset = read_header(file, path)
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
                directory, offset = read_entries(file, layout, offset, size)
                parts = [(place, file.tell()), *outside(layout, directory)]
                if number == 0:
                    description = text_of(file, layout, directory.get(DESCRIPTION))
                nested = nested or any(tag in NESTED or tag >= PRIVATE for tag in directory)
                page, pixels = read_page(Reader(file, layout, directory), size)
                pages.append(page)
                if known <= _EXTENTS:
                    extents += [np.array(parts, np.uint64), pixels]
                    known += len(parts) + len(pixels)
            except (ValueError, struct.error) as error:
                raise InputError(f"{path}: page {number}: {printable(str(error))}") from None
    if not pages:
        raise InputError(f"{path}: found a TIFF file without pages, expected an image")
    gaps = () if known > _EXTENTS else _gaps(np.concatenate(extents), size)
    return Directories(tuple(pages), description, size, gaps, nested)


def _gaps(extents: _Extents, size: int) -> tuple[tuple[int, int], ...]:
    """Return the largest parts of a file that are in no extent."""
    extents = extents[np.argsort(extents[:, 0])]
    starts = np.maximum.accumulate(np.append(np.uint64(8), extents[:, 1]))
    stops = np.append(extents[:, 0], np.uint64(size))
    widths = np.where(stops > starts, stops - starts, np.uint64(0))
    largest = np.sort(np.argsort(widths)[-_GAPS:])
    return tuple((int(starts[i]), int(stops[i])) for i in largest if widths[i])


def read_page(read: Reader, size: int) -> tuple[Page, _Extents]:
    """Return a page, and where its pixels are."""
    width, length = read.number(WIDTH, None), read.number(LENGTH, None)
    bits, samples = read.number(BITS, 1), read.number(SAMPLES, 1)
    if not (0 < width <= SIDE and 0 < length <= SIDE):
        raise ValueError(f"found {width} x {length} pixels, expected 1 to {SIDE:,} a side")
    if not (0 < bits <= 128 and 0 < samples <= 1024):
        raise ValueError(f"found {samples} samples of {bits} bits, expected at most 1024 of at most 128")
    tiled = TILES in read.directory
    offsets = read.numbers(TILES if tiled else STRIPS)
    if offsets is None:
        raise ValueError("found no offsets of its pixels, expected strips or tiles")
    counts = read.numbers(TILE_BYTES if tiled else STRIP_BYTES)
    planar = samples if read.number(PLANAR, 1) == 2 else 1
    rows = read.number(TILE_LENGTH, None) if tiled else min(read.number(ROWS, length), length)
    columns = read.number(TILE_WIDTH, None) if tiled else width
    if not (0 < rows <= SIDE and 0 < columns <= SIDE):
        raise ValueError(f"found strips or tiles of {columns} x {rows} pixels, expected 1 to {SIDE:,} a side")
    depth, layers = (read.number(IMAGE_DEPTH, 1), read.number(TILE_DEPTH, 1)) if tiled else (1, 1)
    if not (0 < depth <= PAGES and 0 < layers <= PAGES):
        raise ValueError(f"found {depth} planes in tiles of {layers}, expected 1 to {PAGES:,}")
    expected = planar * -(-length // rows) * (-(-width // columns) if tiled else 1) * -(-depth // layers)
    if len(offsets) != expected or (counts is not None and len(counts) != expected):
        raise ValueError(f"found {len(offsets):,} strips or tiles, expected {expected:,}")
    plain = read.number(COMPRESSION, 1) == 1
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
        read.number(FORMAT, 1),
        bool(read.number(SUBFILE, 0) & 5),
        start,
        start + int(needed.sum()) if contiguous else None,
        depth,
    )
    stored = needed if counts is None else np.maximum(counts, needed) if plain else counts
    return page, _joined(offsets, np.minimum(offsets + stored, np.uint64(size)))


def _joined(starts: Numbers, stops: Numbers) -> _Extents:
    """Return extents, those that follow each other as one."""
    breaks = np.flatnonzero(starts[1:] != stops[:-1])
    return np.stack([starts[np.append(0, breaks + 1)], stops[np.append(breaks, len(stops) - 1)]], axis=1)


def _check_bytes(
    offsets: Numbers, counts: Numbers, pixels: Numbers, plain: bool, sparse: bool, size: int
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
    bad |= counts > 2 * (pixels.max() if plain else pixels) + np.uint64(2**16)
    if plain:
        bad |= counts < pixels
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
