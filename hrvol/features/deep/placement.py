"""Compute the positions of tokens on the image, and interpolate token values at pixels.

Coordinates are in pixels with pixel edges at integers: pixel p covers [p, p + 1), its centre is p + 0.5.
With patch P and stride S, the centre of token i is i * S + P / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]


def token_centres(count: int, patch: int, stride: int, start: float = 0.0) -> np.ndarray:
    """Return the true centres of ``count`` tokens along an axis that begins at ``start``, float64."""
    return start + patch / 2 + stride * np.arange(count, dtype=np.float64)


def stretched_centres(count: int, length: int) -> np.ndarray:
    """Return the centres of ``count`` tokens that are stretched over ``length`` pixels, float64."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (length / count)


def interleaved_offsets(patch: int, count: int) -> tuple[int, ...]:
    """Return ``count`` whole-pixel offsets that divide a patch evenly, centred on zero.

    With patch 14 and count 4 they are -5, -1, 2, 5. The tokens of all offsets are patch / count apart.
    """
    offsets = [round(patch * j / count) for j in range(count)]
    middle = round(sum(offsets) / count)
    return tuple(offset - middle for offset in offsets)


@dataclass(frozen=True)
class Axis:
    """Interpolation weights from tokens to pixels along one axis.

    Pixel p gets ``(1 - fraction[p]) * token[low[p]] + fraction[p] * token[high[p]]``.
    """

    low: Tensor
    high: Tensor
    fraction: Tensor

    def same_as(self, other: Axis) -> bool:
        """Return whether the weights equal those of another axis."""
        pairs = (self.low, other.low), (self.high, other.high), (self.fraction, other.fraction)
        return all(torch.equal(a, b) for a, b in pairs)

    def crop(self, pixels: slice) -> Axis:
        """Return the weights of some of the pixels."""
        return Axis(self.low[pixels], self.high[pixels], self.fraction[pixels])

    def to(self, device: str | torch.device) -> Axis:
        """Return the weights on a device."""
        return Axis(self.low.to(device), self.high.to(device), self.fraction.to(device))


def axis_weights(centres: np.ndarray, pixels: np.ndarray, how: Interpolation) -> Axis:
    """Return interpolation weights from token centres to pixel centres, constant beyond the ends.

    Parameters
    ----------
    centres
        ``(n,)`` token centres in ascending order; the spacing may vary.
    pixels
        ``(m,)`` pixel centres in the same units.
    how
        ``bilinear`` (linear along this axis) or ``nearest``.
    """
    if how == "nearest":
        index = np.searchsorted((centres[1:] + centres[:-1]) / 2, pixels, side="right")
        low = high = torch.from_numpy(index)
        return Axis(low, high, torch.zeros(len(pixels)))
    upper = np.clip(np.searchsorted(centres, pixels, side="right"), 1, max(1, len(centres) - 1))
    lower = upper - 1
    upper = np.minimum(upper, len(centres) - 1)
    gap = np.where(upper > lower, centres[upper] - centres[lower], 1.0)
    fraction = np.clip((pixels - centres[lower]) / gap, 0.0, 1.0).astype(np.float32)
    return Axis(torch.from_numpy(lower), torch.from_numpy(upper), torch.from_numpy(fraction))


def interleave(passes: Tensor, per_axis: int) -> Tensor:
    """Interleave ``(k*k, C, h, w)`` tokens of k x k offsets in one grid ``(h*k, w*k, C)``."""
    _, channels, height, width = passes.shape
    grid = passes.reshape(per_axis, per_axis, channels, height, width).permute(3, 0, 4, 1, 2)
    return grid.reshape(height * per_axis, width * per_axis, channels)


def spread(
    views: Sequence[tuple[Tensor, Axis]],
    x: Axis,
    put: Callable[[int, int, Tensor], None],
    *,
    share: float = 1.0,
    rows: int = 32,
) -> None:
    """Interpolate the tokens of views at pixels and sum the views, some rows at a time to save memory.

    Parameters
    ----------
    views
        Tokens ``(h, w, C)`` float32 of each view, and the weights of its rows.
    x
        Weights of the columns, which all views share: views are summed before the columns are interpolated.
    put
        Called with the first row, the row after the last, and ``(rows, X, C)`` values.
    share
        Factor of each view.
    rows
        Rows per call.
    """
    device = views[0][0].device
    low, high, fraction = (values.to(device) for values in (x.low, x.high, x.fraction[:, None]))
    nearest = bool((x.fraction == 0).all())
    for start in range(0, len(views[0][1].low), rows):
        stripe = slice(start, start + rows)
        first, *others = (_rows(tokens, y.crop(stripe)) for tokens, y in views)
        for other in others:
            first.add_(other)
        if share != 1:
            first.mul_(share)
        values = first[:, low] if nearest else torch.lerp(first[:, low], first[:, high], fraction)
        put(start, start + len(values), values)


def _rows(tokens: Tensor, y: Axis) -> Tensor:
    """Interpolate tokens ``(h, w, C)`` at the rows of pixels, and return a copy ``(Y, w, C)``."""
    low = tokens[y.low.to(tokens.device)]
    if bool((y.fraction == 0).all()):
        return low
    return torch.lerp(low, tokens[y.high.to(tokens.device)], y.fraction.to(tokens.device)[:, None, None])
