"""Open NumPy files as memory maps; pickled objects are refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.lazy_arrays import mapped
from hrvol.volume.importers.stored import UNKNOWN, Request, StoredImage, grey_axes


def open_npy(request: Request) -> StoredImage:
    """Open a ``.npy`` file."""
    with request.path.open("rb") as file:
        shape, fortran, dtype = read_header(file, request.source)
        offset = file.tell()
    array = mapped(request.source, request.path, dtype, shape, offset, "F" if fortran else "C")
    return StoredImage(array, grey_axes(shape), UNKNOWN, (request.path,))


def read_header(file: Any, source: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the first axis is the fastest, and type; the file is at its values then.

    Raises
    ------
    InputError
        The header is damaged, or of no image.
    """
    formats = np.lib.format
    try:
        version = formats.read_magic(file)
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, EOFError) as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise InputError(f"{source}: found a damaged NumPy header ({reason})") from None
    if dtype.kind not in "biuf":
        raise InputError(f"{source}: found type {dtype}, expected integers or floating-point numbers")
    if len(shape) < 2:
        raise InputError(f"{source}: found shape {shape}, expected (y, x) or (z, y, x)")
    return shape, bool(fortran), dtype
