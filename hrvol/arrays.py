"""Arrays of any library that follows the array API: where they are, and the one way back to the host.

What is computed for pixels (features, probabilities, labels) stays in the library and on the device in which
the features came: NumPy on a CPU, torch or CuPy on a GPU. Code on that way is written once, for any of them,
with the functions of :func:`namespace`; it must not call :func:`numpy.asarray`, which copies to the host.
"""

from __future__ import annotations

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


def namespace(*arrays: Array) -> Any:
    """Return the functions of the array API for some arrays, all of one library."""
    return array_api_compat.array_namespace(*arrays)


def average(arrays: Sequence[Array]) -> Array:
    """Return the mean of arrays, added up first to last."""
    return reduce(add, arrays) / len(arrays)


def on_host(values: Array) -> bool:
    """Whether an array is NumPy's: then nothing needs to be copied."""
    return isinstance(values, np.ndarray)


def where_is(values: Array) -> Any:
    """Return the device of an array, as its library calls it."""
    return array_api_compat.device(values)


def beside(host: NDArray[Any], values: Array) -> Array:
    """Return a NumPy array in the library and on the device of ``values``, where it is copied if need be."""
    return namespace(values).asarray(host, device=where_is(values))


def to_host(values: Array) -> NDArray[Any]:
    """Return an array as NumPy's: the one place where pixels leave a device.

    Parameters
    ----------
    values
        An array of any library. One of NumPy is returned as it is.

    Returns
    -------
    NDArray
        The same shape and dtype; without a copy where the memory is the host's already.
    """
    if on_host(values):
        found: NDArray[Any] = values
    elif array_api_compat.is_torch_array(values):
        found = values.numpy(force=True)
    elif array_api_compat.is_cupy_array(values):
        found = values.get()
    else:
        host = namespace(values).__array_namespace_info__().default_device()
        found = np.from_dlpack(values.to_device(host))
    return found
