"""Find z, y and x among the axes of an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.read_options import COLOUR, Channel

# An array of unnamed axes that ends in 3 or 4 samples is an RGB image if its other axes are this long:
# no tomogram is three voxels wide.
_RGB_SIDE = 32

_OF_COLOUR = ("c", "s", "channel", "rgb")  # axes of 3 that are red, green and blue


def spatial_axes(
    source: str, shape: tuple[int, ...], names: tuple[str, ...] | None, channel: Channel | None = None
) -> tuple[str, ...]:
    """Name the axes of a grey or colour image or volume.

    Parameters
    ----------
    source
        Name of the array for error messages.
    shape
        Shape of the array as stored.
    names
        Names of the axes in its metadata, lower case, or ``None``. They are ignored unless they include y and
        x; the order is then assumed to be z, y, x.
    channel
        The channel that the user chose of an image with several.

    Returns
    -------
    tuple of str
        One name per axis. Axes other than z, y and x have length 1, but for one if a channel was chosen, or
        if it is of three channels: red, green and blue.

    Raises
    ------
    InputError
        The array is empty, or has channels that are no colour, or times, or too many axes.
    """
    if names is not None and len(names) != len(shape):
        raise InputError(
            f"{source}: found {len(shape)} axes, expected those of the metadata:"
            f" {printable(', '.join(names), 100)}"
        )
    twice = next(
        (name for name in names or () if (names or ()).count(name) > 1 and name in ("z", "y", "x")), None
    )
    if twice is not None:
        raise InputError(f"{source}: found axis {twice} twice, expected each axis once")
    if names is None or not {"y", "x"} <= set(names):
        names = _guess(source, shape, channel)
    extra = [(name, n) for name, n in zip(names, shape, strict=True) if name not in ("z", "y", "x") and n > 1]
    if channel == COLOUR and len(extra) == 1 and extra[0][1] not in (3, 4):
        raise InputError(
            f"{source}: found {extra[0][1]} channels in shape {shape}, expected 3 (red, green, blue), or 4"
            " with transparency, for --channel rgb"
        )
    if channel is None and len(extra) == 1 and extra[0][0] in _OF_COLOUR and extra[0][1] == 3:
        return names
    if channel is not None and len(extra) == 1:
        if isinstance(channel, int) and channel >= extra[0][1]:
            raise InputError(
                f"{source}: found {extra[0][1]} channels, expected one numbered {channel} (from 0)"
            )
        return names
    for name, length in zip(names, shape, strict=True):
        if name not in ("z", "y", "x") and length > 1:
            content = {"c": f"{length} channels", "s": f"{length} samples per pixel"}.get(
                name, f"{length} along axis {printable(repr(name), 60)}"
            )
            first = ", or the first three with --channel rgb" if length == 4 and name in _OF_COLOUR else ""
            raise InputError(
                f"{source}: found {content} in shape {shape}, expected one grey value per voxel, or red,"
                f" green and blue: take one with --channel N, or --channel mean{first}"
            )
    return names


def spacing(coordinates: Any) -> float:
    """Return the step of an xarray coordinate; 1 without one or for unequal steps."""
    if coordinates is None or coordinates.size < 2 or np.dtype(coordinates.dtype).kind not in "iuf":
        return 1.0
    steps = np.diff(np.asarray(coordinates, dtype=np.float64))
    mean = float(steps.mean())
    return abs(mean) if mean and np.allclose(steps, mean, rtol=1e-3, atol=0) else 1.0


def _guess(source: str, shape: tuple[int, ...], channel: Channel | None = None) -> tuple[str, ...]:
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) >= _RGB_SIDE:
        return ("y", "x", "s")
    if len(shape) == 4 and shape[3] in (3, 4) and min(shape[1:3]) >= _RGB_SIDE:
        return ("z", "y", "x", "s")
    extra = len(shape) - 3
    if len(shape) < 2 or (extra > 0 and math.prod(shape[:extra]) > 1 and channel is None):
        way = ": take one channel with --channel N, or --channel mean" if extra > 0 else ""
        raise InputError(f"{source}: found shape {shape}, expected (y, x) or (z, y, x){way}")
    return ("",) * max(extra, 0) + tuple("zyx"[-len(shape) :])
