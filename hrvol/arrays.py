"""Work with arrays of any library that follows the array API, and copy them to the host in one place.

Features, probabilities and labels of pixels stay in one library and on one device: NumPy on a CPU, torch or
CuPy on a GPU. Code between features and labels is written once for all of them with the functions of
:func:`namespace`, and must not call :func:`numpy.asarray`, which copies to the host.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of NumPy, torch, CuPy or any library that follows the array API."""

Shape3 = tuple[int, int, int]
"""Voxels per axis, (z, y, x)."""

Spacing3 = tuple[float, float, float]
"""Lengths per axis, (z, y, x), such as the size of a voxel."""


def even_edges(count: int, parts: int, starts: Sequence[int] = ()) -> list[int]:
    """Divide ``count`` items into runs of about the same length; return where they begin and end.

    Parameters
    ----------
    count, parts
        Number of items and of runs.
    starts
        Positions at which a run should rather begin, in order; taken if there are enough of them.
    """
    edges = [count * i // parts for i in range(parts + 1)]
    inner = [nearest(edge, starts) for edge in edges[1:-1]] if len(starts) >= parts - 1 else []
    moved = [0, *(edge for edge in inner if edge is not None), count]
    return moved if len(moved) == parts + 1 and all(np.diff(moved) > 0) else edges


def nearest(position: int, starts: Sequence[int]) -> int | None:
    """Return the nearest of some ordered positions; ``None`` if there are none."""
    after = bisect_left(starts, position)
    return min(starts[max(after - 1, 0) : after + 1], key=lambda start: abs(start - position), default=None)


def namespace(*arrays: Array) -> Any:
    """Return the array API namespace of arrays of one library."""
    return array_api_compat.array_namespace(*arrays)


LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Shares of red, green and blue in luminance (ITU-R BT.709), as in :func:`skimage.color.rgb2gray`."""


def luminance(image: Array) -> Array:
    """Return the luminance (...) of colours (..., 3), in the type of their numbers."""
    red, green, blue = (
        image[..., number] * image.dtype.type(share) for number, share in enumerate(LUMINANCE)
    )
    return red + green + blue


def average(arrays: Sequence[Array]) -> Array:
    """Return the mean of arrays, summed from first to last."""
    return reduce(add, arrays) / len(arrays)


def added_up(planes: Array) -> Array:
    """Return the sum over the first axis, first to last, so that every library adds up the same bits."""
    return reduce(add, [planes[k, ...] for k in range(planes.shape[0])])


def on_host(values: Array) -> bool:
    """Return whether an array is a NumPy array, which needs no copy to the host."""
    return isinstance(values, np.ndarray)


def where_is(values: Array) -> Any:
    """Return the device of an array, in its library's own type."""
    return array_api_compat.device(values)


def beside(host: NDArray[Any], values: Array) -> Array:
    """Return a NumPy array as an array of the library and on the device of ``values``, copied if needed."""
    return namespace(values).asarray(host, device=where_is(values))


def to_host(values: Array) -> NDArray[Any]:
    """Return an array as a NumPy array: the only place where pixels leave a device.

    Parameters
    ----------
    values
        An array of any library. A NumPy array is returned unchanged.

    Returns
    -------
    NDArray
        The same shape and dtype; without a copy if the memory is the host's already.
    """
    if on_host(values):
        array: NDArray[Any] = values
    elif array_api_compat.is_torch_array(values):
        array = values.numpy(force=True)
    elif array_api_compat.is_cupy_array(values):
        array = values.get()
    else:
        host = namespace(values).__array_namespace_info__().default_device()
        array = np.from_dlpack(values.to_device(host))
    return array


def most_likely(probabilities: Array, values: Sequence[int]) -> Array:
    """Return the label of the most probable class of each pixel; the first one of equals.

    Parameters
    ----------
    probabilities
        ``(K, ...)`` of any library.
    values
        Label of each of the K classes, in ascending order.

    Returns
    -------
    Array
        ``(...)`` in the same library and on the same device: uint8 if all labels fit, else int32.
    """
    xp = namespace(probabilities)
    kind = xp.uint8 if values[-1] < 256 else xp.int32
    labels = xp.full(probabilities.shape[1:], values[0], dtype=kind, device=where_is(probabilities))
    highest = probabilities[0, ...]
    # Class by class: NumPy is many times slower along an axis as short as K.
    for k, value in enumerate(values[1:], start=1):
        candidate = probabilities[k, ...]
        labels = xp.maximum(labels, xp.astype(candidate > highest, kind) * value)
        highest = xp.maximum(highest, candidate)
    return labels


def softmax(scores: Array) -> Array:
    """Return the probabilities ``(K, ...)`` of log-odds ``(K, ...)``, in the same library; their sum is 1."""
    xp = namespace(scores)
    # Class by class, as in most_likely.
    highest = reduce(xp.maximum, [scores[k, ...] for k in range(scores.shape[0])])
    odds = xp.exp(scores - highest)
    return odds / added_up(odds)
