"""Read and write small records beside the arrays of an output: Zarr groups with attributes only.

A record is one object (``<path>/zarr.json``), written atomically on a disk or in a bucket, and readable by
any Zarr library.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from hrvol.errors import InputError
from hrvol.reading.bounded import parse_mapping
from hrvol.text import printable
from hrvol.volume.storage.location import Location, checksum

LOG = logging.getLogger("hrvol.volume")

_AT_ONCE = 16

RECORD_BYTES = 16 * 2**20
"""Most bytes of a record: 512 entries have 200 kB, of version 0.1.0 with 1,500 classes 10 MB."""

RECORD_CONTAINERS = 2**17
"""Most lists and mappings in a record, each of which takes memory: 512 entries have 3,000."""


class Records:
    """The records of one hierarchy, whose store is kept open.

    Parameters
    ----------
    location
        Location of the hierarchy.
    read_only
        Whether to open the store for reading only.
    """

    def __init__(self, location: Location, *, read_only: bool = True) -> None:
        self._location = location
        self._store = location.store(read_only=read_only)

    def put(self, path: str, values: Mapping[str, Any]) -> None:
        """Write a record, replacing an earlier one."""
        group = {"zarr_format": 3, "node_type": "group", "attributes": dict(values)}
        data = json.dumps(group, separators=(",", ":"), allow_nan=False).encode()
        sync(self._store.set(f"{path}/zarr.json", default_buffer_prototype().buffer.from_bytes(data)))

    def get(self, path: str) -> dict[str, Any] | None:
        """Return a record; ``None`` if it does not exist or is damaged."""
        key = f"{path}/zarr.json"
        try:
            if self._location.path is None:
                value = sync(self._store.get(key, default_buffer_prototype()))
                data = None if value is None else value.to_bytes()
            else:
                data = self._location.read_small(key, RECORD_BYTES)
            if data is None:
                return None
            if data.count(b"{") + data.count(b"[") <= RECORD_CONTAINERS:
                values = parse_mapping(data, key, limit=RECORD_BYTES).get("attributes")
                if isinstance(values, dict):
                    return values
        except InputError:
            pass
        shown = printable(path, 200)
        LOG.warning("%s: found a damaged record %s; repeating the work it recorded", self._location, shown)
        return None

    def get_all(self, paths: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return several records, in order, reading some concurrently."""
        with ThreadPoolExecutor(_AT_ONCE, "hrvol-records") as pool:
            return list(pool.map(self.get, paths))

    def children(self, path: str) -> list[str]:
        """Return the sorted names directly below a path."""

        async def names() -> list[str]:
            return [name async for name in self._store.list_dir(path)]

        try:
            return sorted(name for name in sync(names()) if name != "zarr.json")
        except FileNotFoundError:
            return []


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record with their checksum: a changed digit would still be valid JSON."""
    return {**values, "seal": _seal(values)}


def unsealed(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the values of a sealed record; ``None`` if it is missing or damaged."""
    if record is None or "seal" not in record:
        return None
    seal = record.pop("seal")
    with suppress(RecursionError):
        if seal == _seal(record):
            return record
    LOG.warning("found a damaged record in the ledger: its blocks are computed again")
    return None


def _seal(values: Mapping[str, Any]) -> str | None:
    return checksum(json.dumps(values, sort_keys=True).encode())
