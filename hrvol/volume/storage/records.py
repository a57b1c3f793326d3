"""Small records beside the arrays of an output: groups that hold nothing but attributes.

A record is one object (``<path>/zarr.json``) that is written whole or not at all, on a disk or in a bucket,
and any Zarr library can read it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.volume")

_AT_ONCE = 16


class Records:
    """The records of one hierarchy; keeps its store open.

    Parameters
    ----------
    location
        Of the hierarchy.
    read_only
        Whether nothing will be written.
    """

    def __init__(self, location: Location, *, read_only: bool = True) -> None:
        self._location = location
        self._store = location.store(read_only=read_only)

    def put(self, path: str, values: Mapping[str, Any]) -> None:
        """Write a record, in place of an earlier one."""
        group = {"zarr_format": 3, "node_type": "group", "attributes": dict(values)}
        data = json.dumps(group, separators=(",", ":"), allow_nan=False).encode()
        sync(self._store.set(f"{path}/zarr.json", default_buffer_prototype().buffer.from_bytes(data)))

    def get(self, path: str) -> dict[str, Any] | None:
        """Return a record, ``None`` where there is none; one that is damaged counts as none."""
        found = sync(self._store.get(f"{path}/zarr.json", default_buffer_prototype()))
        if found is None:
            return None
        try:
            return dict(json.loads(found.to_bytes())["attributes"])
        except (ValueError, KeyError, TypeError):
            LOG.warning("%s: found a damaged record %s; what it said is done again", self._location, path)
            return None

    def get_all(self, paths: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return several records, in their order, reading some at once."""
        with ThreadPoolExecutor(_AT_ONCE, "hrvol-records") as pool:
            return list(pool.map(self.get, paths))

    def children(self, path: str) -> list[str]:
        """Return the sorted names below a path."""

        async def names() -> list[str]:
            return [name async for name in self._store.list_dir(path)]

        try:
            return sorted(name for name in sync(names()) if name != "zarr.json")
        except FileNotFoundError:
            return []
