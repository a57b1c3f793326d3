"""Where a token lies on the image, and how token values are spread over pixels.

Coordinates are in pixels with pixel edges at integers: pixel p covers [p, p + 1), its centre is p + 0.5.
A patch embedding with patch P and stride S puts token i's centre at i * S + P / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]


def token_centres(count: int, patch: int, stride: int, start: float = 0.0) -> np.ndarray:
    """Return the true centres of ``count`` tokens of a window that begins at ``start``, float64."""
    return start + patch / 2 + stride * np.arange(count, dtype=np.float64)


def stretched_centres(count: int, length: int) -> np.ndarray:
    """Return the centres that stretching ``count`` tokens over ``length`` pixels pretends, float64."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (length / count)


def interleaved_offsets(patch: int, count: int) -> tuple[int, ...]:
    """Return ``count`` whole-pixel offsets that divide a patch evenly, centred on zero.

    With patch 14 and count 4: -5, -1, 2, 5. Their tokens together have a spacing of patch / count.
    """
    offsets = [round(patch * j / count) for j in range(count)]
    middle = round(sum(offsets) / count)
    return tuple(offset - middle for offset in offsets)


@dataclass(frozen=True)
class Axis:
    """Weights that carry tokens to pixels along one axis.

    Pixel p gets ``(1 - part[p]) * token[low[p]] + part[p] * token[high[p]]``.
    """

    low: Tensor
    high: Tensor
    part: Tensor

    def part_of(self, pixels: slice) -> Axis:
        """Return the weights of some of the pixels."""
        return Axis(self.low[pixels], self.high[pixels], self.part[pixels])


def axis_weights(centres: np.ndarray, pixels: np.ndarray, how: Interpolation) -> Axis:
    """Return interpolation weights from token centres to pixel centres, constant beyond the ends.

    Parameters
    ----------
    centres
        ``(n,)`` rising token centres; the spacing may vary.
    pixels
        ``(m,)`` pixel centres, same units.
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
    part = np.clip((pixels - centres[lower]) / gap, 0.0, 1.0)
    return Axis(torch.from_numpy(lower), torch.from_numpy(upper), torch.from_numpy(part.astype(np.float32)))


def spread(tokens: Tensor, y: Axis, x: Axis, put: Callable[[int, int, Tensor], None], rows: int = 32) -> None:
    """Spread tokens over pixels, a few rows at a time so that no second copy of the result exists.

    Parameters
    ----------
    tokens
        ``(h, w, C)`` float32.
    y, x
        Weights of the two axes.
    put
        Called with the first row, the row after the last, and ``(rows, X, C)`` values.
    rows
        Rows per call.
    """
    device = tokens.device
    x_low, x_high = x.low.to(device), x.high.to(device)
    x_part = x.part.to(device)[None, :, None]
    sharp = bool((y.part == 0).all()) and bool((x.part == 0).all())
    for start in range(0, len(y.low), rows):
        stop = min(start + rows, len(y.low))
        low = tokens[y.low[start:stop].to(device)]
        if sharp:
            put(start, stop, low[:, x_low])
            continue
        part = y.part[start:stop].to(device)[:, None, None]
        line = torch.lerp(low, tokens[y.high[start:stop].to(device)], part)
        put(start, stop, torch.lerp(line[:, x_low], line[:, x_high], x_part))
