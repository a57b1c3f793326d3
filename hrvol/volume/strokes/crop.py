"""Find where strokes lie that were drawn on a crop of a volume."""

from __future__ import annotations

from typing import Any

import tifffile

from hrvol.arrays import Shape3, Spacing3
from hrvol.errors import StrokesError
from hrvol.volume.importers.extras import read_quietly
from hrvol.volume.importers.tiff import SUFFIXES
from hrvol.volume.units import common_unit
from hrvol.volume.volume import Volume

_WHOLE = 0.05
"""Largest distance of a position from a whole voxel, in voxels."""

_SAME_SIZE = 0.01
"""Largest relative difference of voxel sizes."""


def crop_offset(strokes: Volume, volume: Volume, offset: Shape3 | None = None) -> Shape3:
    """Return the first voxel (z, y, x) of strokes in their volume.

    Parameters
    ----------
    strokes, volume
        Both opened. Strokes of the volume's shape lie at its first voxel.
    offset
        The answer, if the user gave it; otherwise the translations of OME-Zarr metadata are compared, or the
        origins that ImageJ keeps when it crops (``Duplicator`` and ``Resizer`` subtract the corner of the
        selection from ``xOrigin`` and ``yOrigin``).

    Raises
    ------
    StrokesError
        The place of the strokes is not known, or they reach out of the volume, or their voxels have another
        size.
    """
    if offset is None and strokes.shape == volume.shape:
        return 0, 0, 0
    if offset is None:
        offset = _translated(strokes, volume) or _of_imagej(strokes, volume)
    if offset is None:
        raise StrokesError(
            f"{strokes.source}: found strokes of shape {strokes.shape}, expected {volume.shape} (Z, Y, X) as"
            f" {volume.source}, or the first voxel of a crop (--offset z,y,x, or a translation in OME-Zarr)"
        )
    check_inside(strokes.source, strokes.shape, offset, volume)
    return offset


def check_inside(source: str, shape: Shape3, offset: Shape3, volume: Volume) -> None:
    """Raise a :class:`StrokesError` if a crop reaches out of its volume."""
    for axis, start, length, side in zip("zyx", offset, shape, volume.shape, strict=True):
        if not 0 <= start <= start + length <= side:
            raise StrokesError(
                f"{source}: found strokes at {start}:{start + length} along {axis}, expected a part of"
                f" 0:{side} as {volume.source}"
            )


def _translated(strokes: Volume, volume: Volume) -> Shape3 | None:
    """Return the difference of the translations of two volumes in voxels, if both have metadata."""
    if not any(strokes.translation):
        return None
    sizes, starts = _in_unit(strokes, volume)
    if any(abs(a - b) > _SAME_SIZE * b for a, b in zip(sizes, volume.voxel_size, strict=True)):
        raise StrokesError(
            f"{strokes.source}: found voxels of size {_listed(sizes)}, expected"
            f" {_listed(volume.voxel_size)} as {volume.source}"
        )
    found = []
    for axis, start, origin, size in zip("zyx", starts, volume.translation, volume.voxel_size, strict=True):
        voxels = (start - origin) / size
        if abs(voxels - round(voxels)) > _WHOLE:
            raise StrokesError(
                f"{strokes.source}: found strokes {voxels:.2f} voxels from the first one of {volume.source}"
                f" along {axis}, expected a whole number"
            )
        found.append(round(voxels))
    return found[0], found[1], found[2]


def _in_unit(strokes: Volume, volume: Volume) -> tuple[Spacing3, Spacing3]:
    """Return voxel size and translation of strokes in the unit of their volume."""
    units = (strokes.unit, strokes.unit, volume.unit)
    columns: list[tuple[float, float]] = []
    for size, start in zip(strokes.voxel_size, strokes.translation, strict=True):
        (a, b, _), _ = common_unit((size, start, 1.0), units)
        columns.append((a, b))
    (z, tz), (y, ty), (x, tx) = columns
    return (z, y, x), (tz, ty, tx)


def _of_imagej(strokes: Volume, volume: Volume) -> Shape3 | None:
    """Return the position that ImageJ wrote into the TIFF file of a crop."""
    own = _imagej_origin(strokes)
    if own is None or not any(own):
        return None
    other = _imagej_origin(volume) or (0.0, 0.0, 0.0)
    z, y, x = (round(b - a) for a, b in zip(own, other, strict=True))
    if not own[0] and strokes.shape[0] != volume.shape[0]:
        return None  # ImageJ keeps no position along z: only the user knows
    return z, y, x


def _imagej_origin(volume: Volume) -> Spacing3 | None:
    """Return the origin (z, y, x) in voxels of an ImageJ TIFF; ``None`` for other files."""
    path = None if volume.origin is None else volume.origin[0].path
    if path is None or path.suffix.lower() not in SUFFIXES:
        return None
    try:
        with read_quietly(), tifffile.TiffFile(path) as file:  # its pages were checked when it was opened
            values: dict[str, Any] = file.imagej_metadata or {}
    except MemoryError:
        raise
    except Exception:  # tifffile's parsers of private metadata may raise anything
        return None
    numbers = [values.get(f"{axis}origin", 0.0) for axis in "zyx"]
    if not values or not all(isinstance(n, int | float) and abs(n) < 2**31 for n in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _listed(numbers: Spacing3) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
