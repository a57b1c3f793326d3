"""Where something like this is: cosine-similarity maps and matches of points (paper, section S3).

The feature vector of a point on one image is compared with that of every pixel of another. A similarity
depends on the pixel's and the query's features alone, to the last bit: maps of tiles, their cores pasted
together, are the map of the whole.

Features are ``(C, Y, X)``, NumPy or torch, of any floating type, on any device and of any strides. They are
looked at a few rows at a time and never copied as a whole; those of a Featuriser on the CPU, which lie in
memory pixel after pixel, are not copied at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
"""Pixels compared at a time, but at least one row: their features stay in the cache for all queries."""


@dataclass(frozen=True)
class Match:
    """A pixel and how similar it is to what was looked for, in [-1, 1]."""

    y: int
    x: int
    similarity: float


def query_vectors(
    features: Values, points: NDArray[np.integer[Any]] | Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """Return the directions of the feature vectors of points.

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
        The points are not ``(n, 2)`` integers, or one is outside, or its features are all zero or not
        finite.
    """
    channels, height, width = _shape(features)
    where = np.asarray(points)
    if where.ndim != 2 or where.shape[1] != 2 or where.dtype.kind not in "iu":
        raise InputError(
            f"points: found {where.dtype} values of shape {where.shape}, expected (n, 2) integers y, x"
        )
    outside = ((where < 0) | (where >= (height, width))).any(axis=1)
    if outside.any():
        y, x = where[outside.argmax()].tolist()
        raise InputError(f"points: found y={y}, x={x}, expected 0 <= y < {height} and 0 <= x < {width}")
    vectors = np.empty((len(where), channels), np.float32)
    for vector, (y, x) in zip(vectors, where.tolist(), strict=True):
        vector[:] = _numpy(features[:, y, x])
    return _unit(vectors, [f"point y={y}, x={x}" for y, x in where.tolist()])


def similarity(features: Values, query: Values) -> NDArray[np.float32]:
    """Return how similar each pixel is to each query: the cosine of the angle between their features.

    Parameters
    ----------
    features
        ``(C, Y, X)``.
    query
        ``(C,)`` or ``(n, C)``, of any length but zero; see :func:`query_vectors`.

    Returns
    -------
    NDArray[np.float32]
        ``(n, Y, X)`` in [-1, 1]; 0 where all features of a pixel are zero. ``(1, Y, X)`` for one query.

    Raises
    ------
    InputError
        The shapes do not fit, a query is zero, or the length of a feature vector is not finite.
    """
    queries = _queries(query, features)
    out = np.empty((len(queries), *_shape(features)[1:]), np.float32)
    for start, rows in _by_rows(features, queries):
        out[:, start : start + rows.shape[1]] = rows
    return out


def match_keypoints(
    features_a: Values, points: NDArray[np.integer[Any]] | Sequence[Sequence[int]], features_b: Values
) -> tuple[Match, ...]:
    """Return the pixel of image b that is most similar to each point of image a.

    Parameters
    ----------
    features_a, features_b
        ``(C, Y, X)`` each; the images may differ in size.
    points
        ``(n, 2)`` integers: y, x in image a.

    Returns
    -------
    tuple[Match, ...]
        One for each point, in their order; of equals, the first in row-major order.

    Raises
    ------
    InputError
        As for :func:`query_vectors` and :func:`similarity`.
    """
    queries = _queries(query_vectors(features_a, points), features_b)
    best = np.full(len(queries), -np.inf, np.float32)
    where = np.zeros(len(queries), np.int64)
    width = _shape(features_b)[2]
    for start, rows in _by_rows(features_b, queries):
        flat = rows.reshape(len(queries), -1)
        place = flat.argmax(axis=1)
        found = flat[np.arange(len(queries)), place]
        better = found > best
        best[better] = found[better]
        where[better] = start * width + place[better]
    return tuple(
        Match(*divmod(place, width), value)
        for place, value in zip(where.tolist(), best.tolist(), strict=True)
    )


def top_matches(heat: Values, k: int, min_distance: int) -> tuple[Match, ...]:
    """Return the highest peaks of a similarity map.

    A peak is a pixel that none is above in the square of ``min_distance`` pixels each way round it, so the
    flank of a peak is no match, however high. Pixels at the border can be peaks.

    Parameters
    ----------
    heat
        ``(Y, X)``, one map of :func:`similarity`.
    k
        Most matches to return, 1 or more.
    min_distance
        Matches are more than this many pixels apart in y or in x; 0 or more.

    Returns
    -------
    tuple[Match, ...]
        At most ``k``, in falling similarity; of equals, the first in row-major order comes first.

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
    # A window longer than the image sees no more than one that reaches all of it from any pixel.
    window = [2 * min(min_distance, length) + 1 for length in values.shape]
    peaks = values == maximum_filter(values, window, mode="nearest")
    places = np.flatnonzero(peaks)  # row-major
    matches: list[Match] = []
    for place in places[np.argsort(-values.ravel()[places], kind="stable")]:
        y, x = divmod(int(place), values.shape[1])
        if len(matches) == k:
            break
        if peaks[y, x]:
            matches.append(Match(y, x, float(values[y, x])))
            # Peaks this near are as high, or neither would be one: the first stands for all of them.
            near = tuple(slice(max(0, i - min_distance), i + min_distance + 1) for i in (y, x))
            peaks[near] = False
    return tuple(matches)


def _by_rows(features: Values, queries: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first row and the similarities ``(n, rows, X)`` of a few rows after the other."""
    channels, height, width = _shape(features)
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
        yield start, np.clip(cosines, -1, 1, out=cosines).reshape(len(queries), -1, width)


def _queries(query: Values, features: Values) -> NDArray[np.float32]:
    """Return queries ``(n, C)`` of length 1 that fit the features."""
    channels = _shape(features)[0]
    queries = np.atleast_2d(_numpy(query))
    if queries.ndim != 2 or queries.shape[1] != channels:
        raise InputError(f"query: found shape {tuple(query.shape)}, expected (n, {channels}) as the features")
    return _unit(queries, [f"query {i}" for i in range(len(queries))])


def _unit(vectors: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(exact, exact))
    for name, length in zip(names, lengths.tolist(), strict=True):
        if not 0 < length < np.inf:
            raise InputError(f"{name}: found features of length {length}, expected a direction")
    unit: NDArray[np.float32] = (exact / lengths[:, None]).astype(np.float32)
    return unit


def _shape(features: Values) -> tuple[int, int, int]:
    if features.ndim != 3 or 0 in features.shape:
        raise InputError(f"features: found shape {tuple(features.shape)}, expected (C, Y, X)")
    channels, height, width = features.shape
    return channels, height, width


def _numpy(values: Values) -> NDArray[Any]:
    """Return an array; of a torch tensor on the CPU in single precision, without a copy."""
    if isinstance(values, np.ndarray):
        return values
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array


def _check_finite(values: NDArray[Any], name: str) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{name}: found NaN or infinity, expected finite values")
