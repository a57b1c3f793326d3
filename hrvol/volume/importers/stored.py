"""What importers are given and what they return: an image as its file stores it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.arrays import Spacing3
from hrvol.text import printable
from hrvol.volume.read_options import RawLayout
from hrvol.volume.units import METRES, common_unit, normal_unit

_METRES = (1e-13, 1e2)
"""Sizes of voxels that exist, in metres."""

_PLAIN = (1e-12, 1e9)
"""The same without a unit."""


@dataclass(frozen=True)
class Request:
    """A file to open.

    Attributes
    ----------
    path
        The file or folder.
    source
        What the user named it, for messages.
    inside
        Path of a dataset inside of the file; empty: the only one.
    level
        Resolution level, 0 the finest.
    raw
        Layout of a file without a header, if the user gave it.
    again
        Whether it was opened before, in this process or another: what costs a read per file need not be
        checked again then.
    """

    path: Path
    source: str
    inside: str = ""
    level: int = 0
    raw: RawLayout | None = None
    again: bool = False


@dataclass(frozen=True)
class VoxelSize:
    """A voxel size and where it is from.

    Attributes
    ----------
    zyx
        (z, y, x) in ``unit``; 1 if unknown.
    unit
        OME name of a unit of length, or ``None``.
    origin
        What of the file states it; empty if it is unknown.
    notes
        Values of the file that are no sizes.
    missing
        Axes for which the file states nothing, if it states the size of others.
    """

    zyx: Spacing3 = (1.0, 1.0, 1.0)
    unit: str | None = None
    origin: str = ""
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


UNKNOWN = VoxelSize()


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored.

    Attributes
    ----------
    array
        Any object with ``shape``, ``dtype``, ``chunks`` (what is decoded at least for one voxel; memory maps
        have none) and slicing by integers and slices, which reads no more than it has to.
    axes
        One name per axis, lower case; ``None``: z, y, x.
    size
        Voxel size.
    files
        All files that were opened for it.
    """

    array: Any
    axes: tuple[str, ...] | None
    size: VoxelSize
    files: tuple[Path, ...]


def voxel_size(sizes: Sequence[Any], units: Sequence[str | None] | str | None, origin: str) -> VoxelSize:
    """Check the voxel size that a file states.

    Parameters
    ----------
    sizes
        (z, y, x); ``None`` where it is unknown.
    units
        One per axis, or one for all.
    origin
        What of the file states them.

    Returns
    -------
    VoxelSize
        Numbers that are no sizes of voxels are 1, with a note. Without y and x there is no unit either.
    """
    names = [units] * 3 if units is None or isinstance(units, str) else list(units)
    names = [None if name is None else printable(str(name), 60) for name in names]
    kept: list[float | None] = []
    wrong = []
    for axis, size, name in zip("zyx", sizes, names, strict=True):
        number = _number(size)
        kept.append(number if number is None or _plausible(number, name) else None)
        if size is not None and kept[-1] is None:
            wrong.append(f"{printable(str(size), 60)} along {axis}")
    notes = (f"{origin}: found the size {', '.join(wrong)}, taken as unknown",) if wrong else ()
    if kept[1] is None and kept[2] is None:
        return VoxelSize(notes=notes)
    known = [name for size, name in zip(kept, names, strict=True) if size is not None]
    names = [known[-1] if size is None else name for size, name in zip(kept, names, strict=True)]
    z, y, x = (1.0 if size is None else size for size in kept)
    zyx, unit = common_unit((z, y, x), names)
    missing = tuple(axis for axis, size in zip("zyx", sizes, strict=True) if size is None)
    return VoxelSize(zyx, unit, origin, notes, missing)


def metres_size(sizes: Sequence[Any], origin: str) -> VoxelSize:
    """Return a voxel size that a file states in metres, in the unit of length that suits it."""
    x = _number(next((size for size in reversed(sizes) if _number(size)), None)) or 0.0
    unit, metres = ("nanometer", 1e-9) if x < 1e-6 else ("micrometer", 1e-6)
    scaled = [None if size is None else (_number(size) or 0.0) / metres for size in sizes]
    return voxel_size(scaled, unit, origin)


def _number(size: Any) -> float | None:
    if size is None:
        return None
    try:
        return float(size)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _plausible(size: float, unit: str | None) -> bool:
    metres = METRES.get(normal_unit(unit) or "")
    low, high = _PLAIN if metres is None else _METRES
    return math.isfinite(size) and low <= size * (metres or 1.0) <= high


def grey_axes(shape: Sequence[int]) -> tuple[str, ...] | None:
    """Name the axes of an array without names: those longer than 1 are z, y and x if they are at most three.

    Returns
    -------
    tuple of str, or None
        ``None`` for at most three axes, whose order is z, y, x, and if too many are longer than 1.
    """
    if len(shape) <= 3:
        return None
    longer = [i for i, side in enumerate(shape) if side > 1]
    if len(longer) > 3:
        return None
    # The last ones, if fewer than three are longer.
    chosen = (longer + [i for i in reversed(range(len(shape))) if i not in longer])[:3]
    names = dict(zip(sorted(chosen), "zyx", strict=True))
    return tuple(names.get(i, f"axis {i}") for i in range(len(shape)))
