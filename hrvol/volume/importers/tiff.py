"""Open TIFF images and stacks lazily."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile
import zarr

from hrvol.arrays import Spacing3
from hrvol.errors import InputError
from hrvol.volume.ome.metadata import common_unit

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

# tifffile's letters for pages without metadata, and time: ImageJ saves a stack as a time series unless its
# user declares slices.
_STACKING = ("Q", "I", "R", "T")

# ImageJ shows at most this many channels: more are slices of a stack that was not declared as one.
_MOST_CHANNELS = 7


@dataclass(frozen=True)
class TiffImage:
    """The first image series of a file.

    Attributes
    ----------
    array
        A memory map or a lazy Zarr array.
    axes
        One name per axis of the array, lower case.
    voxel_size, unit
        (z, y, x), 1 if unknown; OME name of the unit.
    """

    array: Any
    axes: tuple[str, ...]
    voxel_size: Spacing3
    unit: str | None


def open_tiff(path: Path, level: int) -> TiffImage:
    """Open the first image series of a TIFF file.

    Parameters
    ----------
    path
        Path of the file.
    level
        Resolution level; 0 is the finest.

    Raises
    ------
    InputError
        The file is not a TIFF file, or has no such level.
    """
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if not 0 <= level < len(series.levels):
                raise InputError(f"{path}: found {len(series.levels)} levels, expected one numbered {level}")
            chosen = series.levels[level]
            axes = _axes(chosen.axes, chosen.shape, bool(file.is_shaped))
            voxel_size, unit = _voxel_size(file)
            mappable = chosen.dataoffset is not None and level == 0
        if mappable:
            # Uncompressed and contiguous: the operating system reads only the pages that are accessed.
            array = tifffile.memmap(path, mode="r", series=0)
        else:
            array = zarr.open_array(tifffile.imread(path, aszarr=True, series=0, level=level), mode="r")
    except (tifffile.TiffFileError, IndexError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a TIFF image ({error})") from None
    return TiffImage(array, axes, voxel_size, unit)


def _axes(letters: str, shape: tuple[int, ...], shaped: bool) -> tuple[str, ...]:
    """Name the axes of a series, and find the one along which pages are stacked.

    Earlier versions of tifffile marked a stack of three or four grey images as planar RGB(A): if the file
    records a shape of its own, a leading axis of samples is treated as a stack.
    """
    names = list(letters)
    if shaped and names[0] == "S" and shape[0] > 1:
        names[0] = "Q"
    if "Z" not in names:
        stacked = [
            i
            for i, name in enumerate(names)
            if (name in _STACKING and shape[i] > 1) or (name == "C" and shape[i] > _MOST_CHANNELS)
        ]
        if len(stacked) == 1:
            names[stacked[0]] = "Z"
    return tuple(name.lower() for name in names)


def _voxel_size(file: Any) -> tuple[Spacing3, str | None]:
    """Return the voxel size (z, y, x) and its unit from OME or ImageJ metadata.

    The resolution tags of a plain TIFF are ignored: most are a meaningless 72 dots per inch.
    """
    if file.is_ome and file.ome_metadata:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        if pixels is not None:
            z, y, x = (float(pixels.get(f"PhysicalSize{axis}", 1.0)) for axis in "ZYX")
            units = [
                pixels.get(f"PhysicalSize{axis}Unit", "µm" if pixels.get(f"PhysicalSize{axis}") else None)
                for axis in "ZYX"
            ]
            return common_unit((z, y, x), units)
    if file.is_imagej:
        metadata = file.imagej_metadata or {}
        tags = file.pages[0].tags
        y, x = (_from_resolution(tags.get(f"{axis}Resolution")) for axis in "YX")
        unit = metadata.get("unit")
        return common_unit((float(metadata.get("spacing", 1.0)), y, x), (unit, unit, unit))
    return (1.0, 1.0, 1.0), None


def _from_resolution(tag: Any) -> float:
    """Return the size of a pixel from a tag in pixels per unit; 1 without one."""
    if tag is None:
        return 1.0
    number, unit = tag.value
    return float(unit) / float(number) if number else 1.0
