"""Keep chunks of strokes in memory: those that are in use, those that are not saved yet, and their counts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid, ChunkReader
from hrvol.volume.drawing_store.piece import Patch, Piece
from hrvol.volume.grid.tiling import Box, box_shape, intersection
from hrvol.volume.strokes.painted import Painted

MEMORY = 128 * 2**20
"""Bytes of decoded chunks that are kept."""

_POINTS = 64 * 2**20  # bytes of lists of drawn voxels that are kept

Counts = dict[tuple[int, int], int]
"""Voxels of a chunk by plane of the volume and class value."""

Points = tuple[NDArray[np.uint32], NDArray[np.uint16]]
"""Places in a chunk that are drawn, in C order, and their values."""


class Chunks:
    """Chunks of strokes. Callers hold a lock.

    Parameters
    ----------
    grid
        Their shape and type.
    reader
        Where they are read from.
    """

    def __init__(self, grid: ChunkGrid, reader: ChunkReader) -> None:
        self._grid, self._reader = grid, reader
        self._side, self._dtype = grid.chunk, grid.dtype
        self._plane = self._side[1] * self._side[2]
        self._raw: OrderedDict[Shape3, NDArray[Any]] = OrderedDict()
        self._most = max(MEMORY // (int(np.prod(self._side)) * self._dtype.itemsize), 8)
        self._changed: set[Shape3] = set()  # since they were last given to be saved
        self._packed: dict[Shape3, bytes] = {}  # changed, and too long ago to be in memory as arrays
        self._saving: dict[Shape3, bytes] = {}
        self._points: OrderedDict[Shape3, Points] = OrderedDict()
        self._points_bytes = 0
        self.counts: dict[Shape3, Counts] = {}
        self.planes: dict[int, dict[int, int]] = {}

    @property
    def unsaved(self) -> bool:
        """Whether chunks are not in their files."""
        return bool(self._changed or self._saving)

    def of_class(self, value: int) -> list[Shape3]:
        """Return the chunks that hold a class, in order."""
        return sorted(i for i, counts in self.counts.items() if any(held == value for _, held in counts))

    def near(self, box: Box) -> list[Shape3]:
        """Return the chunks with drawn voxels that a box touches, in order."""
        spans = self.touched(box)
        if len(self.counts) < np.prod([float(len(span)) for span in spans]):
            found = [i for i in self.counts if all(n in span for n, span in zip(i, spans, strict=True))]
            return sorted(found)
        return [(z, y, x) for z, y, x in product(*spans) if (z, y, x) in self.counts]

    def touched(self, box: Box) -> list[range]:
        """Return the indices of the chunks that a box touches, along z, y and x."""
        if min(box_shape(box)) < 1:
            return [range(0)] * 3
        return [range(s.start // n, -(-s.stop // n)) for s, n in zip(box, self._side, strict=True)]

    def box_of(self, index: Shape3) -> Box:
        """Return the box of a chunk, inside the volume."""
        z, y, x = (
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(index, self._side, self._grid.shape, strict=True)
        )
        return z, y, x

    def get(self, index: Shape3) -> NDArray[Any]:
        """Return a chunk of the full shape, not to be changed."""
        found = self._raw.get(index)
        if found is not None:
            self._raw.move_to_end(index)
            return found
        packed = self._packed.pop(index, None) or self._saving.get(index)
        if packed is not None:
            found = self._unpacked(packed)
        elif index in self.counts:
            found = self._reader.read(index)
        else:
            found = np.zeros(self._side, self._dtype)
        self._raw[index] = found
        while len(self._raw) > self._most:
            old, values = self._raw.popitem(last=False)
            if old in self._changed:
                self._packed[old] = zstd.compress(values.tobytes(), 1)
        return found

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values of a box inside the volume."""
        values = np.zeros(box_shape(box), self._dtype)
        for index in self.near(box):
            inside, outside, _ = self._shared(index, box)
            values[outside] = self.get(index)[inside]
        return values

    def at(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of voxels ``(n, 3)`` inside the volume."""
        values = np.zeros(len(places), self._dtype)
        for index, flat, order in self._grouped(places):
            if index in self.counts:
                values[order] = self.get(index).reshape(-1)[flat]
        return values

    def box_patches(self, box: Box, values: NDArray[Any]) -> Iterator[Patch]:
        """Yield what changes when values (of the shape of a box, or one) are set in it."""
        one = values.ndim == 0
        spans = self.touched(box)
        erases = one and not values
        every: Iterable[Any] = self.near(box) if erases else product(*spans)
        for index in every:
            inside, outside, _ = self._shared(index, box)
            new = values if one else values[outside]
            if index not in self.counts and not new.any():
                continue
            old = self.get(index)
            changed = np.zeros(self._side, bool)
            changed[inside] = old[inside] != new
            flat = np.flatnonzero(changed)
            local = np.unravel_index(flat, self._side)
            after = (
                np.full(len(flat), values)
                if one
                else new[tuple(a - s.start for a, s in zip(local, inside, strict=True))]
            )
            yield _patch(index, flat, old.reshape(-1)[flat], after)

    def place_patches(self, places: NDArray[np.int64], values: NDArray[Any]) -> Iterator[Patch]:
        """Yield what changes when voxels ``(n, 3)`` get values ``(n,)``; of several of a voxel, the last."""
        for index, flat, order in self._grouped(places):
            after = values[order]
            last = np.append(flat[1:] != flat[:-1], True)
            flat, after = flat[last], after[last]
            if index not in self.counts and not after.any():
                continue
            before = self.get(index).reshape(-1)[flat]
            kept = before != after
            yield _patch(index, flat[kept], before[kept], after[kept])

    def class_patches(self, value: int, target: int) -> Iterator[Patch]:
        """Yield what changes when all voxels of a class get another one, or 0."""
        for index in self.of_class(value):
            flat, values = self.points_of(index)
            places = flat[values == value]
            size = len(places)
            yield index, places, np.full(size, value, np.uint16), np.full(size, target, np.uint16)

    def drawn_patches(self, indices: Iterable[Shape3]) -> Iterator[Patch]:
        """Yield what changes when the voxels of chunks are drawn where nothing was."""
        for index in indices:
            flat, values = self.points_of(index)
            yield index, flat, np.zeros(len(flat), np.uint16), values

    def apply(self, piece: Piece, back: bool = False) -> list[Box]:
        """Set voxels, and return the boxes around them."""
        boxes = []
        for index, flat, _, after in piece.patches(back):
            values = self.get(index).reshape(-1)
            before = values[flat]  # not as recorded: what a journal repeats may be stored already
            values[flat] = after
            self._changed.add(index)
            self._forget_points(index)
            local = np.unravel_index(flat, self._side)
            low = [int(a.min()) + i * n for a, i, n in zip(local, index, self._side, strict=True)]
            high = [int(a.max()) + 1 + i * n for a, i, n in zip(local, index, self._side, strict=True)]
            boxes.append((slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])))
            self._count(index, flat, before, -1)
            self._count(index, flat, after, 1)
        return boxes

    def load(self, index: Shape3, counts: Mapping[tuple[int, int], int]) -> None:
        """Take over the counts of a stored chunk."""
        self.counts[index] = dict(counts)
        for (z, value), count in counts.items():
            planes = self.planes.setdefault(value, {})
            planes[z] = planes.get(z, 0) + count

    def count(self, index: Shape3, values: NDArray[Any]) -> Counts:
        """Return the counts of a chunk."""
        flat = np.flatnonzero(values != 0)  # of bool NumPy finds them many times faster
        return self._tally(index, flat, values.reshape(-1)[flat])

    def points_of(self, index: Shape3) -> Points:
        """Return the drawn voxels of a chunk."""
        found = self._points.get(index)
        if found is None:
            values = self.get(index).reshape(-1)
            flat = np.flatnonzero(values != 0)
            found = flat.astype(np.uint32), values[flat].astype(np.uint16)
            self._points[index] = found
            self._points_bytes += 6 * len(flat)
            while self._points_bytes > _POINTS and len(self._points) > 1:
                self._forget_points(next(iter(self._points)))
        return found

    def in_planes(self, planes: NDArray[np.int64] | None) -> list[Shape3]:
        """Return the chunks with drawn voxels that may be in some planes, or all, in order."""
        rows = None if planes is None else set((planes // self._side[0]).tolist())
        return sorted(index for index in self.counts if rows is None or index[0] in rows)

    def painted(self, points: Sequence[tuple[Shape3, Points]], planes: NDArray[np.int64] | None) -> Painted:
        """Return the drawn voxels of chunks, of some planes or all, in order of z, y, x; needs no lock."""
        places, drawn = [np.empty((0, 3), np.int64)], [np.empty(0, np.uint16)]
        for index, (flat, values) in points:
            local = np.stack(np.unravel_index(flat, self._side), axis=1) + np.multiply(index, self._side)
            if planes is not None and self._side[0] > 1:
                kept = np.isin(local[:, 0], planes)
                local, values = local[kept], values[kept]
            places.append(local)
            drawn.append(values)
        every, values = np.concatenate(places), np.concatenate(drawn)
        order = np.argsort(np.ravel_multi_index(tuple(every.T), self._grid.shape), kind="stable")
        return Painted(every[order], values[order])

    def begin_save(self) -> list[Shape3]:
        """Return the changed chunks, which :meth:`to_save` yields until :meth:`end_save`."""
        for index in self._changed:
            packed = self._packed.pop(index, None)
            values = self._raw.get(index)
            self._saving[index] = packed or zstd.compress(self.get(index) if values is None else values, 1)
        self._changed = set()
        return list(self._saving)

    def to_save(self) -> Iterator[tuple[Shape3, NDArray[Any]]]:
        """Yield the chunks as they were at :meth:`begin_save`; needs no lock."""
        for index, packed in self._saving.items():
            yield index, self._unpacked(packed)

    def end_save(self, *, saved: bool) -> None:
        """Forget what was to be saved, or keep it for the next time."""
        if not saved:
            for index, packed in self._saving.items():
                if index not in self._changed and index not in self._raw:
                    self._packed[index] = packed
                self._changed.add(index)
        self._saving = {}

    def _unpacked(self, packed: bytes) -> NDArray[Any]:
        return np.frombuffer(zstd.decompress(packed), self._dtype).reshape(self._side).copy()

    def _shared(self, index: Shape3, box: Box) -> tuple[Any, Any, Box]:
        """Return what a chunk and a box share: in the chunk, in the box, and in the volume."""
        shared = intersection(self.box_of(index), box)
        assert shared is not None
        inside = tuple(
            slice(s.start - i * n, s.stop - i * n) for s, i, n in zip(shared, index, self._side, strict=True)
        )
        outside = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(shared, box, strict=True))
        return inside, outside, shared

    def _grouped(
        self, places: NDArray[np.int64]
    ) -> Iterator[tuple[Shape3, NDArray[np.int64], NDArray[np.intp]]]:
        """Yield chunks, places in them in rising order, and which voxels these are, in the order given."""
        if not len(places):
            return
        indices, local = np.divmod(places, self._side)
        chunk = np.ravel_multi_index(tuple(indices.T), self._grid.counts)
        flat = np.ravel_multi_index(tuple(local.T), self._side)
        order = np.lexsort((flat, chunk))
        first = np.flatnonzero(np.append(True, np.diff(chunk[order]) != 0))
        for start, stop in zip(first, np.append(first[1:], len(order)), strict=True):
            own = order[start:stop]
            z, y, x = indices[own[0]].tolist()
            yield (z, y, x), flat[own], own

    def _tally(self, index: Shape3, flat: NDArray[Any], values: NDArray[Any]) -> Counts:
        planes = flat.astype(np.int64) // self._plane + index[0] * self._side[0]
        keys, counts = np.unique(planes * 2**16 + values, return_counts=True)
        return {
            (key >> 16, key & 0xFFFF): count
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
            if key & 0xFFFF
        }

    def _count(self, index: Shape3, flat: NDArray[Any], values: NDArray[Any], sign: int) -> None:
        own = self.counts.setdefault(index, {})
        for (z, value), count in self._tally(index, flat, values).items():
            planes = self.planes.setdefault(value, {})
            own[z, value] = own.get((z, value), 0) + sign * count
            planes[z] = planes.get(z, 0) + sign * count
            if not own[z, value]:
                del own[z, value]
            if not planes[z]:
                del planes[z]
            if not planes:
                del self.planes[value]
        if not own:
            del self.counts[index]

    def _forget_points(self, index: Shape3) -> None:
        points = self._points.pop(index, None)
        if points is not None:
            self._points_bytes -= 6 * len(points[0])


def _patch(index: Shape3, flat: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> Patch:
    return index, flat.astype(np.uint32), before.astype(np.uint16), after.astype(np.uint16)
