"""Create outputs of any kind and write boxes of values to their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from hrvol.errors import OutputExistsError
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.storage.location import Location

CHANNELS_PER_SHARD = 16
"""Channels of probabilities or features per shard: limits the memory of a writer."""


def write_box(array: zarr.Array[Any], box: Box, values: npt.NDArray[Any], path: str) -> None:
    """Write values (z, y, x), or (C, z, y, x) with all channels, to a box (z, y, x) of an array.

    Raises
    ------
    ValueError
        The shape of the values is not that of the box, or their type does not fit the array's.
    """
    lead = values.ndim - 3
    flat = 3 - (array.ndim - lead)
    expected = array.shape[:lead] + box_shape(box)
    if lead not in (0, 1) or flat not in (0, 1) or values.shape != expected:
        raise ValueError(f"{path}: found values of shape {values.shape} for a box of {expected}")
    if values.dtype != array.dtype and not np.can_cast(values.dtype, array.dtype, "same_kind"):
        raise ValueError(f"{path}: found values of type {values.dtype}, expected {array.dtype}")
    trimmed = values.reshape(expected[:lead] + expected[lead + flat :])
    array[(slice(None),) * lead + box[flat:]] = trimmed.astype(array.dtype, copy=False)


def clear_output(location: Location, overwrite: bool) -> None:
    """Prepare an empty location for an output, deleting an earlier one if ``overwrite``.

    Only an output of hrvol is ever deleted: a volume given as output by mistake is kept.

    Raises
    ------
    OutputExistsError
        The location is occupied: by anything without ``overwrite``, by anything but an output of hrvol with
        it.
    """
    if check_overwrite(location, overwrite):
        location.remove()


def check_overwrite(location: Location, overwrite: bool) -> bool:
    """Return whether an earlier output has to be deleted first; raise as :func:`clear_output` does."""
    attributes = location.attributes()
    if attributes is None and not location.occupied():
        return False
    if not overwrite:
        raise OutputExistsError(f"{location}: exists already, expected nothing there")
    if attributes is None or "hrvol" not in attributes:
        content = "no Zarr" if attributes is None else "Zarr that hrvol did not write"
        raise OutputExistsError(
            f"{location}: found {content}, expected an earlier output; it is not overwritten"
        )
    return True


def ensure_group(parent: zarr.Group, path: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """Return a group of the hierarchy, created with these attributes unless it exists.

    Several processes may do so at once: an existing group is never replaced.
    """
    try:
        return parent.create_group(path, attributes=dict(attributes))
    except ContainsGroupError:
        group = parent[path]
        assert isinstance(group, zarr.Group)
        return group


def ensure_array(parent: zarr.Group, path: str, **properties: Any) -> zarr.Array[Any]:
    """Return an array of the hierarchy, created with these properties unless it exists.

    Raises
    ------
    OutputExistsError
        The existing array has another shape, type, chunks or shards.
    """
    try:
        return parent.create_array(path, **properties)
    except ContainsArrayError:
        array = parent[path]
        assert isinstance(array, zarr.Array)
    for name in ("shape", "dtype", "chunks", "shards"):
        stored, expected = getattr(array, name), properties[name]
        if stored != expected:
            raise OutputExistsError(f"{parent.store_path}/{path}: found {name} {stored}, expected {expected}")
    return array
