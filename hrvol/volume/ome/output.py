"""What every kind of output needs: a free place, and boxes of values put where they belong."""

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
"""Channels of probabilities or features that share a shard: bounds what one writer holds."""


def write_box(array: zarr.Array[Any], box: Box, values: npt.NDArray[Any], path: str) -> None:
    """Write values (z, y, x), or (C, z, y, x) with all channels, to a box (z, y, x) of an array.

    Raises
    ------
    ValueError
        The values have another shape than the box, or a type that does not fit the array's.
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
    """Make sure that nothing is at a location, deleting an earlier output if that is wished.

    Only what hrvol wrote is ever deleted: a volume given by mistake for an output stays.

    Raises
    ------
    OutputExistsError
        Something is in the way: anything without ``overwrite``, anything but an output of hrvol's with it.
    """
    if check_overwrite(location, overwrite):
        location.remove()


def check_overwrite(location: Location, overwrite: bool) -> bool:
    """Return whether something of hrvol's has to be deleted first; raise as :func:`clear_output` does."""
    attributes = location.attributes()
    if attributes is None and not location.occupied():
        return False
    if not overwrite:
        raise OutputExistsError(f"{location}: exists already, expected nothing there")
    if attributes is None or "hrvol" not in attributes:
        found = "no Zarr" if attributes is None else "Zarr that hrvol did not write"
        raise OutputExistsError(
            f"{location}: found {found}, expected an earlier output; it is not overwritten"
        )
    return True


def ensure_group(parent: zarr.Group, path: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """Return a group of the hierarchy, made with these attributes unless it is there.

    Several processes may do it at once: none deletes what another has made.
    """
    try:
        return parent.create_group(path, attributes=dict(attributes))
    except ContainsGroupError:
        found = parent[path]
        assert isinstance(found, zarr.Group)
        return found


def ensure_array(parent: zarr.Group, path: str, **wanted: Any) -> zarr.Array[Any]:
    """Return an array of the hierarchy, made with these properties unless it is there.

    Raises
    ------
    OutputExistsError
        An array of another shape, type or chunking is there.
    """
    try:
        return parent.create_array(path, **wanted)
    except ContainsArrayError:
        found = parent[path]
        assert isinstance(found, zarr.Array)
    for name in ("shape", "dtype", "chunks", "shards"):
        if getattr(found, name) != wanted[name]:
            raise OutputExistsError(
                f"{parent.store_path}/{path}: found {name} {getattr(found, name)}, expected {wanted[name]}"
            )
    return found
