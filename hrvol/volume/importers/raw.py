"""Open files without a header as memory maps: their layout is from the user or from a small file beside them.

Side files are MetaImage (``.mhd``; ``.mha`` holds header and values), NRRD (``.nhdr``), Volume Graphics
(``.vgi``) and PyHST (``.info``).
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.volume.importers.lazy_arrays import WholeArray, mapped
from hrvol.volume.importers.nrrd import open_nrrd
from hrvol.volume.importers.raw_headers import RawHeader, read_info, read_metaimage, read_vgi
from hrvol.volume.importers.stored import UNKNOWN, Request, StoredImage

SUFFIXES = (".raw", ".vol", ".bin", ".dat", ".img")
"""Of files without a header."""

SIDE_FILES = (".mhd", ".mha", ".vgi", ".info")
"""Of files that describe them, and are opened in their place."""

_READERS = {".mhd": read_metaimage, ".mha": read_metaimage, ".vgi": read_vgi, ".info": read_info}


def open_raw(request: Request) -> StoredImage:
    """Open a file without a header.

    Raises
    ------
    InputError
        Its layout is not known, or its size is another one.
    """
    path, layout = request.path, request.raw
    if layout is None:
        beside = _side_file(path)
        if beside is None:
            raise InputError(
                f"{request.source}: found a file of {path.stat().st_size:,} bytes without a header, expected"
                " --raw-shape z,y,x and --raw-dtype (in Python: raw=RawLayout(...)), or a side file"
                f" ({path.stem}.mhd, .nhdr, .vgi or {path.name}.info)"
            )
        side = Request(beside, str(beside))
        image = open_nrrd(side) if beside.suffix.lower() == ".nhdr" else open_side_file(side)
        if not any(file.samefile(path) for file in image.files):
            raise InputError(
                f"{request.source}: found a side file {beside.name} that describes another file"
                f" ({image.files[-1].name}), expected --raw-shape z,y,x and --raw-dtype, or its own side file"
            )
        return image
    array = mapped(request.source, path, layout.stored, layout.shape, layout.offset, "C")
    found, needed = path.stat().st_size, math.prod(layout.shape) * layout.stored.itemsize + layout.offset
    if found != needed:
        raise InputError(
            f"{request.source}: found {found:,} bytes, expected {needed:,} for shape {layout.shape} of type"
            f" {layout.dtype} after {layout.offset:,} bytes"
        )
    return StoredImage(array, None, UNKNOWN, (path,))


def _side_file(path: Path) -> Path | None:
    """Return the file that describes another one and lies beside it."""
    names = [path.with_suffix(suffix) for suffix in (".mhd", ".nhdr", ".vgi", ".info")]
    names += [path.with_name(f"{path.name}{suffix}") for suffix in (".mhd", ".nhdr", ".vgi", ".info")]
    return next((name for name in names if name.is_file()), None)


def open_side_file(request: Request) -> StoredImage:
    """Open the file that a side file describes."""
    header = _READERS[request.path.suffix.lower()](request.path, request.source)
    array: Any
    if header.compressed:
        array = WholeArray(
            request.source,
            "a compressed MetaImage",
            lambda: _inflated(header),
            header.shape,
            header.dtype,
        )
    else:
        offset = header.offset
        if offset < 0:  # the values are at the end
            nbytes = math.prod(header.shape) * header.dtype.itemsize
            offset = header.path.stat().st_size - nbytes
        array = mapped(request.source, header.path, header.dtype, header.shape, offset, "C")
    return StoredImage(array, header.axes, header.size, (request.path, header.path))


def _inflated(header: RawHeader) -> NDArray[Any]:
    nbytes = math.prod(header.shape) * header.dtype.itemsize
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    with header.path.open("rb") as file:
        file.seek(max(header.offset, 0))
        data = bytearray()
        while len(data) < nbytes and not stream.eof:
            part = file.read(2**20)
            if not part:
                break
            data += stream.decompress(part, nbytes - len(data))
            while stream.unconsumed_tail and len(data) < nbytes:
                data += stream.decompress(stream.unconsumed_tail, nbytes - len(data))
    if len(data) < nbytes:
        raise ValueError(f"found {len(data):,} bytes of values, expected {nbytes:,}")
    return np.frombuffer(data, header.dtype).reshape(header.shape)
