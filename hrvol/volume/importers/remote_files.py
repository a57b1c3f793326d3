"""Open single files at URLs (fsspec): HDF5, NumPy, and files without a header; parts of them are read.

Other formats are read from local disks only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError, UsageError, first_line
from hrvol.text import printable
from hrvol.volume.importers import hdf5, raw
from hrvol.volume.importers.lazy_arrays import Selection, SlicedArray
from hrvol.volume.importers.npy import read_header
from hrvol.volume.importers.registry import FORMATS, Found
from hrvol.volume.importers.stored import UNKNOWN, StoredImage, grey_axes
from hrvol.volume.storage.location import Location, split_inside


def find_remote(location: Location) -> Found | None:
    """Return what opens a file at a URL; ``None`` for a local path, for Zarr, and for unknown endings.

    Raises
    ------
    InputError
        The format is read from local disks only.
    """
    if location.path is not None:
        return None
    url, inside = split_inside(location.url)
    name = url.rstrip("/").rpartition("/")[2].lower()
    known = next((known for known in FORMATS if name.endswith(known.suffixes or ("\0",))), None)
    if known is None:
        return None
    if known.open is hdf5.open_hdf5:
        return Found(known.name, partial(_open_hdf5, location, url, inside))
    if name.endswith(".npy"):
        return Found(known.name, partial(_open_npy, location, url))
    if name.endswith(raw.SUFFIXES):
        return Found(known.name, partial(_open_raw, location, url))
    raise InputError(
        f"{location.url}: found {known.name} at a URL, expected a local file: of those at URLs, Zarr, HDF5,"
        " NumPy and raw files are read"
    )


def _stream(location: Location, url: str) -> Any:
    """Open a file at a URL for reading; blocks that were read are kept, some megabytes of them."""
    import fsspec

    try:
        return fsspec.open(url, "rb", **dict(location.options)).open()
    except FileNotFoundError:
        raise InputError(f"{location.url}: no such file") from None
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(f"{location.url}: {first_line(error)}") from None
    except OSError as error:
        raise InputError(f"{location.url}: cannot be opened: {printable(first_line(error), 200)}") from None


def _open_hdf5(location: Location, url: str, inside: str) -> StoredImage:
    return hdf5.open_stream(_stream(location, url), inside, location.url)


def _open_npy(location: Location, url: str) -> StoredImage:
    stream = _stream(location, url)
    shape, fortran, dtype = read_header(stream, location.url)
    return _ranges(location, stream, shape, dtype, stream.tell(), fortran)


def _open_raw(location: Location, url: str) -> StoredImage:
    layout = None if location.reading is None else location.reading.raw
    if layout is None:
        raise InputError(
            f"{location.url}: found a file without a header, expected --raw-shape z,y,x and --raw-dtype"
        )
    stream = _stream(location, url)
    size = stream.seek(0, 2)
    image = _ranges(location, stream, layout.shape, layout.stored, layout.offset, False)
    # As of a local file: a shape or a type that does not fit shifts all voxels.
    needed = layout.offset + math.prod(layout.shape) * layout.stored.itemsize
    if size != needed:
        raise InputError(
            f"{location.url}: found {size:,} bytes, expected {needed:,} for shape {layout.shape} of type"
            f" {layout.dtype} after {layout.offset:,} bytes"
        )
    return image


def _ranges(
    location: Location, stream: Any, shape: Sequence[int], dtype: Any, offset: int, fortran: bool
) -> StoredImage:
    """Return an array of plain bytes in a stream, of which whole rows are read."""
    sides, kind = tuple(shape), np.dtype(dtype)
    stored = sides[::-1] if fortran else sides
    size, needed = stream.seek(0, 2), offset + math.prod(sides) * kind.itemsize
    if needed > size:
        raise InputError(
            f"{location.url}: found {size:,} bytes, expected at least {needed:,} for shape {sides}"
        )
    lock = threading.Lock()

    def read(selection: Selection) -> NDArray[Any]:
        wanted = selection[::-1] if fortran else selection
        with lock:
            values = _read(stream, stored, kind, offset, wanted)
        return values.T if fortran else values

    row = (*[1] * (len(stored) - 1), stored[-1])
    array = SlicedArray(read, sides, kind, row[::-1] if fortran else row, decodes=False)
    return StoredImage(array, grey_axes(sides), UNKNOWN, ())


def _read(
    stream: Any, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, selection: Selection
) -> NDArray[Any]:
    """Read a selection of an array in C order: per index of the first axes, the rows between its ends."""
    first, rest = selection[0], selection[1:]
    row = math.prod(shape[1:]) * dtype.itemsize
    if len(shape) <= 2:
        span = first if isinstance(first, slice) else slice(first, first + 1)
        stream.seek(offset + span.start * row)
        count = span.stop - span.start
        data = stream.read(count * row)
        if len(data) < count * row:
            raise ValueError(f"found {len(data):,} bytes, expected {count * row:,}")
        values = np.frombuffer(data, dtype).reshape(count, *shape[1:])
        return np.array(values[(slice(None) if isinstance(first, slice) else 0, *rest)])
    numbers = range(shape[0])[first] if isinstance(first, slice) else [first]
    parts = [_read(stream, shape[1:], dtype, offset + number * row, rest) for number in numbers]
    return np.stack(parts) if isinstance(first, slice) else parts[0]
