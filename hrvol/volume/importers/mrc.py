"""Open MRC, REC and MAP files (mrcfile) as memory maps; compressed ones are decoded as a whole.

Bytes (mode 0) are signed in the definition of 2014. IMOD, SerialEM and FIB-SEM software write unsigned ones:
fields of IMOD's tell (https://bio3d.colorado.edu/imod/doc/mrc_format.txt), or a maximum above 127.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import WholeArray, mapped, read_exactly
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, grey_axes, voxel_size

_HEADER = 1024  # bytes

_EXTENDED = slice(92, 96)  # of these, the size of the extended header

_IMOD = slice(152, 160)  # of these, IMOD's stamp and flags

_IMOD_STAMP = 1146047817

_SIGNED, _HALF_BYTES = 1, 16  # flags of IMOD

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}


def open_mrc(request: Request) -> StoredImage:
    """Open a file of the MRC2014 format: modes 0, 1, 2, 6 and 12."""
    kind = "an MRC file"
    mrcfile = require("mrcfile", request.source, kind)
    utils = require("mrcfile.utils", request.source, kind)
    path, opener = request.path, _OPENERS.get(request.path.suffix.lower(), open)
    with opener(path, "rb") as file:
        head = bytearray(file.read(_HEADER))
    # Only the header is interpreted: mrcfile would read as many bytes behind it as it claims.
    claimed = bytes(head[_EXTENDED])
    head[_EXTENDED] = bytes(len(claimed))
    reader = mrcfile.mrcinterpreter.MrcInterpreter(io.BytesIO(head), permissive=True, header_only=True)
    header = reader.header
    extended = int(np.frombuffer(claimed, header.nsymbt.dtype)[0])
    try:
        dtype = utils.data_dtype_from_header(header)
        shape = tuple(int(side) for side in utils.data_shape_from_header(header))
    except ValueError as error:
        raise InputError(f"{request.source}: found a damaged MRC header ({error})") from None
    if dtype.kind not in "iuf":
        raise InputError(f"{request.source}: found type {dtype}, expected integers or floating-point numbers")
    if extended < 0 or min(shape, default=0) < 1:
        raise InputError(
            f"{request.source}: found shape {shape} after {extended} bytes, expected numbers above 0"
        )
    if dtype == np.int8 and _unsigned(head, header, request.source):
        dtype = np.dtype(np.uint8)
    offset = _HEADER + extended
    array: Any
    if opener is open:
        array = mapped(request.source, path, dtype, shape, offset, "C")
    else:

        def load() -> NDArray[Any]:
            with opener(path, "rb") as file:
                data = read_exactly(file, offset, math.prod(shape) * dtype.itemsize)
            return np.frombuffer(data, dtype).reshape(shape)

        array = WholeArray(request.source, "a compressed MRC file", load, shape, dtype)
    return StoredImage(array, grey_axes(shape), _size(header), (path,))


def _unsigned(head: bytes | bytearray, header: Any, source: str) -> bool:
    """Return whether the values of mode 0 are unsigned."""
    stamp, flags = (int(number) for number in np.frombuffer(head[_IMOD], header.mode.dtype))
    if stamp == _IMOD_STAMP:
        if flags & _HALF_BYTES:
            raise InputError(f"{source}: found two values per byte, expected one")
        return not flags & _SIGNED
    low, high = float(header.dmin), float(header.dmax)
    return 0 <= low <= high <= np.iinfo(np.uint8).max and high > np.iinfo(np.int8).max


def _size(header: Any) -> VoxelSize:
    """Return the size of voxels from cell and sampling; an axis of the file may be any of the cell."""
    cell = [float(header.cella[axis]) for axis in "xyz"]
    samples = [int(header[name]) for name in ("mx", "my", "mz")]
    if not any(cell):
        return VoxelSize()
    along = [int(header[name]) - 1 for name in ("maps", "mapr", "mapc")]
    if sorted(along) != [0, 1, 2]:
        along = [2, 1, 0]
    sizes = [cell[axis] / samples[axis] if samples[axis] else math.nan for axis in along]
    return voxel_size(sizes, "angstrom", "MRC header")
