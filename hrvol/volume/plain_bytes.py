"""Read boxes of arrays that lie in a file as plain bytes, in C order.

They are read, not mapped: what is mapped counts as memory of the process, up to the size of the file, and a
file that becomes shorter meanwhile would kill the process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDE = 16
"""Rows so many times as long as what is read of them are read piece by piece, others as a whole."""


def read_box(
    handle: int, dtype: np.dtype[Any], shape: Sequence[int], offset: int, spans: Sequence[range]
) -> NDArray[Any]:
    """Return a box of an array.

    Parameters
    ----------
    handle
        Descriptor of the open file.
    dtype, shape, offset
        Of the array; bytes before it.
    spans
        Elements per axis, inside the array.

    Raises
    ------
    ValueError
        The file ends before.
    """
    missing = max(2 - len(shape), 0)
    sides, ranges = [1] * missing + list(shape), [range(1)] * missing + list(spans)
    *lead, rows, columns = ranges
    out = np.empty([len(span) for span in ranges], dtype)
    if out.size:
        row = sides[-1]
        narrow = len(columns) * _WIDE < row
        buffer = np.empty((0 if narrow else len(rows), row), dtype)
        for place in product(*(range(len(span)) for span in lead)):
            index = tuple(span[i] for span, i in zip(lead, place, strict=True))
            plane = int(np.ravel_multi_index(index, tuple(sides[:-2]))) if index else 0
            start = offset + (plane * sides[-2] + rows.start) * row * dtype.itemsize
            if not narrow:
                _fill(handle, buffer, start)
                out[place] = buffer[:, columns.start : columns.stop]
                continue
            for number, line in enumerate(out[place]):
                _fill(handle, line, start + (number * row + columns.start) * dtype.itemsize)
    return out.reshape([len(span) for span in spans])


def _fill(handle: int, values: NDArray[Any], start: int) -> None:
    """Read values that follow each other in a file."""
    view = _bytes_of(values)
    while view:
        count = os.preadv(handle, [view], start)
        if not count:
            raise ValueError(
                f"found the end of the file at byte {start:,}, expected {len(view):,} bytes more"
            )
        view, start = view[count:], start + count


def _bytes_of(values: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, without a copy."""
    flat: Any = values.view(np.uint8)
    return memoryview(flat).cast("B")


def write_all(handle: int, values: NDArray[Any], start: int) -> None:
    """Write values (C order) at a place of a file; :class:`OSError` if the disk is full."""
    view = _bytes_of(np.ascontiguousarray(values))
    while view:
        count = os.pwrite(handle, view, start)
        view, start = view[count:], start + count
