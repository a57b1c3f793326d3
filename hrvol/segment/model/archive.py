"""ReadForecast and writing what a model file holds.

Whatever is wrong with it becomes one line that names file and member. What is written has neither dates nor
addresses in memory in it: equal contents are equal bytes.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Hashable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError, first_line

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

_REGULAR_FILE = 0o100644 << 16

_UNIX = 3


def read_member(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
    """Return the bytes of a member; :class:`ModelError` if it is missing or damaged."""
    try:
        return archive.read(name)
    except KeyError:
        raise ModelError(f"{source}: found no {name}, expected one in a model file") from None
    except DAMAGE as error:
        raise ModelError(
            f"{source}: {name}: found damaged data ({first_line(error)}), expected a whole file"
        ) from None


def read_json(archive: zipfile.ZipFile, name: str, source: str) -> Any:
    """Return a member's JSON values."""
    data = read_member(archive, name, source)
    try:
        return json.loads(data)
    except ValueError as error:
        raise ModelError(f"{source}: {name}: found {first_line(error)}, expected JSON") from None


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
        raise ModelError(f"{source}: {name}: found {first_line(error)}, expected an array") from None
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


def zip_bytes(members: Mapping[str, bytes], level: int = 6) -> bytes:
    """Return a zip of members, in their order; the same members give the same bytes.

    Parameters
    ----------
    members
        Names and contents. Those that are zips themselves (``*.skops``) are stored as they are.
    level
        How hard to compress the others, 1 (fast) to 9.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system = _UNIX
            entry.external_attr = _REGULAR_FILE
            kind = zipfile.ZIP_STORED if name.endswith(".skops") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, kind, level)
    return stream.getvalue()


def settled_skops(data: bytes) -> bytes:
    """Return a ``.skops`` file whose bytes depend on nothing but what is in it, compressed.

    skops writes the time, and addresses in memory as numbers of objects and in names of arrays. Here both are
    numbered from the first on. Plain values (numbers, strings) that are equal count as one object, because
    whether Python keeps one or two of them depends on where they come from.

    Parameters
    ----------
    data
        What ``skops.io.dumps`` returns.
    """
    objects: dict[int, Hashable] = {}
    numbers: dict[Hashable, int] = {}
    names: dict[str, str] = {}

    def settle(node: dict[str, Any]) -> dict[str, Any]:
        # Attributes may be called __id__ or file, too, but their values are nodes.
        if isinstance(address := node.get("__id__"), int):
            thing = node["content"] if node["__loader__"] == "JsonNode" else address
            known = objects.setdefault(address, thing)  # a CachedNode has the address of a node before it
            node["__id__"] = numbers.setdefault(known, len(numbers) + 1)  # skops takes 0 for no number
        if isinstance(name := node.get("file"), str):
            node["file"] = names.setdefault(name, f"{len(names)}{PurePosixPath(name).suffix}")
        return node

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"), object_hook=settle)
        members = {new: _settled(new, archive.read(old)) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    return zip_bytes(members, level=1)  # level 6 takes three times as long for a sixth less


def _settled(name: str, data: bytes) -> bytes:
    """Return a member; where it is an array of records (nodes of trees), with zeros between their fields."""
    if not name.endswith(".npy") or b"'descr': [(" not in data[:32]:  # parsing every header takes a while
        return data
    values: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    between = np.ones(values.dtype.itemsize, bool)
    for kind, start, *_ in (values.dtype.fields or {}).values():
        between[start : start + kind.itemsize] = False
    # Of the bytes, not the values: a copy by NumPy may have anything between the fields.
    settled = np.frombuffer(bytearray(data), np.uint8)
    settled[len(data) - values.nbytes :].reshape(-1, values.dtype.itemsize)[:, between] = 0
    return settled.tobytes()
