"""Read and write the members of a model file.

Damage is reported in one line that names the file and the member. The bytes written depend on the contents
alone: they hold no dates and no memory addresses.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Hashable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError
from hrvol.reading.archive import read_member
from hrvol.reading.bounded import parse_array, parse_json, parse_mapping

MEMBERS = 64
"""Most members of a model file."""

LIMITS = {".json": 16 * 2**20, ".npy": 2**30, ".skops": 2**30, ".safetensors": 2**28, "total": 2**31}
"""Most uncompressed bytes of a member of a model file by its suffix, and of all together."""

_HEADER = 10_240  # bytes of an array's header, at most

_ITEM = 16  # bytes of a number, at most

_REGULAR_FILE = 0o100644 << 16

_UNIX = 3


def read_json(archive: zipfile.ZipFile, name: str, source: str) -> Any:
    """Return a member's JSON values; raise :class:`ModelError` if it is missing or damaged."""
    return parse_json(read_member(archive, name, source, error=ModelError), f"{source}: {name}", ModelError)


def read_mapping(archive: zipfile.ZipFile, name: str, source: str) -> dict[str, Any]:
    """Return a member's JSON mapping."""
    data = read_member(archive, name, source, error=ModelError)
    return parse_mapping(data, f"{source}: {name}", ModelError)


def read_array(
    archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int, ...], source: str
) -> NDArray[Any]:
    """Return a member's array of finite numbers; check its shape and the kind (``f``, ``i``) of its dtype."""
    data = read_member(archive, name, source, math.prod(shape) * _ITEM + _HEADER, ModelError)
    values = parse_array(data, f"{source}: {name}", shape, ModelError)
    if values.dtype.kind != kind:
        expected = {"f": "floating-point", "i": "integer"}[kind]
        raise ModelError(
            f"{source}: {name}: found {values.dtype} {shape}, expected {expected} numbers {shape}"
        )
    if not np.isfinite(values).all():
        raise ModelError(f"{source}: {name}: found NaN or infinity, expected finite numbers")
    return values


def array_bytes(values: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a ``.npy`` file without pickle."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def zip_bytes(members: Mapping[str, bytes], level: int = 6) -> bytes:
    """Return a zip of members in their order; the same members give the same bytes.

    Parameters
    ----------
    members
        Names and contents. Members that do not get smaller, zips themselves (``*.skops``) and weights
        (``*.safetensors``), are stored uncompressed.
    level
        Compression level of the others, 1 (fastest) to 9.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)  # its default date is fixed, in 1980
            entry.create_system = _UNIX
            entry.external_attr = _REGULAR_FILE
            stored = name.endswith((".skops", ".safetensors"))
            kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, kind, level)
    return stream.getvalue()


def canonical_skops(data: bytes) -> bytes:
    """Return a compressed ``.skops`` file whose bytes depend on its contents alone.

    skops writes the time, and identifies objects and arrays by memory addresses, which are replaced by
    consecutive numbers here. Equal plain values (numbers, strings) count as one object, because it depends on
    their origin whether Python keeps one or two.

    Parameters
    ----------
    data
        The bytes that ``skops.io.dumps`` returns.
    """
    objects: dict[int, Hashable] = {}
    numbers: dict[Hashable, int] = {}
    names: dict[str, str] = {}

    def renumber(node: dict[str, Any]) -> dict[str, Any]:
        # Attributes may be called __id__ or file, too, but their values are nodes.
        if isinstance(address := node.get("__id__"), int):
            identity = node["content"] if node["__loader__"] == "JsonNode" else address
            # A CachedNode has the address of an earlier node.
            identity = objects.setdefault(address, identity)
            node["__id__"] = numbers.setdefault(identity, len(numbers) + 1)  # skops reads 0 as no number
        if isinstance(name := node.get("file"), str):
            node["file"] = names.setdefault(name, f"{len(names)}{PurePosixPath(name).suffix}")
        return node

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"), object_hook=renumber)
        members = {new: _without_padding(new, archive.read(old)) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    return zip_bytes(members, level=1)  # level 6 takes three times as long and saves a sixth


def _without_padding(name: str, data: bytes) -> bytes:
    """Return a member with the padding between fields set to 0 if it is an array of records (tree nodes)."""
    if not name.endswith(".npy") or b"'descr': [(" not in data[:32]:  # parsing every header is slow
        return data
    values: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    padding = np.ones(values.dtype.itemsize, bool)
    for kind, start, *_ in (values.dtype.fields or {}).values():
        padding[start : start + kind.itemsize] = False
    # Edit the bytes, not the values: copies by NumPy have arbitrary padding.
    cleared = np.frombuffer(bytearray(data), np.uint8)
    cleared[len(data) - values.nbytes :].reshape(-1, values.dtype.itemsize)[:, padding] = 0
    return cleared.tobytes()
