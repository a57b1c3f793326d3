"""Tell whether the fourth sample of a picture is transparency that may be left out."""

from __future__ import annotations

import math

import numpy as np

from hrvol.errors import InputError
from hrvol.volume.importers.extras import read_quietly
from hrvol.volume.parts import Parts

MOST_PIXELS = 2**26
"""Most pixels whose transparency is read when a picture is opened; of others, and of stacks, it is not."""


def is_opaque(parts: Parts) -> bool:
    """Return whether an array is a single picture of four samples per pixel, all of them opaque.

    Raises
    ------
    InputError
        Some pixels are transparent.
    """
    names, shape = parts.axes, tuple(int(side) for side in parts.array.shape)
    if names is None:
        names = ("y", "x", "s") if len(shape) == 3 and min(shape[:2]) >= 32 else ()
    longer = [(name, side) for name, side in zip(names, shape, strict=False) if side > 1 or name == "s"]
    if [name for name, _ in longer] != ["y", "x", "s"] or longer[-1][1] != 4:
        return False
    if math.prod(shape[:-1]) > MOST_PIXELS:
        return False
    selection = tuple(slice(None) if name in ("y", "x") else 3 if name == "s" else 0 for name in names)
    try:
        with read_quietly():
            alpha = np.asarray(parts.array[selection])
    except MemoryError:
        raise
    except Exception:  # a damaged file: reported where it is read
        return False
    kind = alpha.dtype
    full = np.iinfo(kind).max if kind.kind in "iu" else 1
    if (alpha == full).all():
        return True
    raise InputError(
        f"{parts.source}: found transparent pixels in 4 samples per pixel, expected opaque ones, or red,"
        " green and blue: leave transparency out with --channel rgb, or take one channel with --channel N"
    )
