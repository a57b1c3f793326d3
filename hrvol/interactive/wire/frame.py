"""Pack JSON values and arrays into bytes, and unpack bytes that may come from anybody.

A frame is a mark, the length of a JSON document, the document, and compressed arrays one after the other. The
document has the type, shape and packed length of each array. Bytes of equal significance are brought together
before the compression by Zstandard, as Blosc's shuffle does.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.reading.bounded import parse_mapping
from hrvol.volume.storage.declared_size import check_size

TYPES = tuple(
    np.dtype(name) for name in ("u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
)
"""Types of arrays, in little-endian byte order."""

_MARK = b"hrvW"

_HEAD = struct.Struct("<4sI")

_JSON_BYTES = 16 * 2**20

_MOST_ARRAYS = 4096

_MOST_AXES = 4


@dataclass(frozen=True, eq=False)
class Frame:
    """Values and arrays that are sent together.

    Attributes
    ----------
    values
        JSON values by name.
    arrays
        Arrays by name.
    """

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the frame as bytes."""
        parts: list[bytes] = []
        table: list[list[Any]] = []
        for name, array in self.arrays.items():
            plain = np.ascontiguousarray(array, np.asarray(array).dtype.newbyteorder("<"))
            packed = _packed(plain)
            table.append([name, plain.dtype.str, list(np.shape(array)), len(packed)])
            parts.append(packed)
        text = json.dumps({"values": dict(self.values), "arrays": table}, separators=(",", ":")).encode()
        return b"".join([_HEAD.pack(_MARK, len(text)), text, *parts])

    @classmethod
    def decode(cls, data: bytes, source: str, limit: int) -> Frame:
        """Return the frame of bytes.

        Parameters
        ----------
        data
            The bytes.
        source
            Where they come from, for messages.
        limit
            Most bytes of all arrays together.

        Raises
        ------
        InputError
            They are no frame, or a larger one.
        """
        try:
            return _decoded(data, source, limit)
        except (ValueError, TypeError, struct.error, RuntimeError, OverflowError) as error:
            raise InputError(f"{source}: found damaged data: {' '.join(str(error).split())}") from None


def blob(data: bytes) -> NDArray[np.uint8]:
    """Return bytes as an array."""
    return np.frombuffer(data, np.uint8)


def _decoded(data: bytes, source: str, limit: int) -> Frame:
    mark, size = _HEAD.unpack_from(data)
    if mark != _MARK or size > min(len(data) - _HEAD.size, _JSON_BYTES):
        raise ValueError("found no frame of hrvol")
    at = _HEAD.size + size
    document = parse_mapping(data[_HEAD.size : at], source, limit=_JSON_BYTES)
    values, table = document.get("values"), document.get("arrays")
    if not isinstance(values, dict) or not isinstance(table, list) or len(table) > _MOST_ARRAYS:
        raise ValueError("found no values and arrays")
    arrays: dict[str, NDArray[Any]] = {}
    view, left = memoryview(data), limit
    for name, kind, shape, length in table:
        dtype, sides = _checked(kind, shape, length)
        nbytes = math.prod(sides) * dtype.itemsize
        left -= nbytes
        if left < 0:
            raise ValueError(f"found arrays of more than {limit:,} bytes")
        if length > len(data) - at:
            raise ValueError("found an end in the middle of an array")
        arrays[str(name)] = _unpacked(view[at : at + length], dtype, sides, nbytes)
        at += length
    if at != len(data):
        raise ValueError("found more bytes than arrays")
    return Frame(values, arrays)


def _checked(kind: Any, shape: Any, length: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    dtype = next((one for one in TYPES if one.str == kind), None)
    numbers = [*shape, length] if isinstance(shape, list) else [None]
    whole = all(type(number) is int and 0 <= number < 2**48 for number in numbers)
    if dtype is None or not whole or len(shape) > _MOST_AXES:
        raise ValueError("found an array of an unknown type or shape")
    return dtype, tuple(shape)


def _packed(array: NDArray[Any]) -> bytes:
    if not array.size:
        return b""
    rows = array.reshape(-1).view(np.uint8).reshape(-1, array.dtype.itemsize)
    packed: bytes = zstd.compress(np.ascontiguousarray(rows.T), 1)
    return packed


def _unpacked(packed: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], nbytes: int) -> NDArray[Any]:
    if not nbytes:
        if len(packed):
            raise ValueError("found bytes of an empty array")
        return np.zeros(shape, dtype)
    check_size("zstd", packed, nbytes)
    plain = np.frombuffer(zstd.decompress(packed), np.uint8)
    if plain.size != nbytes:
        raise ValueError(f"found {plain.size:,} bytes of an array of {nbytes:,}")
    rows = np.ascontiguousarray(plain.reshape(dtype.itemsize, -1).T)
    return rows.reshape(-1).view(dtype).reshape(shape)
