"""TIFF images and stacks, opened without reading them whole."""

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

# What tifffile calls a run of pages that says nothing about itself, and time, which ImageJ users get when
# they save a stack without saying that it is one.
_STACKING = ("Q", "I", "R", "T")

# ImageJ shows no more channels than this at once: what has more is a stack that was not said to be one.
_MOST_CHANNELS = 7


@dataclass(frozen=True)
class TiffImage:
    """The first image series of a file.

    Attributes
    ----------
    array
        A memory map or a lazy Zarr array.
    axes
        A name for each axis of the array, lower case.
    voxel_size, unit
        (z, y, x), 1 where the file says nothing; unit by its OME name.
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
        Of the file.
    level
        Resolution, 0 the finest.

    Raises
    ------
    InputError
        It is no TIFF file, or has no such level.
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
            # Not compressed and in one run: the operating system reads what is touched.
            array = tifffile.memmap(path, mode="r", series=0)
        else:
            array = zarr.open_array(tifffile.imread(path, aszarr=True, series=0, level=level), mode="r")
    except (tifffile.TiffFileError, IndexError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a TIFF image ({error})") from None
    return TiffImage(array, axes, voxel_size, unit)


def _axes(letters: str, shape: tuple[int, ...], shaped: bool) -> tuple[str, ...]:
    """Name a series' axes, and find the one that pages are stacked along.

    tifffile used to mark a stack of three or four grey images that it wrote as planar RGB(A): with its own
    shape in the file, a leading run of samples is taken for a stack.
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
    """Return (z, y, x) and the unit from OME or ImageJ metadata.

    The resolution tags of a plain TIFF are not believed: most say 72 dots per inch.
    """
    if file.is_ome and file.ome_metadata:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        if pixels is not None:
            z, y, x = (float(pixels.get(f"PhysicalSize{axis}", 1.0)) for axis in "ZYX")
            given = [
                pixels.get(f"PhysicalSize{axis}Unit", "µm" if pixels.get(f"PhysicalSize{axis}") else None)
                for axis in "ZYX"
            ]
            return common_unit((z, y, x), given)
    if file.is_imagej:
        said = file.imagej_metadata or {}
        tags = file.pages[0].tags
        y, x = (_from_resolution(tags.get(f"{axis}Resolution")) for axis in "YX")
        unit = said.get("unit")
        return common_unit((float(said.get("spacing", 1.0)), y, x), (unit, unit, unit))
    return (1.0, 1.0, 1.0), None


def _from_resolution(tag: Any) -> float:
    """Return the size of a pixel from a tag of pixels per unit, 1 if there is none."""
    if tag is None:
        return 1.0
    number, unit = tag.value
    return float(unit) / float(number) if number else 1.0
