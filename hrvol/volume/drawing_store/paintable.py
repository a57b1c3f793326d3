"""Present strokes as an array that is indexed as NumPy arrays are: what napari shows and paints."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrvol.arrays import Shape3
from hrvol.errors import StrokesError, UnreadableError
from hrvol.volume.grid.tiling import Box


class Paintable(Protocol):
    """What an array needs of a store."""

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    @property
    def ndim(self) -> int:
        """2 or 3."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return a box."""

    def read_places(self, where: tuple[Any, Any, Any]) -> NDArray[Any]:
        """Return voxels."""

    def paint(self, where: tuple[Any, Any, Any], values: ArrayLike) -> Any:
        """Set a box or voxels."""

    @property
    def present_stroke(self) -> object | None:
        """What is the same for all changes of one stroke; ``None`` outside of strokes."""


class PaintableArray:
    """Strokes as an array: reading gives copies, setting draws.

    Integers, slices, ``...``, index arrays and masks are understood as NumPy does; new axes are not.

    Parameters
    ----------
    store
        The strokes.
    """

    def __init__(self, store: Paintable) -> None:
        self._store = store
        self.dtype = store.dtype
        self.ndim = store.ndim
        self.shape: tuple[int, ...] = store.shape[3 - store.ndim :]
        self._told: tuple[object, str] | None = None  # a stroke, and what was raised in it

    @property
    def strokes(self) -> Paintable:
        """The strokes."""
        return self._store

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        """Bytes of an array in memory that holds all of it."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<strokes {self.shape} {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("strokes are stored in chunks: an array of them is a copy")
        values: NDArray[Any] = self[...]
        return values if dtype is None else values.astype(dtype)

    def __getitem__(self, key: Any) -> Any:
        parts = self._parts(key)
        if _is_places(parts):
            return self._store.read_places(self._all_axes(parts, 0))
        box, inside = self._hull(parts)
        return self._read(box)[inside]

    def __setitem__(self, key: Any, values: ArrayLike) -> None:
        parts = self._parts(key)
        new = np.asarray(values)
        if _is_places(parts):
            self._paint(self._all_axes(parts, 0), new)
            return
        box, inside = self._hull(parts)
        if any(
            not isinstance(part, slice | int) or (isinstance(part, slice) and part.step != 1)
            for part in inside
        ):
            current = self._read(box)
            current = current.astype(np.result_type(current, new))  # the store checks the values
            current[inside] = new
            new = current
        elif new.ndim:
            shape = tuple(
                s.stop - s.start for s, part in zip(box, inside, strict=True) if isinstance(part, slice)
            )
            while new.ndim > len(shape) and new.shape[0] == 1:  # as NumPy allows
                new = new[0]
            new = np.broadcast_to(new, shape)
        if new.ndim:
            new = new.reshape([s.stop - s.start for s in self._all_axes(box, slice(0, 1))])
        self._paint(self._all_axes(box, slice(0, 1)), new)

    def _paint(self, where: tuple[Any, Any, Any], values: NDArray[Any]) -> None:
        """Draw; a chunk that cannot be read is reported once in a stroke, not at each step of the brush."""
        try:
            self._store.paint(where, values)
        except UnreadableError as error:
            told = self._store.present_stroke, str(error)
            if told[0] is None or told != self._told:
                self._told = told
                raise StrokesError(f"{error}; nothing can be drawn there") from None

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        values = self._store.read(self._all_axes(box, slice(0, 1)))
        return values.reshape([s.stop - s.start for s in box])

    def _all_axes(self, parts: tuple[Any, ...], first: Any) -> Any:
        return (first,) * (3 - self.ndim) + parts

    def _parts(self, key: Any) -> tuple[Any, ...]:
        """Return an index of each axis: an integer from 0, a slice, or an array of integers from 0."""
        given = [_plain(part) for part in (key if isinstance(key, tuple) else (key,))]
        used = sum(part.ndim if _is_mask(part) else 1 for part in given if part is not Ellipsis)
        if used > self.ndim or any(part is None for part in given):
            raise IndexError(f"{self!r}: found an index of {used} axes, expected at most {self.ndim}")
        places = [i for i, part in enumerate(given) if part is Ellipsis]
        if len(places) > 1:
            raise IndexError(f"{self!r}: found '...' twice, expected it once")
        at = places[0] if places else len(given)
        missing: list[Any] = [slice(None)] * (self.ndim - used)
        parts: list[Any] = []
        for part in [*given[:at], *missing, *given[at + bool(places) :]]:
            if _is_mask(part):
                sides = self.shape[len(parts) : len(parts) + part.ndim]
                if part.shape != sides:
                    raise IndexError(f"{self!r}: found a mask of shape {part.shape}, expected {sides}")
                parts += part.nonzero()
            else:
                parts.append(part)
        return tuple(self._from_start(part, axis) for axis, part in enumerate(parts))

    def _from_start(self, part: Any, axis: int) -> Any:
        """Return an index with positions from 0; :class:`IndexError` outside of the axis."""
        length = self.shape[axis]
        if isinstance(part, slice):
            return part
        low, high = (part, part) if isinstance(part, int) else (part.min(initial=0), part.max(initial=0))
        if not (-length <= low and high < length):
            raise IndexError(f"{self!r}: found index {low if low < 0 else high}, expected below {length}")
        return (
            (part + length if part < 0 else part)
            if isinstance(part, int)
            else np.where(part < 0, part + length, part)
        )

    def _hull(self, parts: tuple[Any, ...]) -> tuple[tuple[slice, ...], tuple[Any, ...]]:
        """Return the smallest box around what is indexed, and the index inside of that box."""
        box: list[slice] = []
        inside: list[Any] = []
        relative: Any
        for part, length in zip(parts, self.shape, strict=True):
            if isinstance(part, slice):
                span = range(length)[part]
                if not len(span):
                    box.append(slice(0, 0))
                    inside.append(slice(0, 0, 1))
                    continue
                low, high = min(span), max(span)
                stop = span.stop - low
                relative = slice(span.start - low, None if stop < 0 else stop, span.step)
            elif isinstance(part, int):
                low, high, relative = part, part, 0
            elif part.size:
                low, high = int(part.min()), int(part.max())
                relative = part - low
            else:
                low, high, relative = 0, -1, part
            box.append(slice(low, high + 1))
            inside.append(relative)
        return tuple(box), tuple(inside)


def _plain(part: Any) -> Any:
    """Return an index as an integer, slice, ``...``, array of integers or mask."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    found = np.asarray(part)
    if not found.size and found.dtype.kind == "f":  # an empty list
        found = found.astype(np.intp)
    if found.dtype.kind not in "biu" or (found.dtype.kind == "b" and not found.ndim):
        raise IndexError(f"found an index of type {found.dtype}, expected whole numbers, slices or masks")
    return int(found) if not found.ndim else found if found.dtype.kind == "b" else found.astype(np.int64)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def _is_places(parts: tuple[Any, ...]) -> bool:
    """Whether an index names single voxels: arrays, and integers beside them."""
    return not any(isinstance(part, slice) for part in parts) and any(
        isinstance(part, np.ndarray) for part in parts
    )
