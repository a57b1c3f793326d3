"""What every kind of output needs: a free place, and boxes of values put where they belong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from hrvol.errors import OutputExistsError
from hrvol.volume.tiling import Box, box_shape

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


def make_way(target: str, overwrite: bool) -> None:
    """Make sure that nothing is at a path or URL, deleting an earlier output if that is wished.

    Only what hrvol wrote is ever deleted: a volume given by mistake for an output stays.

    Raises
    ------
    OutputExistsError
        Something is in the way: anything without ``overwrite``, anything but an output of hrvol's with it.
    """
    if check_way(target, overwrite):
        remove(target)


def check_way(target: str, overwrite: bool) -> bool:
    """Return whether something of hrvol's has to be deleted first; raise as :func:`make_way` does."""
    attributes = _attributes(target)
    if attributes is None and ("://" in target or not Path(target).exists()):
        return False
    if not overwrite:
        raise OutputExistsError(f"{target}: exists already, expected nothing there")
    if attributes is None or "hrvol" not in attributes:
        found = "no Zarr" if attributes is None else "Zarr that hrvol did not write"
        raise OutputExistsError(f"{target}: found {found}, expected an earlier output; it is not overwritten")
    return True


def remove(target: str) -> None:
    """Delete a Zarr array or group, and all that is in it."""
    if "://" in target:
        zarr.open_group(target, mode="w")  # empties it: a URL has no folder to take away
    else:
        shutil.rmtree(target)


def _attributes(target: str) -> dict[str, Any] | None:
    """Return the attributes of a Zarr array or group, ``None`` where there is neither."""
    try:
        return dict(zarr.open(target, mode="r").attrs)
    except (FileNotFoundError, ValueError):
        return None
