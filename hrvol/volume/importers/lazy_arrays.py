"""Arrays in files that are read box by box: their bytes, plane by plane, or as a whole once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.progress import format_size
from hrvol.volume.plain_bytes import read_box

WHOLE_BYTES = 2 * 2**30
"""Most bytes of an array that can be decoded as a whole only: it is in the memory of each process."""

Selection = tuple[int | slice, ...]


class SlicedArray:
    """An array that a function reads.

    Parameters
    ----------
    read
        Returns the values of a selection: one integer or slice of step 1 per axis.
    shape, dtype, chunks
        Of the array; ``chunks`` is what is decoded at least for one voxel.
    decodes
        Whether chunks are decoded as a whole, so that a cache of them pays; else reading a box costs little
        more than its own bytes.

    Attributes
    ----------
    files
        Paths of the files along the first axis, if there is one for each index.
    """

    def __init__(
        self,
        read: Callable[[Selection], NDArray[Any]],
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int],
        *,
        decodes: bool = True,
    ) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype)
        self.chunks = tuple(int(side) for side in chunks)
        self.decodes = decodes
        self._read = read
        self.files: tuple[str, ...] | None = None

    def __getitem__(self, selection: Selection) -> NDArray[Any]:
        return self._read(selection)


class PlainArray:
    """An array of plain bytes in a file: reading a box touches its own rows only, and decodes nothing.

    See :mod:`hrvol.volume.plain_bytes`.

    Parameters
    ----------
    path
        The file.
    dtype
        Type with its byte order.
    shape, offset
        Of the array; bytes before it.
    order
        ``"C"``: the last axis is the fastest, or ``"F"``.
    chunks
        What is shown as chunks; ``None``: there are none.
    """

    decodes = False

    def __init__(
        self,
        path: Path,
        dtype: Any,
        shape: Sequence[int],
        offset: int,
        order: str = "C",
        chunks: Sequence[int] | None = None,
    ) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype)
        self.chunks = None if chunks is None else tuple(int(side) for side in chunks)
        self._path, self._offset, self._reverse = path, offset, order == "F"

    def __getitem__(self, selection: Any) -> NDArray[Any]:
        key = selection if isinstance(selection, tuple) else (selection,)
        if len(key) != len(self.shape) or not all(map(_is_plain, key)):
            order: Any = "F" if self._reverse else "C"
            whole = np.memmap(self._path, self.dtype, "r", self._offset, self.shape, order)
            return np.array(whole[selection])
        spans = [
            range(length)[at] if isinstance(at, slice) else range(at, at + 1)
            for at, length in zip(key, self.shape, strict=True)
        ]
        sides = zip(spans, self.shape, strict=True)
        if any(len(span) and not 0 <= span[0] <= span[-1] < length for span, length in sides):
            raise IndexError(f"found {key}, expected elements of {self.shape}")
        turn = -1 if self._reverse else 1
        with self._path.open("rb", buffering=0) as file:
            values = read_box(file.fileno(), self.dtype, self.shape[::turn], self._offset, spans[::turn])
        values = values.T if self._reverse else values
        return values.reshape([len(s) for s, at in zip(spans, key, strict=True) if isinstance(at, slice)])


def _is_plain(at: Any) -> bool:
    return isinstance(at, int | np.integer) or (isinstance(at, slice) and at.step in (None, 1))


def mapped(
    source: str,
    path: Path,
    dtype: Any,
    shape: Sequence[int],
    offset: int,
    order: str = "C",
) -> PlainArray:
    """Return an array of plain bytes in a file, of which the operating system reads what is accessed.

    Parameters
    ----------
    source
        Name for messages.
    path, dtype, shape, offset, order
        As of :class:`PlainArray`; its chunks are rows.

    Raises
    ------
    InputError
        The file is too short.
    """
    kind, sides = np.dtype(dtype), tuple(int(side) for side in shape)
    if kind.hasobject or not kind.itemsize:
        raise InputError(f"{source}: found type {kind}, expected numbers")
    needed, size = offset + math.prod(sides) * kind.itemsize, path.stat().st_size
    if needed > size or offset < 0 or min(sides, default=0) < 1:
        raise InputError(
            f"{source}: found {size:,} bytes in {path.name}, expected at least {needed:,} for shape {sides}"
        )
    row = (*[1] * (len(sides) - 1), sides[-1]) if order == "C" else (sides[0], *[1] * (len(sides) - 1))
    return PlainArray(path, kind, sides, offset, order, row)


class WholeArray:
    """An array that can be decoded as a whole only, once, when it is first read.

    Parameters
    ----------
    source, kind
        Name and format of the file, for messages.
    load
        Returns the values.
    shape, dtype
        Of the array.

    Raises
    ------
    InputError
        It has more than :data:`WHOLE_BYTES`.
    """

    def __init__(
        self, source: str, kind: str, load: Callable[[], NDArray[Any]], shape: Sequence[int], dtype: Any
    ) -> None:
        self.shape = self.chunks = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype)
        self._load = load
        self._values: NDArray[Any] | None = None
        self._lock = threading.Lock()
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > WHOLE_BYTES:
            raise InputError(
                f"{source}: found {kind} of {format_size(size)}, which can be decoded as a whole only;"
                f" expected at most {format_size(WHOLE_BYTES)}: decompress it, or convert it to HDF5"
                " or OME-Zarr"
            )

    def __getitem__(self, selection: Selection) -> NDArray[Any]:
        with self._lock:
            if self._values is None:
                values = self._load()
                if values.shape != self.shape:
                    raise ValueError(f"found values of shape {values.shape}, expected {self.shape}")
                self._values = values
        chosen: NDArray[Any] = self._values[selection]
        return chosen


def plane_array(
    read: Callable[[int], NDArray[Any]], count: int, plane: Sequence[int], dtype: Any
) -> SlicedArray:
    """Return an array of planes that are decoded one by one.

    Parameters
    ----------
    read
        Returns the n-th plane.
    count
        Number of planes.
    plane, dtype
        Shape of a plane, and its type; a plane of another shape is an error when it is read.
    """
    sides, kind = tuple(plane), np.dtype(dtype)

    def select(selection: Selection) -> NDArray[Any]:
        first, rest = selection[0], selection[1:]
        numbers = range(count)[first] if isinstance(first, slice) else [first]
        values = [np.asarray(_checked(read(number), number))[rest] for number in numbers]
        return np.stack(values) if isinstance(first, slice) else values[0]

    def _checked(values: NDArray[Any], number: int) -> NDArray[Any]:
        if values.shape != sides or values.dtype != kind:
            raise ValueError(
                f"found plane {number} of shape {values.shape} and type {values.dtype}, expected {sides} and"
                f" {kind}"
            )
        return values

    return SlicedArray(select, (count, *sides), kind, (1, *sides))


def read_exactly(stream: Any, offset: int, count: int) -> bytearray:
    """Return bytes of a decompressing stream, and no more than these.

    Raises
    ------
    ValueError
        The stream ends before.
    """
    skipped = 0
    while skipped < offset:
        part = stream.read(min(2**20, offset - skipped))
        if not part:
            break
        skipped += len(part)
    data = bytearray()
    while len(data) < count:
        part = stream.read(min(2**24, count - len(data)))
        if not part:
            raise ValueError(f"found {len(data):,} bytes of values, expected {count:,}")
        data += part
    return data
