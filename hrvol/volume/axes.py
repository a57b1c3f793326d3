"""Which axis of an array is z, y or x."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrvol.errors import InputError

# An array of unnamed axes that ends in 3 or 4 samples is an RGB image if its other axes are this long:
# no tomogram is three voxels wide.
_RGB_SIDE = 32


def spatial_axes(source: str, shape: tuple[int, ...], names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Name the axes of a grey image or volume.

    Parameters
    ----------
    source
        Name of the array for error messages.
    shape
        Of the array, as stored.
    names
        What its metadata calls the axes, lower case, or ``None``. Names without a y and an x among them are
        not used: the order is then taken to be z, y, x.

    Returns
    -------
    tuple of str
        A name per axis. Each that is not z, y or x has length 1.

    Raises
    ------
    InputError
        There are several channels, samples, times or too many axes; the array is empty.
    """
    if not all(shape):
        raise InputError(f"{source}: found an empty array of shape {shape}")
    if names is not None and len(names) != len(shape):
        raise InputError(f"{source}: found {len(shape)} axes where the metadata names {', '.join(names)}")
    if names is None or not {"y", "x"} <= set(names):
        names = _guess(source, shape)
    for name, length in zip(names, shape, strict=True):
        if name not in ("z", "y", "x") and length > 1:
            what = {"c": f"{length} channels", "s": f"{length} samples per pixel (an RGB image?)"}.get(
                name, f"{length} along axis {name!r}"
            )
            raise InputError(f"{source}: found {what} in shape {shape}, expected one grey value per voxel")
    return names


def spacing(coordinates: Any) -> float:
    """Return the step of an xarray coordinate, 1 where there is none or it is not even."""
    if coordinates is None or coordinates.size < 2 or np.dtype(coordinates.dtype).kind not in "iuf":
        return 1.0
    steps = np.diff(np.asarray(coordinates, dtype=np.float64))
    mean = float(steps.mean())
    return abs(mean) if mean and np.allclose(steps, mean, rtol=1e-3, atol=0) else 1.0


def _guess(source: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) >= _RGB_SIDE:
        return ("y", "x", "s")
    extra = len(shape) - 3
    if len(shape) < 2 or (extra > 0 and math.prod(shape[:extra]) > 1):
        raise InputError(f"{source}: found shape {shape}, expected (y, x) or (z, y, x)")
    return ("",) * max(extra, 0) + tuple("zyx"[-len(shape) :])
