"""Turn classes of labels into strokes: the inner parts of their regions on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MARGIN = 3.0
"""Pixels that strokes keep from the border of a class, where labels are least certain."""


def strokes_of(
    labels: NDArray[Any], values: Sequence[int], margin: float = MARGIN
) -> NDArray[np.uint8 | np.uint16]:
    """Return the pixels of classes that are farther than a margin from any other class.

    Parameters
    ----------
    labels
        A plane ``(y, x)`` of class values; 0 is not processed.
    values
        Classes to take.
    margin
        Pixels. A class that is nowhere so wide keeps its widest part.

    Returns
    -------
    numpy.ndarray
        ``(y, x)``, uint8 or uint16: the class, 0 elsewhere.
    """
    strokes = np.zeros(labels.shape, np.uint8 if max(values, default=0) < 256 else np.uint16)
    for value in values:
        inside = labels == value
        if not inside.any():
            continue
        # The border of the plane is no border of a class.
        depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
        widest = float(depth.max())
        kept = depth > margin if widest > margin else depth >= max(1.0, 0.8 * widest)
        strokes[kept & inside] = value
    return strokes
