"""Read the voxel size of a TIFF file from OME, ImageJ or a microscope's tags.

The resolution tags of a plain TIFF are ignored: most are a meaningless 72 dots per inch. Microscopes state
the size of a pixel only; the distance of planes is 1 then.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from typing import Any

from hrvol.volume.importers.stored import UNKNOWN, VoxelSize, metres_size, voxel_size

# Tags of Gatan DigitalMicrograph: units of x and y, scale of x and y.
_DM_UNITS, _DM_SCALES = (65003, 65004), (65009, 65010)


def tiff_size(file: Any, root: ElementTree.Element | None) -> VoxelSize:
    """Return the voxel size of an open :class:`tifffile.TiffFile`.

    Parameters
    ----------
    file
        The file.
    root
        Root of its OME-XML, or ``None``.
    """
    if root is not None:
        return _ome(root)
    if file.is_imagej:
        return _imagej(file)
    for known, read in _MICROSCOPES.items():
        if getattr(file, f"is_{known}", False):
            try:
                return read(getattr(file, f"{known}_metadata") or {})
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                return UNKNOWN
    return _digital_micrograph(file.pages[0].tags)


def _ome(root: ElementTree.Element) -> VoxelSize:
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return UNKNOWN
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    units = [
        pixels.get(f"PhysicalSize{axis}Unit", "µm" if size else None)
        for axis, size in zip("ZYX", sizes, strict=True)
    ]
    return voxel_size(sizes, units, "OME-XML")


def _imagej(file: Any) -> VoxelSize:
    metadata = file.imagej_metadata or {}
    tags = file.pages[0].tags
    y, x = (_from_resolution(tags.get(f"{axis}Resolution")) for axis in "YX")
    spacing = metadata.get("spacing")
    unit = metadata.get("unit")
    if unit is not None or spacing is not None:  # 1 is not written
        y, x = y or 1.0, x or 1.0
    return voxel_size((spacing, y, x), None if unit is None else str(unit), "ImageJ metadata")


def _from_resolution(tag: Any) -> float | None:
    """Return the size of a pixel from a tag in pixels per unit."""
    if tag is None:
        return None
    number, unit = tag.value
    return float(unit) / float(number) if number and unit else None


def _fei(metadata: Mapping[str, Any]) -> VoxelSize:
    scan = metadata.get("Scan") or metadata.get("EScan") or metadata["IScan"]
    return metres_size((None, scan["PixelHeight"], scan["PixelWidth"]), "tags of FEI")


def _zeiss(metadata: Mapping[str, Any]) -> VoxelSize:
    entry = metadata.get("ap_image_pixel_size") or metadata["ap_pixel_size"]
    _, size, unit = entry
    return voxel_size((None, size, size), str(unit), "tags of Zeiss")


def _olympus(metadata: Mapping[str, Any]) -> VoxelSize:
    return metres_size((None, metadata["pixelsizey"], metadata["pixelsizex"]), "tags of Olympus SIS")


def _tvips(metadata: Mapping[str, Any]) -> VoxelSize:
    sizes = [metadata[f"PixelSize{axis}"] for axis in "YX"]
    return voxel_size((None, *sizes), "nanometer", "tags of TVIPS")


_MICROSCOPES: dict[str, Callable[[Mapping[str, Any]], VoxelSize]] = {
    "fei": _fei,
    "sem": _zeiss,
    "sis": _olympus,
    "tvips": _tvips,
}


def _digital_micrograph(tags: Any) -> VoxelSize:
    units, scales = ([tags.get(tag) for tag in found] for found in (_DM_UNITS, _DM_SCALES))
    if any(tag is None for tag in (*units, *scales)):
        return UNKNOWN
    x, y = (scale.value for scale in scales)
    return voxel_size((None, y, x), [None, *(str(unit.value) for unit in reversed(units))], "tags of Gatan")
