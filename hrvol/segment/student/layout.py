"""Rearrange voxels into the channels of a student's first level and back, quickly on a CPU.

The result is that of :meth:`hrvol.segment.student.network.StudentNetwork.gather` and ``scatter``, which move
single numbers far apart in memory and would take a quarter of the time of a prediction. Here neighbours along
x, or all voxels of a cell of the stem, are moved as one element.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3

STRIP_BYTES = 2**19
"""Bytes that are written for one channel after the other: fewer than a cache holds."""


def gathered(channels: Sequence[NDArray[np.float32]], stem: Shape3) -> NDArray[np.float32]:
    """Return the input of a network's first convolution, channels last.

    Parameters
    ----------
    channels
        C arrays ``(Z, Y, X)`` whose sides are multiples of the stem's; rows must be contiguous.
    stem
        Voxels (z, y, x) that become channels.

    Returns
    -------
    NDArray
        ``(Z / a, Y / b, X / b, C * a * b * b)`` float32, contiguous; the voxels of a cell in C order.
    """
    a, b, c = stem
    z, y, x = (length // side for length, side in zip(channels[0].shape, stem, strict=True))
    target = np.empty((z, y, x, len(channels), a, b, c), np.float32)
    pairs = _joined(target)
    sources = [_joined(v.reshape(z, a, y, b, x, c)).transpose(0, 2, 4, 1, 3) for v in channels]
    step = max(1, STRIP_BYTES // (z * target[0, 0].nbytes))
    for start in range(0, y, step):
        rows = slice(start, start + step)
        for number, values in enumerate(sources):
            pairs[:, rows, :, number] = values[:, rows]
    return target.reshape(z, y, x, -1)


def by_class(head: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Return the output of a network's last convolution class by class.

    Parameters
    ----------
    head
        ``(z, y, x, K * cells)``, contiguous along the last axis: of each class the voxels of a cell.
    classes
        Number of classes K.

    Returns
    -------
    NDArray
        ``(K, z, y, x, cells)`` float32, contiguous, a copy.
    """
    cells = head.shape[-1] // classes
    separate = _joined(head.reshape(*head.shape[:-1], classes, cells))
    planes = np.array(np.moveaxis(separate, -1, 0), order="C")
    return planes.view(np.float32).reshape(*planes.shape, cells)


def placed(values: NDArray[Any], stem: Shape3) -> NDArray[Any]:
    """Return values of the voxels of cells in the order of voxels.

    Parameters
    ----------
    values
        ``(..., z, y, x, cells)`` of any type, contiguous.
    stem
        Voxels (z, y, x) of a cell.

    Returns
    -------
    NDArray
        ``(..., z * a, y * b, x * b)``.
    """
    *lead, z, y, x, cells = values.shape
    if cells == 1:
        return values[..., 0]
    a, b, c = stem
    rows = _joined(values.reshape(prod(lead), z, y, x, a, b, c)).transpose(0, 1, 4, 2, 5, 3)
    return np.ascontiguousarray(rows).view(values.dtype).reshape(*lead, z * a, y * b, x * c)


def _joined(values: NDArray[Any]) -> NDArray[Any]:
    """Return a view whose elements are the last axis of an array."""
    size = values.shape[-1] * values.itemsize
    kind = f"u{size}" if size in (1, 2, 4, 8) else f"V{size}"
    joined: NDArray[Any] = values.view(kind)[..., 0]
    return joined
