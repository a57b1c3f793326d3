"""Reading what a model file holds: whatever is wrong with it becomes one line that names file and member."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile is known to raise on damaged archives."""


def read_member(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
    """Return the bytes of a member; :class:`ModelError` if it is missing or damaged."""
    try:
        return archive.read(name)
    except KeyError:
        raise ModelError(f"{source}: found no {name}, expected one in a model file") from None
    except DAMAGE as error:
        raise ModelError(
            f"{source}: {name}: found damaged data ({one_line(error)}), expected a whole file"
        ) from None


def read_json(archive: zipfile.ZipFile, name: str, source: str) -> Any:
    """Return a member's JSON values."""
    data = read_member(archive, name, source)
    try:
        return json.loads(data)
    except ValueError as error:
        raise ModelError(f"{source}: {name}: found {one_line(error)}, expected JSON") from None


def read_mapping(archive: zipfile.ZipFile, name: str, source: str) -> dict[str, Any]:
    """Return a member's JSON mapping."""
    values = read_json(archive, name, source)
    if not isinstance(values, dict):
        raise ModelError(f"{source}: {name}: found a {type(values).__name__}, expected a mapping")
    return values


def read_array(
    archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int, ...], source: str
) -> NDArray[Any]:
    """Return a member's array of finite numbers, of one kind (``f``, ``i``) and shape."""
    data = read_member(archive, name, source)
    try:
        values: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ModelError(f"{source}: {name}: found {one_line(error)}, expected an array") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind != kind or values.shape != shape:
        found = f"{getattr(values, 'dtype', type(values))} {getattr(values, 'shape', '')}"
        expected = {"f": "floating-point", "i": "integer"}[kind]
        raise ModelError(f"{source}: {name}: found {found}, expected {expected} numbers {shape}")
    if not np.isfinite(values).all():
        raise ModelError(f"{source}: {name}: found NaN or infinity, expected finite numbers")
    return values


def array_bytes(values: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a ``.npy`` file, which hold no pickle."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def one_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
