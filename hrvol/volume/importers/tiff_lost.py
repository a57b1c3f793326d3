"""Find pages of a TIFF file that are in no list of pages."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hrvol.volume.importers.tiff_directory import Directories, Page, read_page
from hrvol.volume.importers.tiff_entries import LENGTH, WIDTH, Layout, Reader, read_entries, read_header

_SEARCHED = 64 * 2**20  # bytes at either end of a gap

_FOUND = 1000  # places that may be directories


def find_page(path: Path, directories: Directories) -> int | None:
    """Return the place of a directory that no page refers to, of a page like the first one.

    Earlier versions of directories in the list, which editors leave behind, do not count. Of each gap, the
    first and last 64 MiB are looked through.
    """
    first = next((page for page in directories.pages if not page.reduced), directories.pages[0])
    starts = {page.start for page in directories.pages}
    with path.open("rb") as file:
        layout, _ = read_header(file, path)
        for at in _places(file, layout, directories.gaps, first):
            try:
                entries, _ = read_entries(file, layout, at, directories.size)
                page, _ = read_page(Reader(file, layout, entries), directories.size)
            except (ValueError, struct.error):
                continue
            if page.kind == first.kind and page.start not in starts:
                return at
    return None


def _places(file: BinaryIO, layout: Layout, gaps: Sequence[tuple[int, int]], first: Page) -> Iterator[int]:
    """Yield places of a file where directories of pages of the size of another one may be."""
    width = re.compile(b"|".join(re.escape(value) for value in _values(layout, WIDTH, first.width)))
    lengths = _values(layout, LENGTH, first.length)
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
                found_at = (begin + match.start() - head - i * entry for i in range(3))
                yield from (at for at in found_at if at >= 8)


def _values(layout: Layout, tag: int, value: int) -> tuple[bytes, ...]:
    """Return how an entry of a directory with one number may begin."""
    count = "Q" if layout.big else "I"
    return tuple(
        struct.pack(f"{layout.order}HH{count}{code}", tag, kind, 1, value)
        for kind, code in ((3, "H"), (4, "I"), (16, "Q"))
        if value < 2 ** (8 * struct.calcsize(code)) and (kind < 16 or layout.big)
    )
