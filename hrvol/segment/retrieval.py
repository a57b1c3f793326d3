"""Compute cosine-similarity maps of query pixels and find their peaks (paper, section S3).

The feature vector of a query pixel is compared with that of every pixel of an image. A similarity depends on
the two vectors alone, to the last bit: maps of tiles, pasted together, equal the map of the whole image.

Features are ``(C, Y, X)`` of NumPy or torch, of any floating-point type, device and strides. They are read in
groups of rows and never copied as a whole; pixel-contiguous ones, as of a Featuriser on the CPU, are not
copied at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from hrvol.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Values: TypeAlias = NDArray[Any] | Tensor

CHUNK = 1024
"""Pixels compared at once, at least one row: their features stay in the cache for all queries."""


@dataclass(frozen=True)
class Match:
    """A pixel and its similarity to the query, in [-1, 1]."""

    y: int
    x: int
    similarity: float


def query_vectors(
    features: Values, points: NDArray[np.integer[Any]] | Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """Return the feature vectors of points, normalised to length 1.

    Parameters
    ----------
    features
        ``(C, Y, X)``.
    points
        ``(n, 2)`` integers: y, x.

    Returns
    -------
    NDArray[np.float32]
        ``(n, C)``, each of length 1.

    Raises
    ------
    InputError
        The points are not ``(n, 2)`` integers, or one is outside the image, or its features are all zero or
        not finite.
    """
    channels, height, width = _shape(features)
    coordinates = np.asarray(points)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or coordinates.dtype.kind not in "iu":
        raise InputError(
            f"points: found {coordinates.dtype} values of shape {coordinates.shape}, "
            "expected (n, 2) integers y, x"
        )
    outside = ((coordinates < 0) | (coordinates >= (height, width))).any(axis=1)
    if outside.any():
        y, x = coordinates[outside.argmax()].tolist()
        raise InputError(f"points: found y={y}, x={x}, expected 0 <= y < {height} and 0 <= x < {width}")
    vectors = np.empty((len(coordinates), channels), np.float32)
    for vector, (y, x) in zip(vectors, coordinates.tolist(), strict=True):
        vector[:] = _numpy(features[:, y, x])
    return _normalise(vectors, [f"point y={y}, x={x}" for y, x in coordinates.tolist()])


def similarity(features: Values, query: Values) -> NDArray[np.float32]:
    """Return the cosine similarity of each pixel's features to each query.

    Parameters
    ----------
    features
        ``(C, Y, X)``.
    query
        ``(C,)`` or ``(n, C)``, of any nonzero length; see :func:`query_vectors`.

    Returns
    -------
    NDArray[np.float32]
        ``(n, Y, X)`` in [-1, 1], n = 1 for one query; 0 where all features of a pixel are zero.

    Raises
    ------
    InputError
        The shapes do not match, a query is zero, or the length of a feature vector is not finite.
    """
    channels, height, width = _shape(features)
    queries = _queries(query, channels)
    out = np.empty((len(queries), height, width), np.float32)
    step = max(1, CHUNK // width)
    for start in range(0, height, step):
        rows = _numpy(features[:, start : start + step])
        pixels = np.ascontiguousarray(np.moveaxis(rows, 0, -1), np.float32).reshape(-1, channels)
        # No matrix product: its bits may depend on the number of pixels, those of a dot product do not.
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.vecdot(pixels, pixels))
            _check_finite(lengths, "features: lengths")
        cosines = np.vecdot(pixels, queries[:, None, :])
        np.divide(cosines, lengths, out=cosines, where=lengths > 0)
        np.clip(cosines, -1, 1, out=cosines)
        out[:, start : start + step] = cosines.reshape(len(queries), -1, width)
    return out


def top_matches(heat: Values, k: int, min_distance: int) -> tuple[Match, ...]:
    """Return the highest peaks of a similarity map.

    A peak is a pixel with the maximum of the square that extends ``min_distance`` pixels from it in each
    direction, so the flank of a peak is no match. Pixels at the border can be peaks, and a constant map has
    some, unlike in ``skimage.feature.peak_local_max``.

    Parameters
    ----------
    heat
        ``(Y, X)``, one map of :func:`similarity`.
    k
        Maximum number of matches, at least 1.
    min_distance
        Matches are more than this many pixels apart in y or in x; at least 0.

    Returns
    -------
    tuple[Match, ...]
        At most ``k`` in decreasing similarity; of equals, the first in row-major order comes first.

    Raises
    ------
    InputError
        The map is not ``(Y, X)`` or not finite, or a number is too low.
    """
    values = _numpy(heat).astype(np.float32, copy=False)
    if values.ndim != 2 or not values.size:
        raise InputError(f"similarity map: found shape {values.shape}, expected (Y, X)")
    if k < 1 or min_distance < 0:
        raise InputError(f"matches: found k={k}, min_distance={min_distance}, expected at least 1 and 0")
    _check_finite(values, "similarity map")
    # A square that covers the whole image from any pixel need not be larger.
    size = [2 * min(min_distance, length) + 1 for length in values.shape]
    peaks = values == maximum_filter(values, size, mode="nearest")
    indices = np.flatnonzero(peaks)  # row-major
    matches: list[Match] = []
    for index in indices[np.argsort(-values.ravel()[indices], kind="stable")]:
        y, x = divmod(int(index), values.shape[1])
        if len(matches) == k:
            break
        if peaks[y, x]:
            matches.append(Match(y, x, float(values[y, x])))
            # Peaks this close have the same value, or one of them would be none: keep the first.
            near = tuple(slice(max(0, i - min_distance), i + min_distance + 1) for i in (y, x))
            peaks[near] = False
    return tuple(matches)


def _queries(query: Values, channels: int) -> NDArray[np.float32]:
    """Return queries as ``(n, C)`` of length 1."""
    queries = np.atleast_2d(_numpy(query))
    if queries.ndim != 2 or queries.shape[1] != channels:
        raise InputError(f"query: found shape {tuple(query.shape)}, expected (n, {channels}) as the features")
    return _normalise(queries, [f"query {i}" for i in range(len(queries))])


def _normalise(vectors: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(exact, exact))
    for name, length in zip(names, lengths.tolist(), strict=True):
        if not 0 < length < np.inf:
            raise InputError(f"{name}: found features of length {length}, expected a finite length above 0")
    unit: NDArray[np.float32] = (exact / lengths[:, None]).astype(np.float32)
    return unit


def _shape(features: Values) -> tuple[int, int, int]:
    if features.ndim != 3 or 0 in features.shape:
        raise InputError(f"features: found shape {tuple(features.shape)}, expected (C, Y, X)")
    channels, height, width = features.shape
    return channels, height, width


def _numpy(values: Values) -> NDArray[Any]:
    """Return a NumPy array; without a copy if a torch tensor is float32 on the CPU."""
    if isinstance(values, np.ndarray):
        return values
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array


def _check_finite(values: NDArray[Any], name: str) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{name}: found NaN or infinity, expected finite values")
