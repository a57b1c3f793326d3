"""Read the voxel size of a dataset of HDF5: from its attributes, NeXus' axes, or nabu's configuration."""

from __future__ import annotations

import posixpath
from typing import Any

import numpy as np

from hrvol.volume.axes import spacing
from hrvol.volume.importers.hdf5_search import text_of
from hrvol.volume.importers.stored import UNKNOWN, VoxelSize, voxel_size
from hrvol.volume.units import METRES, normal_unit

_STEPS = 2**20  # of an axis

_NABU = "../configuration/processing_options/reconstruction/voxel_size_cm"


def hdf5_size(dataset: Any, axes: tuple[str, ...]) -> VoxelSize:
    """Return the voxel size of a dataset whose axes have these names."""
    for read in (_element_size, _of_axes, _nabu):
        try:
            size = read(dataset, axes)
        except (KeyError, OSError, RuntimeError, ValueError, TypeError, AttributeError):
            continue
        if size is not None:
            return size
    return UNKNOWN


def _element_size(dataset: Any, axes: tuple[str, ...]) -> VoxelSize | None:
    """Read ``element_size_um`` (z, y, x), which ImageJ's HDF5 plugins write."""
    sizes = dataset.attrs.get("element_size_um")
    if sizes is None or np.size(sizes) != 3:
        return None
    return voxel_size([float(size) for size in np.ravel(sizes)], "micrometer", "attribute element_size_um")


def _of_axes(dataset: Any, axes: tuple[str, ...]) -> VoxelSize | None:
    """Read the coordinates that an NXdata group names as its axes."""
    group = dataset.parent
    names = group.attrs.get("axes")
    if names is None or np.size(names) != len(axes):
        return None
    sizes: dict[str, float] = {}
    units: dict[str, str] = {}
    for axis, name in zip(axes, (text_of(name) for name in np.ravel(names)), strict=True):
        if axis not in ("z", "y", "x") or name is None or name not in group:
            continue
        values = group[name]
        unit = text_of(values.attrs.get("units"))
        if values.ndim != 1 or not 2 <= values.size <= _STEPS or normal_unit(unit) not in METRES:
            continue
        step = spacing(values[()])
        if step != 1.0 or np.allclose(np.diff(values[()]), 1.0, rtol=1e-3):  # else uneven
            sizes[axis], units[axis] = step, str(unit)
    if not {"y", "x"} <= sizes.keys():
        return None
    return voxel_size([sizes.get(a) for a in "zyx"], [units.get(a) for a in "zyx"], "NXdata axes")


def _nabu(dataset: Any, axes: tuple[str, ...]) -> VoxelSize | None:
    path = posixpath.normpath(posixpath.join(dataset.parent.name, _NABU))
    value = dataset.file.get(path)
    if value is None or getattr(value, "size", 0) not in (1, 3):
        return None
    sizes = [float(size) for size in np.ravel(value[()])]
    return voxel_size(sizes * 3 if len(sizes) == 1 else sizes, "centimeter", "configuration of nabu")
