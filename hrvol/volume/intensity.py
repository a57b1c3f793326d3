"""Map grey values to [0, 1] with one intensity window per volume.

The window is chosen once. One per tile or per image would make predictions depend on the tile, and so draw
seams. Colour has one window for red, green and blue together: one of each would change the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.recipe.specs import IntensitySpec
from hrvol.volume.grid.tiling import Box, Tile, whole
from hrvol.volume.volume import Volume

AUTO_PERCENTILES = (0.1, 99.9)

Window = tuple[float, float]
"""Low and high grey value: what becomes 0 and 1."""

# Volumes of at most so many voxels are sampled whole; of others, one box is read from each of 64 strata.
_WHOLE = 2**22

_STRATA = 64

_BOX = (4, 128, 128)


def intensity_window(volume: Volume, spec: IntensitySpec, seed: int = 0) -> Window:
    """Choose the intensity window of a volume.

    Parameters
    ----------
    volume
        The volume. At most a sample is read; nothing if its type or ``spec`` determines the window.
    spec
        Settings of the recipe.
    seed
        Seed of the sample.

    Returns
    -------
    tuple of float
        Low and high in grey values of the volume, low < high.

    Raises
    ------
    InputError
        The sample holds NaN or infinity; or ``spec`` requests the range of a type that is not integer.
    """
    if spec.percentiles is None:
        if isinstance(spec.window, tuple):
            return spec.window
        integer = volume.dtype.kind in "iu"
        if spec.window == "dtype" and not integer:
            raise InputError(f"{volume.source}: found {volume.dtype}, expected integers for window: dtype")
        if integer and (spec.window == "dtype" or volume.dtype.itemsize == 1):
            limits = np.iinfo(volume.dtype)
            return float(limits.min), float(limits.max)
    sample = np.concatenate([_finite(volume, box).ravel() for box in sample_boxes(volume.shape, seed)])
    low, high = (float(value) for value in np.percentile(sample, spec.percentiles or AUTO_PERCENTILES))
    if not low < high:  # nearly all voxels are equal: use the range of the few others
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if low < high else (low, low + 1.0)


def sample_boxes(shape: Shape3, seed: int) -> tuple[Box, ...]:
    """Choose boxes that represent a volume: the whole volume if it is small, else one in each of 64 strata.

    Parameters
    ----------
    shape
        Shape of the volume, (z, y, x).
    seed
        Seed of the positions inside the strata.
    """
    if np.prod(shape, dtype=np.int64) <= _WHOLE:
        return (whole(shape),)
    depth = min(4, shape[0])
    across = round((_STRATA / depth) ** 0.5)
    rng = np.random.default_rng(seed)
    boxes = []
    for cell in product(range(depth), range(across), range(across)):
        spans = []
        for i, n, length, side in zip(cell, (depth, across, across), shape, _BOX, strict=True):
            start, stop = i * length // n, (i + 1) * length // n
            side = min(side, stop - start)
            first = int(rng.integers(start, stop - side + 1))
            spans.append(slice(first, first + side))
        boxes.append((spans[0], spans[1], spans[2]))
    # A plane narrower than the number of strata leaves some of them empty.
    return tuple(box for box in boxes if all(span.stop > span.start for span in box))


def grey_statistics(volume: Volume, limits: Window, seed: int = 0) -> tuple[float, float]:
    """Return mean and standard deviation of grey values in units of an intensity window.

    Parameters
    ----------
    volume
        The volume, of which the boxes of :func:`sample_boxes` are read.
    limits
        Low and high grey value: 0 and 1. Values outside are clipped.
    seed
        Seed of the sample.

    Raises
    ------
    InputError
        The sample cannot be read, or holds NaN or infinity.
    """
    boxes = sample_boxes(volume.shape, seed)
    sample = np.concatenate([to_unit(volume.read(b), limits, source=volume.source).ravel() for b in boxes])
    return float(sample.mean(dtype=np.float64)), float(sample.std(dtype=np.float64))


def to_unit(
    array: npt.NDArray[Any],
    limits: Window,
    *,
    source: str = "image",
    origin: tuple[int, ...] = (0, 0, 0),
) -> npt.NDArray[np.float32]:
    """Map grey values to [0, 1].

    Parameters
    ----------
    array
        Grey values of any real type, (z, y, x) or (y, x); of colour with a last axis of 3.
    limits
        Low and high grey value: what becomes 0 and 1. Values outside are clipped.
    source, origin
        Name of the volume, and position (z, y, x) of the array's first value in it, for error messages.

    Returns
    -------
    numpy.ndarray
        Float32 of the same shape.

    Raises
    ------
    InputError
        A value is NaN or infinite; the message gives the position of the first.
    """
    check_finite(array, source, origin)
    low, high = limits
    # Subtract first: types of more than 16 bits lose digits in float32.
    exact: npt.NDArray[Any] = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    exact -= low
    exact /= high - low
    unit: npt.NDArray[np.float32] = np.clip(exact, 0.0, 1.0, out=exact).astype(np.float32, copy=False)
    return unit


def check_finite(array: npt.NDArray[Any], source: str, origin: tuple[int, ...] = (0, 0, 0)) -> None:
    """Raise an :class:`InputError` that names the first NaN or infinity, if there is one.

    Parameters
    ----------
    array
        (z, y, x), or (y, x) of one plane; or (z, y, x, 3).
    source, origin
        As for :func:`to_unit`.
    """
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    first = np.unravel_index(int(np.argmin(finite)), array.shape)
    position = (0,) * (3 - array.ndim) + tuple(int(i) for i in first)[:3]
    z, y, x = (o + p for o, p in zip((0,) * (3 - len(origin)) + tuple(origin), position, strict=True))
    raise InputError(f"{source}: found {array[first]} at z={z}, y={y}, x={x}, expected finite grey values")


def _finite(volume: Volume, box: Box) -> npt.NDArray[Any]:
    values = volume.read(box)
    check_finite(values, volume.source, tuple(span.start for span in box))
    return values


def common_window(volumes: Sequence[Volume], spec: IntensitySpec, seed: int) -> Window:
    """Choose one intensity window for several training volumes: the smallest that holds each of theirs.

    A model applies it to every volume, so grey values must have the same meaning in all of them.
    """
    windows = [intensity_window(volume, spec, seed) for volume in volumes]
    return min(low for low, _ in windows), max(high for _, high in windows)


def read_unit(volume: Volume, z: int, tile: Tile, limits: Window) -> NDArray[np.float32]:
    """Read what a tile sees of plane ``z`` as (Y, X) float32 in [0, 1]; (Y, X, 3) of a colour volume."""
    origin = (z, tile.window[0], tile.window[2])
    raw = volume.read((slice(z, z + 1), *tile.window_slices))
    plane: NDArray[np.float32] = to_unit(raw, limits, source=volume.source, origin=origin)[0]
    return plane
