"""Local normalisation: grey values relative to the mean and the standard deviation around them.

Where grey values drift over a volume, or differ between planes, structures keep their normalised values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvol.segment.student.spec import BOX, POOL, Normalisation

FLOOR = 0.02
"""Added to the local standard deviation, in units of the intensity window."""

GAIN = 0.5
"""Normalised values per standard deviation."""


def network_input(grey: Tensor, normalisation: Normalisation, margin: int) -> Tensor:
    """Return the input channels of a network from grey values.

    Parameters
    ----------
    grey
        ``(n, c, Y, X)`` float32, with ``margin`` more pixels on each side than the result. Sides and margin
        are multiples of ``POOL``.
    normalisation
        See :class:`hrvol.segment.student.spec.StudentSpec`.
    margin
        Pixels of context, at least ``POOL * BOX``; any number with ``none``.

    Returns
    -------
    Tensor
        ``(n, c or 2 c, Y - 2 margin, X - 2 margin)``: grey values, then normalised values.
    """
    inner, local = normalised(grey, normalisation, margin)
    if local is None:
        return inner
    return local if normalisation == "alone" else torch.cat([inner, local], dim=1)


def normalised(grey: Tensor, normalisation: Normalisation, margin: int) -> tuple[Tensor, Tensor | None]:
    """Return the grey values without the margin, and the normalised values if there are any.

    Parameters are those of :func:`network_input`.
    """
    inner = grey[..., margin : grey.shape[-2] - margin, margin : grey.shape[-1] - margin]
    if normalisation == "none":
        return inner, None
    pooled = F.avg_pool2d(grey, POOL)
    mean = _smooth(pooled)
    # Of the mean squares of all pixels, not of pools.
    variance = (_smooth(F.avg_pool2d(grey.square(), POOL)) - mean.square()).clamp_min_(0)
    scale = GAIN / (variance.sqrt_() + FLOOR)
    cut = margin // POOL - 2 * (BOX // 2)  # pools that the box filters leave beyond the result
    mean, scale = (_grown(values, cut) for values in (mean, scale))
    return inner, (inner - mean).mul_(scale)


def _smooth(pooled: Tensor) -> Tensor:
    """Apply the box filter twice, along one axis after the other; the result is smaller by its reach."""
    for _ in range(2):
        pooled = _box(_box(pooled, -1), -2)
    return pooled


def _box(values: Tensor, axis: int) -> Tensor:
    """Return the means of ``BOX`` neighbours along an axis: sums of pairs of sums, quicker than pooling."""
    total, width = values, 1
    while 2 * width <= BOX:
        length = total.shape[axis] - width
        total = total.narrow(axis, 0, length) + total.narrow(axis, width, length)
        width *= 2
    length = values.shape[axis] - BOX + 1
    total = total.narrow(axis, 0, length)
    for offset in range(width, BOX):
        total = total + values.narrow(axis, offset, length)
    return total / BOX


def _grown(pooled: Tensor, cut: int) -> Tensor:
    """Interpolate values of pools at pixels, and cut pools off all sides."""
    kept = pooled[..., cut - 1 : pooled.shape[-2] - cut + 1, cut - 1 : pooled.shape[-1] - cut + 1]
    planes = kept.flatten(0, 1)[:, None]  # several channels take three times as long each
    pixels = F.interpolate(planes, scale_factor=float(POOL), mode="bilinear", align_corners=False)
    inner = pixels[..., POOL:-POOL, POOL:-POOL]
    return inner.reshape(*kept.shape[:2], *inner.shape[-2:])
