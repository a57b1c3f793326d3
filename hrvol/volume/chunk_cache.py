"""Decoded chunks of the input, kept by a process so that each is decoded about once.

A chunk is the least that can be read of a Zarr array, and neighbouring blocks read the same ones: their
windows overlap, and chunks straddle blocks.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box

Index = tuple[int, ...]
Chunk = NDArray[Any]

CAPACITY = 512 * 2**20
"""Bytes of decoded chunks that a process keeps by default."""

RUN_BYTES = 64 * 2**20
"""Bytes of chunks that one call of Zarr reads at most (but at least one chunk): they are in memory beside the
cache until they are sorted into it."""


@dataclass(frozen=True)
class ChunkUses:
    """How many blocks of a run read a chunk; call it with the chunk's index.

    Attributes
    ----------
    rows
        Per axis, and chunk along it: the rows of blocks that read it. A chunk's count is their product.
    axes
        What the axes are called.
    """

    rows: tuple[tuple[int, ...], ...]
    axes: tuple[str, ...] = ("z", "y", "x")

    def __call__(self, index: Index) -> int:
        """Return the number of blocks that read a chunk, 0 or more."""
        return math.prod(counts[i] for counts, i in zip(self.rows, index, strict=True))

    def along(self, axes: Sequence[str]) -> ChunkUses:
        """Return the same for an array of other axes (``Volume.axes``); those not known have one chunk."""
        known = dict(zip(self.axes, self.rows, strict=True))
        return ChunkUses(tuple(known.get(axis, (1,)) for axis in axes), tuple(axes))


def chunk_uses(grid: BlockGrid, chunks: tuple[int, int, int], region: Box | None = None) -> ChunkUses:
    """Count how many blocks of a run read a chunk.

    Parameters
    ----------
    grid
        The run's blocks.
    chunks
        Voxels per chunk of the input, (z, y, x).
    region
        The part of the volume that the run computes; ``None`` is all of it.
    """
    rows = []
    for spans, length, chunk in zip(grid.read_spans(region), grid.shape, chunks, strict=True):
        starts, stops = np.array(spans, np.int64).reshape(-1, 2).T
        change = np.zeros(-(-length // chunk) + 1, np.int64)
        np.add.at(change, starts // chunk, 1)
        np.add.at(change, -(-stops // chunk), -1)
        rows.append(tuple(change[:-1].cumsum().tolist()))
    return ChunkUses(tuple(rows))


class ChunkCache:
    """Reads Zarr arrays through a store of decoded chunks. Any number of threads may share one.

    While one thread decodes a chunk, others that want it wait. What is needed no more goes first, then what
    was not used for longest. Arrays must not be written to meanwhile.

    Parameters
    ----------
    capacity
        Bytes of chunks to keep; 0 keeps none. A selection of more is read as well, and a part of it kept.
        Beside them a read needs its result and at most :data:`RUN_BYTES`, or one chunk.

    Attributes
    ----------
    decoded_bytes, decoded_chunks
        What Zarr has decoded so far, chunks cut at the border of their array.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.decoded_bytes = 0
        self.decoded_chunks = 0
        self._lock = threading.Lock()
        self._held = 0  # bytes kept, or promised to chunks that are being read
        self._kept: OrderedDict[_Key, Chunk] = OrderedDict()  # the one not used for longest is the first
        self._coming: dict[_Key, Future[Chunk | None]] = {}
        self._left: dict[_Key, int] = {}
        self._arrays: dict[int, zarr.Array[Any]] = {}  # kept alive: their ids are parts of keys

    @property
    def held_bytes(self) -> int:
        """Bytes kept, or promised to chunks that are being read; never more than the capacity."""
        return self._held

    def read(
        self,
        array: zarr.Array[Any],
        selection: tuple[slice | int, ...],
        uses: Callable[[Index], int] | None = None,
    ) -> NDArray[Any]:
        """Return ``array[selection]``, in memory of its own.

        Parameters
        ----------
        array
            Of Zarr format 2 or 3, with or without shards.
        selection
            Per axis a slice of step 1, or the number of an element, whose axis is dropped.
        uses
            How often each chunk is read in all (a block is one read); one that was read so often is dropped.
            Reads without ``uses`` do not count.

        Raises
        ------
        IndexError
            The selection does not fit the array.
        Exception
            Whatever the store or a codec raises. Chunks that were read before are kept, the others are read
            when they are wanted again.
        """
        spans = _spans(selection, array.shape)
        out = np.empty([len(span) for span in spans], array.dtype)
        request = _Request(array, spans, out, uses)
        missing = request.indices()
        while missing:
            here, claimed, awaited = self._claim(request, missing)
            self._fetch(request, claimed)  # first, as others may wait for it
            for index, chunk in here.items():
                request.place(index, chunk)
            # Where another thread failed to read a chunk, or one that it read with it, this one tries.
            missing = [index for index, chunk in awaited.items() if not request.place(index, chunk.result())]
        self._count(request)
        return out.reshape([len(s) for s, at in zip(spans, selection, strict=True) if isinstance(at, slice)])

    def _claim(
        self, request: _Request, indices: Collection[Index]
    ) -> tuple[dict[Index, Chunk], dict[Index, bool], dict[Index, Future[Chunk | None]]]:
        """Return chunks that are here, those that this thread must read (and which to keep), those coming."""
        here: dict[Index, Chunk] = {}
        claimed: dict[Index, bool] = {}
        awaited: dict[Index, Future[Chunk | None]] = {}
        with self._lock:
            self._arrays[id(request.array)] = request.array
            for index in indices:
                key = request.key(index)
                if key in self._kept:
                    self._kept.move_to_end(key)
                    here[index] = self._kept[key]
                elif key in self._coming:
                    awaited[index] = self._coming[key]
                else:
                    claimed[index] = request.uses is None or self._left.get(key, request.uses(index)) > 1
            for index, again in claimed.items():
                self._coming[request.key(index)] = Future()
                claimed[index] = again and self._reserve(request.nbytes(index))
        return here, claimed, awaited

    def _reserve(self, size: int) -> bool:
        """Make room for a chunk; false if there cannot be any."""
        if size > self.capacity:
            return False
        while self._held + size > self.capacity:
            if not self._kept:  # all room is promised
                return False
            _, oldest = self._kept.popitem(last=False)
            self._held -= oldest.nbytes
        self._held += size
        return True

    def _fetch(self, request: _Request, claimed: Mapping[Index, bool]) -> None:
        """Read the chunks that were claimed, in boxes: what one call asks for, Zarr fetches side by side."""
        largest = max((request.nbytes(index) for index in claimed), default=1)
        open_claims = dict(claimed)
        try:
            for run in _runs(claimed, max(RUN_BYTES // max(largest, 1), 1)):
                values = np.asarray(request.array[request.box(run)])
                for index in product(*run):
                    part = values[request.within(index, run)]
                    # A copy, because a view would hold on to the whole run.
                    chunk = part.copy() if claimed[index] else part
                    request.place(index, chunk)
                    self._settle(request, index, chunk, open_claims.pop(index))
        finally:
            for index, keep in open_claims.items():
                self._settle(request, index, None, keep)

    def _settle(self, request: _Request, index: Index, chunk: Chunk | None, keep: bool) -> None:
        """Hand a chunk to those who wait, and keep it if room was made; ``None`` if it was not read."""
        key = request.key(index)
        with self._lock:
            coming = self._coming.pop(key)
            if chunk is None:
                self._held -= keep * request.nbytes(index)
            else:
                self.decoded_bytes += chunk.nbytes
                self.decoded_chunks += 1
                if keep:
                    self._kept[key] = chunk
        coming.set_result(chunk)

    def _count(self, request: _Request) -> None:
        """Count a read of chunks, and drop those that were read for the last time."""
        if request.uses is None:
            return
        with self._lock:
            for index in request.indices():
                key = request.key(index)
                left = self._left.pop(key, None)
                left = (request.uses(index) if left is None else left) - 1
                if left > 0:
                    self._left[key] = left
                elif key in self._kept:
                    self._held -= self._kept.pop(key).nbytes


_Key = tuple[int, Index]


@dataclass(frozen=True, eq=False)
class _Request:
    """One read: what of which array goes where. Chunks are known by their index in the array's grid."""

    array: zarr.Array[Any]
    spans: tuple[range, ...]
    out: NDArray[Any]
    uses: Callable[[Index], int] | None

    def indices(self) -> list[Index]:
        """Return the chunks that the read touches."""
        sides = zip(self.spans, self.array.chunks, strict=True)
        rows = (range(s.start // side, -(-s.stop // side)) if len(s) else range(0) for s, side in sides)
        return list(product(*rows))

    def key(self, index: Index) -> _Key:
        """Return what tells a chunk from those of other arrays."""
        return id(self.array), index

    def box(self, run: Sequence[range]) -> tuple[slice, ...]:
        """Return the elements of a box of chunks, as a selection of the array."""
        return tuple(
            slice(rows.start * side, min(rows.stop * side, length))
            for rows, side, length in zip(run, self.array.chunks, self.array.shape, strict=True)
        )

    def within(self, index: Index, run: Sequence[range]) -> tuple[slice, ...]:
        """Return a chunk as a selection of a box of chunks (which cuts it at the array's border)."""
        return tuple(
            slice((i - rows.start) * side, (i + 1 - rows.start) * side)
            for i, rows, side in zip(index, run, self.array.chunks, strict=True)
        )

    def nbytes(self, index: Index) -> int:
        """Return the size of a chunk, cut at the array's border."""
        box = self.box([range(i, i + 1) for i in index])
        sides: list[int] = [span.stop - span.start for span in box]
        return math.prod(sides) * self.array.dtype.itemsize

    def place(self, index: Index, chunk: Chunk | None) -> bool:
        """Copy what is wanted of a chunk to the result; false if there is no chunk."""
        if chunk is None:
            return False
        inner, outer = [], []
        for i, side, span in zip(index, self.array.chunks, self.spans, strict=True):
            start, stop = max(i * side, span.start), min((i + 1) * side, span.stop)
            inner.append(slice(start - i * side, stop - i * side))
            outer.append(slice(start - span.start, stop - span.start))
        self.out[tuple(outer)] = chunk[tuple(inner)]
        return True


def _spans(selection: Sequence[slice | int], shape: Sequence[int]) -> tuple[range, ...]:
    """Write a selection as one range of elements per axis."""
    if len(selection) != len(shape):
        raise IndexError(f"found a selection of {len(selection)} axes, expected {len(shape)}")
    spans = []
    for at, length in zip(selection, shape, strict=True):
        span = range(length)[at] if isinstance(at, slice) else range(at, at + 1)
        if span.step != 1 or not (isinstance(at, slice) or 0 <= at < length):
            raise IndexError(f"found {at} in a selection, expected step 1 and elements of 0:{length}")
        spans.append(range(span.start, max(span.start, span.stop)))
    return tuple(spans)


def _runs(indices: Collection[Index], most: int) -> Iterator[tuple[range, ...]]:
    """Divide chunks into boxes of at most ``most`` of them: few, though not always the fewest."""
    left = set(indices)
    for first in sorted(indices):
        if first not in left:
            continue
        run = [range(i, i + 1) for i in first]
        for axis in reversed(range(len(run))):
            while math.prod(map(len, run)) // len(run[axis]) * (len(run[axis]) + 1) <= most:
                beyond = [*run]
                beyond[axis] = range(run[axis].stop, run[axis].stop + 1)
                if not left.issuperset(product(*beyond)):
                    break
                run[axis] = range(run[axis].start, run[axis].stop + 1)
        left.difference_update(product(*run))
        yield tuple(run)
