"""Open Zarr hierarchies that others wrote, in folders, in zip archives and at URLs."""

from __future__ import annotations

from typing import Any

import zarr

from hrvol.volume.storage.input_store import InputStore
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.zip_input import ZipInput, zip_root


def open_input(location: Location) -> zarr.Array[Any] | zarr.Group:
    """Open an array or group for reading; errors of Zarr and the file system propagate."""
    path = location.path
    if path is None:
        return location.open()
    if not path.exists():
        raise FileNotFoundError(location.url)
    inside = location.inside.strip("/")
    if path.is_file():
        root = zip_root(path)
        if root is not None:
            return zarr.open(ZipInput(path), mode="r", path="/".join(filter(None, (root, inside))))
    return zarr.open(InputStore(path), mode="r", path=inside)
