"""Convert sizes that users write, in units of length or voxels, to voxels of a volume."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hrvol.arrays import Spacing3
from hrvol.errors import UsageError
from hrvol.text import printable
from hrvol.volume.units import metres, normal_unit
from hrvol.volume.volume import Volume

_SIZE = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([^\W\d_²³]*)\s*(?:\^?([23])|([²³]))?")

_VOXELS = ("", "vx", "voxel", "voxels", "px", "pixel", "pixels")

_POWER = {"²": 2, "³": 3}

_TOLERANCE = 1e-9  # a size of exactly n voxels is n, whatever its rounding


@dataclass(frozen=True)
class VoxelGrid:
    """Size of the voxels of a volume.

    Attributes
    ----------
    ndim
        3, or 2 for an image.
    voxel_size
        (z, y, x) in ``unit``.
    unit
        OME name of a unit of length; ``None``: the voxel size is unknown, and lengths are in voxels.
    source
        Name of the volume, for messages.
    """

    ndim: int
    voxel_size: Spacing3
    unit: str | None
    source: str

    @classmethod
    def of(cls, volume: Volume) -> VoxelGrid:
        """Return the grid of a volume; without a unit that hrvol knows its voxels have the side 1."""
        known = metres(volume.unit) is not None and all(
            math.isfinite(size) and size > 0 for size in volume.voxel_size[-volume.ndim :]
        )
        size = volume.voxel_size if known else (1.0, 1.0, 1.0)
        depth = size[0] if volume.ndim == 3 else 1.0
        return cls(volume.ndim, (depth, size[1], size[2]), volume.unit if known else None, volume.source)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in cubed units (an image: area of a pixel)."""
        return math.prod(self.voxel_size[-self.ndim :])

    def length_unit(self) -> str:
        """Return the name of the unit of lengths for headers: that of the volume, or ``voxel``."""
        return self.unit or "voxel"


def least_voxels(text: str, grid: VoxelGrid) -> int:
    """Return the number of voxels from which on a component is not smaller than a size.

    Parameters
    ----------
    text
        ``500um3`` (an image: ``500um2``), or a number of voxels, ``500``.
    grid
        Of the volume.

    Raises
    ------
    UsageError
        It is no such size, or the voxel size is unknown.
    """
    number, unit, power = _parsed(text, "a size such as 500 (voxels) or 500um3")
    if unit in _VOXELS:
        if power is not None:
            raise UsageError(f"size: found '{printable(text, 50)}', expected voxels without an exponent")
        voxels = number
    else:
        if power != grid.ndim:
            kind = "an area" if grid.ndim == 2 else "a volume"
            raise UsageError(
                f"size: found '{printable(text, 50)}', expected {kind}, such as 500{unit}{grid.ndim}"
            )
        voxels = number * _factor(unit, text, grid) ** grid.ndim / grid.voxel_volume
    if not 0 < voxels < 2**62:
        raise UsageError(f"size: found '{printable(text, 50)}', {voxels:.3g} voxels, expected 1 or more")
    return math.ceil(voxels * (1 - _TOLERANCE))


def radius_voxels(text: str, grid: VoxelGrid) -> Spacing3:
    """Return a radius in voxels along (z, y, x).

    Parameters
    ----------
    text
        ``2um``, or a number of voxels, ``1.5``.
    grid
        Of the volume.

    Raises
    ------
    UsageError
        It is no such length, less than one voxel along all axes, or the voxel size is unknown.
    """
    number, unit, power = _parsed(text, "a radius such as 2 (voxels) or 1.5um")
    if power is not None:
        raise UsageError(f"radius: found '{printable(text, 50)}', expected a length, such as 2um")
    if unit in _VOXELS:
        radius = (number, number, number)
    else:
        length = number * _factor(unit, text, grid)
        radius = tuple(length / size for size in grid.voxel_size)  # type: ignore[assignment]
    if max(radius[-grid.ndim :]) < 1 - _TOLERANCE:
        raise UsageError(f"radius: found '{printable(text, 50)}', less than a voxel, expected one or more")
    return radius


def shortest_sides(text: str, grid: VoxelGrid, what: str) -> float:
    """Return a length in shortest sides of voxels (of an image, of pixels).

    Parameters
    ----------
    text
        ``2um``, or a number of voxels, ``1.5``.
    grid
        Of the volume.
    what
        What has the length, for messages.

    Raises
    ------
    UsageError
        It is no such length, or the voxel size is unknown.
    """
    number, unit, power = _parsed(text, f"a {what} such as 1.5 (voxels) or 2um")
    if power is not None:
        raise UsageError(f"{what}: found '{printable(text, 50)}', expected a length, such as 2um")
    if unit in _VOXELS:
        return number
    return number * _factor(unit, text, grid) / min(grid.voxel_size[-grid.ndim :])


def _parsed(text: str, expected: str) -> tuple[float, str, int | None]:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"size: found '{printable(text, 50)}', expected {expected}")
    power = int(found[3]) if found[3] else _POWER.get(found[4] or "")
    return float(found[1]), found[2].lower(), power


def _factor(unit: str, text: str, grid: VoxelGrid) -> float:
    """Return how many units of the volume a unit of length has."""
    length, own = metres(unit), metres(grid.unit)
    if length is None:
        raise UsageError(
            f"size: found the unit '{printable(normal_unit(unit) or unit, 50)}' in"
            f" '{printable(text, 50)}', expected one of length, such as um or nm, or voxels"
        )
    if own is None:
        raise UsageError(
            f"{grid.source}: found no voxel size for '{printable(text, 50)}', expected sizes in voxels"
            " (or --voxel-size and --unit)"
        )
    return length / own
