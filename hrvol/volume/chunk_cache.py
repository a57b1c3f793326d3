"""Cache decoded chunks of the input in a process, so that each is decoded about once.

A chunk is the smallest unit that can be read of an array: a chunk of Zarr or HDF5, a plane of a stack of
images. Neighbouring blocks read the same chunks: the windows of their tiles overlap, and chunks straddle
blocks.
"""

from __future__ import annotations

import logging
import math
import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.volume.grid.order import BlockGrid, Spans
from hrvol.volume.grid.tiling import Box
from hrvol.volume.scratch import Scratch, StoredChunk

LOG = logging.getLogger("hrvol.run")

Index = tuple[int, ...]
Chunk = NDArray[Any] | StoredChunk

CAPACITY = 512 * 2**20
"""Default size of the cache of a process, in bytes of decoded chunks."""

LARGE = 2**21
"""Bytes of a chunk from which on it is kept in pages of its own."""

RUN_BYTES = 64 * 2**20
"""Most bytes of chunks that one call of Zarr reads (at least one chunk): they are in memory beside the cache
until they are copied into it."""


@dataclass(frozen=True)
class ChunkUses:
    """Number of blocks of a run that read a chunk; call it with the chunk's index.

    Attributes
    ----------
    rows
        Per axis and chunk along it, the number of rows of blocks that read it. The count of a chunk is the
        product over the axes.
    axes
        Names of the axes.
    """

    rows: tuple[tuple[int, ...], ...]
    axes: tuple[str, ...] = ("z", "y", "x")

    def __call__(self, index: Index) -> int:
        """Return the number of blocks that read a chunk, 0 or more."""
        return math.prod(
            counts[i] for counts, axis, i in zip(self.rows, self.axes, index, strict=True) if axis
        )

    def along(self, axes: Sequence[str]) -> ChunkUses:
        """Return the counts for an array with these axes (``Volume.axes``); others do not count."""
        rows = dict(zip(self.axes, self.rows, strict=True))
        return ChunkUses(tuple(rows.get(axis, (1,)) for axis in axes), tuple(axes))


def chunk_uses(grid: BlockGrid, chunks: Shape3, region: Box | None = None) -> ChunkUses:
    """Count the blocks of a run that read each chunk.

    Parameters
    ----------
    grid
        Blocks of the run.
    chunks
        Voxels per chunk of the input, (z, y, x).
    region
        Region of the volume that the run computes; ``None`` is all of it.
    """
    return uses_of(grid.read_spans(region), grid.shape, chunks)


def uses_of(reads: Sequence[Spans], shape: Shape3, chunks: Shape3) -> ChunkUses:
    """Count the reads of each chunk, given the voxels (start, stop) of all rows of reads per axis.

    Parameters
    ----------
    reads
        For z, y and x, in order; a read is the product of three spans.
    shape, chunks
        Of the array, (z, y, x).
    """
    rows = []
    for spans, length, chunk in zip(reads, shape, chunks, strict=True):
        starts, stops = np.array(spans, np.int64).reshape(-1, 2).T
        change = np.zeros(-(-length // chunk) + 1, np.int64)
        np.add.at(change, starts // chunk, 1)
        np.add.at(change, -(-stops // chunk), -1)
        rows.append(tuple(change[:-1].cumsum().tolist()))
    return ChunkUses(tuple(rows))


class ChunkCache:
    """Read arrays through a cache of decoded chunks, shared by any number of threads.

    While one thread decodes a chunk, others that need it wait. Chunks that no read needs any more are evicted
    first, then the least recently used. If arrays are written to meanwhile, reads have to name versions.

    Parameters
    ----------
    capacity
        Bytes of chunks to keep; 0 keeps none. Of a selection larger than that only some chunks are kept.
        In addition, a read needs memory for its result and at most :data:`RUN_BYTES`, or one chunk.
    scratch
        Folder of a file that keeps them; ``None``: they are kept in memory.

    Attributes
    ----------
    held_bytes
        Bytes kept, or reserved for chunks that are being read; at most the capacity.
    decoded_bytes, decoded_chunks
        Amount that was decoded so far; chunks are clipped at the border of their array.
    """

    def __init__(self, capacity: int = CAPACITY, scratch: str | None = None) -> None:
        self.capacity = capacity
        self._scratch = None if scratch is None else Scratch(scratch)
        self._warned = False
        self.held_bytes = 0
        self.decoded_bytes = 0
        self.decoded_chunks = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Chunk] = OrderedDict()  # least recently used first
        self._pending: dict[_Key, Future[Chunk | None]] = {}
        self._uses_left: dict[_Key, int] = {}
        self._arrays: dict[int, Any] = {}  # kept alive because their ids are in the keys

    def read(
        self,
        array: Any,
        selection: tuple[slice | int, ...],
        uses: Callable[[Index], int] | None = None,
        version: Callable[[Index], Hashable] | None = None,
    ) -> NDArray[Any]:
        """Return ``array[selection]`` as a new array.

        Parameters
        ----------
        array
            Zarr array of format 2 or 3, with or without shards; or any array with ``shape``, ``dtype``,
            ``chunks`` and slicing.
        selection
            One slice of step 1, or one index, per axis. An axis with an index is dropped.
        uses
            Total number of reads of each chunk (a block is one read); it is evicted after the last. Reads
            without ``uses`` are not counted.
        version
            Version of each chunk's stored bytes: a chunk that was read in another version is read again.

        Raises
        ------
        IndexError
            The selection does not fit the array.
        Exception
            Any error of the store or a codec. Chunks read before it are kept; the others are read by the next
            request.
        """
        spans = _spans(selection, array.shape)
        out = np.empty([len(span) for span in spans], array.dtype)
        request = _Request(array, spans, out, uses, version)
        missing = request.indices()
        while missing:
            kept, claimed, awaited = self._claim(request, missing)
            self._fetch(request, claimed)  # first, because other threads may wait for these
            for index, chunk in kept.items():
                request.copy_to_result(index, chunk)
            # A chunk that another thread failed to read is read by this one.
            missing = [
                index
                for index, future in awaited.items()
                if not request.copy_to_result(index, future.result())
            ]
        self._count(request)
        return out.reshape([len(s) for s, at in zip(spans, selection, strict=True) if isinstance(at, slice)])

    def _claim(
        self, request: _Request, indices: Collection[Index]
    ) -> tuple[dict[Index, Chunk], dict[Index, bool], dict[Index, Future[Chunk | None]]]:
        """Divide chunks into kept ones, ones this thread must read (value: whether to keep), pending ones."""
        kept: dict[Index, Chunk] = {}
        claimed: dict[Index, bool] = {}
        awaited: dict[Index, Future[Chunk | None]] = {}
        with self._lock:
            self._arrays[id(request.array)] = request.array
            for index in indices:
                key = request.key(index)
                if key in self._kept:
                    self._kept.move_to_end(key)
                    kept[index] = self._kept[key]
                elif key in self._pending:
                    awaited[index] = self._pending[key]
                else:
                    claimed[index] = request.uses is None or self._uses_left.get(key, request.uses(index)) > 1
            for index, read_again in claimed.items():
                self._pending[request.key(index)] = Future()
                claimed[index] = read_again and self._reserve(request.nbytes(index))
        return kept, claimed, awaited

    def _reserve(self, size: int) -> bool:
        """Reserve bytes for a chunk, evicting others; false if there is not enough room."""
        if size > self.capacity:
            return False
        while self.held_bytes + size > self.capacity:
            if not self._kept:  # all room is reserved
                return False
            _, oldest = self._kept.popitem(last=False)
            self.held_bytes -= oldest.nbytes
        self.held_bytes += size
        return True

    def _fetch(self, request: _Request, claimed: Mapping[Index, bool]) -> None:
        """Read the claimed chunks in boxes: Zarr fetches the chunks of one call concurrently."""
        largest = max((request.nbytes(index) for index in claimed), default=1)
        unread = dict(claimed)
        try:
            for run in chunk_runs(claimed, max(RUN_BYTES // max(largest, 1), 1)):
                values = np.asarray(request.array[request.box(run)])
                for index in product(*run):
                    view = values[request.within(index, run)]
                    request.copy_to_result(index, view)
                    kept = self._storable(view) if claimed[index] else None
                    self._deliver(request, index, view if kept is None else kept, unread.pop(index), kept)
        finally:
            for index, reserved in unread.items():
                self._deliver(request, index, None, reserved, None)

    def _storable(self, view: NDArray[Any]) -> Chunk | None:
        """Return a copy of a chunk to keep: a view would keep all of its run in memory."""
        if self._scratch is None:
            return _own_memory(view) if view.nbytes >= LARGE else view.copy()
        try:
            return self._scratch.keep(view)
        except OSError as error:
            if not self._warned:
                LOG.warning("scratch file: %s; chunks are decoded again", error.strerror or error)
            self._warned = True
            return None

    def _deliver(
        self, request: _Request, index: Index, chunk: Chunk | None, reserved: bool, kept: Chunk | None
    ) -> None:
        """Pass a chunk to waiting threads (``None`` if reading failed), and keep it if it can be kept."""
        key = request.key(index)
        with self._lock:
            pending = self._pending.pop(key)
            if chunk is not None:
                self.decoded_bytes += chunk.nbytes
                self.decoded_chunks += 1
            if kept is not None:
                self._kept[key] = kept
            elif reserved:
                self.held_bytes -= request.nbytes(index)
        pending.set_result(chunk)

    def _count(self, request: _Request) -> None:
        """Count a read of chunks, and evict those that were read for the last time."""
        if request.uses is None:
            return
        with self._lock:
            for index in request.indices():
                key = request.key(index)
                left = self._uses_left.pop(key, None)
                left = (request.uses(index) if left is None else left) - 1
                if left > 0:
                    self._uses_left[key] = left
                elif key in self._kept:
                    self.held_bytes -= self._kept.pop(key).nbytes


def _own_memory(view: NDArray[Any]) -> NDArray[Any]:
    """Return a copy in pages of its own.

    Chunks of one layer are allocated by several threads. Their heaps would keep what is free again, each as
    much as the whole cache.
    """
    pages = mmap.mmap(-1, view.nbytes)
    copy: NDArray[Any] = np.frombuffer(pages, view.dtype).reshape(view.shape)
    copy[...] = view
    return copy


_Key = tuple[int, Index, Hashable]


@dataclass(frozen=True, eq=False)
class _Request:
    """One read of an array into a result. A chunk is identified by its index in the grid of chunks."""

    array: Any
    spans: tuple[range, ...]
    out: NDArray[Any]
    uses: Callable[[Index], int] | None
    version: Callable[[Index], Hashable] | None

    def indices(self) -> list[Index]:
        """Return the indices of the chunks that the read touches."""
        sides = zip(self.spans, self.array.chunks, strict=True)
        rows = (range(s.start // side, -(-s.stop // side)) if len(s) else range(0) for s, side in sides)
        return list(product(*rows))

    def key(self, index: Index) -> _Key:
        """Return a key of a chunk that is unique among arrays."""
        return id(self.array), index, None if self.version is None else self.version(index)

    def box(self, run: Sequence[range]) -> tuple[slice, ...]:
        """Return a box of chunks as a selection of the array."""
        return tuple(
            slice(rows.start * side, min(rows.stop * side, length))
            for rows, side, length in zip(run, self.array.chunks, self.array.shape, strict=True)
        )

    def within(self, index: Index, run: Sequence[range]) -> tuple[slice, ...]:
        """Return a chunk as a selection of a box of chunks, which clips it at the array's border."""
        return tuple(
            slice((i - rows.start) * side, (i + 1 - rows.start) * side)
            for i, rows, side in zip(index, run, self.array.chunks, strict=True)
        )

    def nbytes(self, index: Index) -> int:
        """Return the bytes of a chunk, clipped at the array's border."""
        box = self.box([range(i, i + 1) for i in index])
        sides: list[int] = [span.stop - span.start for span in box]
        return math.prod(sides) * int(self.array.dtype.itemsize)

    def copy_to_result(self, index: Index, chunk: Chunk | None) -> bool:
        """Copy the selected elements of a chunk to the result; false if there is no chunk."""
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
    """Return a selection as one range of elements per axis."""
    if len(selection) != len(shape):
        raise IndexError(f"found a selection of {len(selection)} axes, expected {len(shape)}")
    spans = []
    for at, length in zip(selection, shape, strict=True):
        span = range(length)[at] if isinstance(at, slice) else range(at, at + 1)
        if span.step != 1 or not (isinstance(at, slice) or 0 <= at < length):
            raise IndexError(f"found {at} in a selection, expected step 1 and elements of 0:{length}")
        spans.append(range(span.start, max(span.start, span.stop)))
    return tuple(spans)


def chunk_runs(indices: Collection[Index], most: int) -> Iterator[tuple[range, ...]]:
    """Divide chunks into boxes of at most ``most`` chunks: few boxes, not always the fewest."""
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
