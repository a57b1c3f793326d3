"""Open NIfTI files (nibabel): plain ones box by box, gzipped ones as a whole.

A file with a slope or an intercept is read as the numbers that they make of the stored ones.
"""

from __future__ import annotations

import gzip
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import Selection, SlicedArray, WholeArray, mapped, read_exactly
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, voxel_size

_UNITS = {"meter": "meter", "mm": "millimeter", "micron": "micrometer"}


def open_nifti(request: Request) -> StoredImage:
    """Open a ``.nii`` or ``.nii.gz`` file."""
    nibabel = require("nibabel", request.source, "a NIfTI file")
    image = nibabel.load(request.path)
    header, proxy = image.header, image.dataobj
    shape, dtype = tuple(int(side) for side in image.shape), np.dtype(header.get_data_dtype())
    if dtype.kind not in "biuf":
        raise InputError(f"{request.source}: found type {dtype}, expected integers or floating-point numbers")
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"{request.source}: found shape {shape}, expected an image or a volume")
    names = ("x", "y", "z", "t", *(f"axis {i}" for i in range(4, len(shape))))[: len(shape)]
    offset, slope, inter = int(proxy.offset), float(proxy.slope), float(proxy.inter)
    files = {holder.filename for holder in image.file_map.values() if holder.filename is not None}
    path = type(request.path)(image.file_map["image"].filename)
    array: Any
    if path.suffix.lower() == ".gz":

        def load() -> NDArray[Any]:
            with gzip.open(path, "rb") as file:
                data = read_exactly(file, offset, math.prod(shape) * dtype.itemsize)
            return np.frombuffer(data, dtype).reshape(shape, order="F")

        array = WholeArray(request.source, "a gzipped NIfTI file", load, shape, dtype)
    else:
        array = mapped(request.source, path, dtype, shape, offset, "F")
    if (slope, inter) != (1.0, 0.0):
        stored = array

        def read(selection: Selection) -> NDArray[Any]:
            values: NDArray[Any] = np.asarray(stored[selection], np.float64) * slope + inter
            return values

        array = SlicedArray(read, shape, np.float64, stored.chunks, decodes=False)
    return StoredImage(
        array, names, _size(header), tuple(sorted({type(request.path)(name) for name in files}))
    )


def _size(header: Any) -> VoxelSize:
    zooms = [float(zoom) for zoom in header.get_zooms()][:3]
    sizes = [*reversed(zooms)] if len(zooms) == 3 else [None, *reversed(zooms)]
    try:
        unit = _UNITS.get(header.get_xyzt_units()[0])
    except (KeyError, ValueError, AttributeError):
        unit = None
    return voxel_size(sizes, unit, "NIfTI header")
