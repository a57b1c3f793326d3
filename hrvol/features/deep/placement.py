"""Where a token lies on the image, and how token values are spread over pixels.

Coordinates are in pixels with pixel edges at integers: pixel p covers [p, p + 1), its centre is p + 0.5.
A patch embedding with patch P and stride S puts token i's centre at i * S + P / 2.
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

    def same_as(self, other: Axis) -> bool:
        """Whether the weights are those of another axis."""
        pairs = (self.low, other.low), (self.high, other.high), (self.part, other.part)
        return all(torch.equal(a, b) for a, b in pairs)

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


def spread(
    views: Sequence[tuple[Tensor, Axis]],
    x: Axis,
    put: Callable[[int, int, Tensor], None],
    *,
    share: float = 1.0,
    rows: int = 32,
) -> None:
    """Spread the tokens of views over pixels and add them up, some rows at a time: no second copy exists.

    Parameters
    ----------
    views
        Tokens ``(h, w, C)`` float32 of each view, and the weights of its rows.
    x
        Weights of the columns, which the views share: so they are added up before there are as many columns
        as pixels.
    put
        Called with the first row, the row after the last, and ``(rows, X, C)`` values.
    share
        Factor of each view.
    rows
        Rows per call.
    """
    device = views[0][0].device
    low, high, part = (values.to(device) for values in (x.low, x.high, x.part[:, None]))
    sharp = bool((x.part == 0).all())
    for start in range(0, len(views[0][1].low), rows):
        stripe = slice(start, start + rows)
        first, *others = (_rows(tokens, y.part_of(stripe)) for tokens, y in views)
        for other in others:
            first.add_(other)
        if share != 1:
            first.mul_(share)
        values = first[:, low] if sharp else torch.lerp(first[:, low], first[:, high], part)
        put(start, start + len(values), values)


def _rows(tokens: Tensor, y: Axis) -> Tensor:
    """Return tokens ``(h, w, C)`` at the rows of pixels, ``(Y, w, C)``, a copy."""
    low = tokens[y.low.to(tokens.device)]
    if bool((y.part == 0).all()):
        return low
    return torch.lerp(low, tokens[y.high.to(tokens.device)], y.part.to(tokens.device)[:, None, None])
