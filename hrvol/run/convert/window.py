"""Map grey values to 8 bits by one window for the whole volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError
from hrvol.recipe.specs import IntensitySpec
from hrvol.text import printable
from hrvol.volume.intensity import Window, intensity_window
from hrvol.volume.volume import Volume

AUTO = "auto"


def check_window(text: str) -> IntensitySpec:
    """Return the settings that a text stands for.

    Parameters
    ----------
    text
        ``auto``: the range of 8-bit integers, else percentiles 0.1 and 99.9 of a sample; ``low,high`` in grey
        values; or ``low%,high%``, percentiles of a sample.

    Raises
    ------
    UsageError
        It is something else.
    """
    if text == AUTO:
        return IntensitySpec()
    parts = [part.strip() for part in text.split(",")]
    percent = len(parts) == 2 and all(part.endswith("%") for part in parts)
    try:
        low, high = (float(part.removesuffix("%") if percent else part) for part in parts)
    except ValueError:
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (
        percent and not 0 <= low < high <= 100
    ):
        shown = printable(text, 60)
        raise UsageError(f"uint8: found {shown}, expected auto, LOW,HIGH or LOW%,HIGH% with LOW < HIGH")
    return IntensitySpec(percentiles=(low, high)) if percent else IntensitySpec(window=(low, high))


def choose_window(volume: Volume, text: str) -> Window:
    """Return the low and high grey value that become 0 and 255; a sample of the volume is read."""
    return intensity_window(volume, check_window(text))


def to_uint8(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Map grey values linearly to 0..255, rounded; those outside of the window are clipped, NaN becomes 0."""
    low, high = window
    # Subtract first: types of more than 16 bits lose digits in float32.
    exact: NDArray[Any] = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    exact -= low
    exact *= 255 / (high - low)
    np.clip(exact, 0, 255, out=exact)
    np.nan_to_num(exact, copy=False, nan=0.0)
    rounded: NDArray[np.uint8] = np.rint(exact, out=exact).astype(np.uint8)
    return rounded
