"""Present a volume as an array that viewers slice: voxels are read when they are shown."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.volume import Volume, expect_grey


class VoxelArray:
    """A read-only array ``(z, y, x)``, or ``(y, x)`` of an image, whose voxels are read box by box.

    Any number of threads may read. Integers, slices, ``...``, ``None`` and integer or boolean arrays are
    taken as by NumPy; for arrays of indices the box around them is read.

    Parameters
    ----------
    volume
        The volume.
    cache
        Keeps decoded chunks; ``None``: each slice decodes its own, as is right while the volume is written.
    """

    def __init__(self, volume: Volume, cache: ChunkCache | None = None) -> None:
        self.volume = expect_grey(volume, "viewers show one value per voxel")
        self._reader = None if cache is None else cache.read

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return self.volume.shape[-self.volume.ndim :]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.volume.dtype

    @property
    def ndim(self) -> int:
        """Number of axes, 2 or 3."""
        return self.volume.ndim

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.volume.shape
        return z * y * x

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels in memory."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Voxels per chunk and axis."""
        return self.volume.chunks[-self.volume.ndim :]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"VoxelArray({self.volume.source!r}, shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values: NDArray[Any] = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        parts, shape = key if isinstance(key, tuple) else (key,), self.shape
        if any(part is None for part in parts):  # a new axis: the others first
            kept = self[tuple(part for part in parts if part is not None)]
            return kept[
                tuple(
                    None if part is None else slice(None)
                    for part in parts
                    if part is None or not _is_integer(part)
                )
            ]
        spans, inner = [], []
        for part, length in zip(_completed(parts, shape), shape, strict=True):
            span, rest = _bounds(part, length)
            spans.append(span)
            inner.append(rest)
        if any(span.start >= span.stop for span in spans):
            empty = np.empty([max(0, span.stop - span.start) for span in spans], self.dtype)
            return empty[tuple(inner)]
        box = (slice(0, 1), *spans) if self.ndim == 2 else tuple(spans)
        values = self.volume.read(box, self._reader)  # type: ignore[arg-type]
        return (values[0] if self.ndim == 2 else values)[tuple(inner)]


def _is_integer(part: Any) -> bool:
    return not isinstance(part, slice) and part is not Ellipsis and np.ndim(part) == 0


def _completed(parts: Sequence[Any], shape: tuple[int, ...]) -> list[Any]:
    """Return one index per axis."""
    found = list(parts)
    masks = [i for i, part in enumerate(found) if getattr(part, "dtype", None) == np.bool_]
    for i in reversed(masks):
        found[i : i + 1] = list(np.nonzero(found[i]))
    dots = [i for i, part in enumerate(found) if part is Ellipsis]
    if len(dots) > 1 or len(found) - len(dots) > len(shape):
        raise IndexError(f"found {len(found)} indices, expected at most {len(shape)}")
    missing = [slice(None)] * (len(shape) - len(found) + len(dots))
    if dots:
        found[dots[0] : dots[0] + 1] = missing
    else:
        found += missing
    return found


def _bounds(part: Any, length: int) -> tuple[slice, Any]:
    """Return the span to read along an axis, and the index into what is read."""
    if isinstance(part, slice):
        chosen = range(length)[part]
        if not len(chosen):
            return slice(0, 0), slice(0, 0)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
        stop = None if chosen.step < 0 else len(range(low, high))
        return slice(low, high), slice(0 if chosen.step > 0 else high - low - 1, stop, chosen.step)
    if np.ndim(part) == 0:
        place = operator.index(part)
        if not -length <= place < length:
            raise IndexError(f"index {place} is out of bounds for an axis of {length}")
        return slice(place % length, place % length + 1), 0
    places = np.asarray(part)
    if places.size == 0:
        return slice(0, 0), places.astype(np.intp)
    if places.min() < -length or places.max() >= length:
        raise IndexError(f"indices up to {places.max()} are out of bounds for an axis of {length}")
    places = places % length
    low = int(places.min())
    return slice(low, int(places.max()) + 1), places - low
