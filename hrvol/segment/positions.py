"""Leaving out of features what they say about the place in the window instead of about the pixel.

A transformer's tokens carry their position and the mood of the whole window. Seen through a displaced
window, the same pixel has other features; the directions of feature space in which it differs most are
*position directions*. Features are clustered in the space orthogonal to them. Centroids then lie in that
space, so that ``2 mu.F`` is the same for whole features: labelling costs nothing more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-6  # of the largest variance: directions below it are rounding


def position_directions(differences: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the directions in which features of the same pixel differ most.

    Parameters
    ----------
    differences
        ``(n, C)`` between two windows that show the pixel at different places.
    count
        How many directions; fewer are found where there are fewer differences.

    Returns
    -------
    NDArray[np.float32]
        ``(C, m)`` orthonormal columns, m <= count.
    """
    exact = differences.astype(np.float64)
    if not len(exact) or count == 0:
        return np.zeros((differences.shape[1], 0), np.float32)
    variances, vectors = np.linalg.eigh(exact.T @ exact)
    order = np.argsort(-variances)[:count]
    kept = order[variances[order] > _LEAST * max(float(variances.max()), np.finfo(np.float64).tiny)]
    return vectors[:, kept].astype(np.float32)


def without(features: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features ``(n, C)`` with their parts along orthonormal directions ``(C, m)`` taken off."""
    along = features @ directions
    return (features - along @ directions.T).astype(np.float32, copy=False)
