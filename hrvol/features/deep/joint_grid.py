"""Add up the tokens of all views on one grid, so that pixels are interpolated once and not once per view.

Along an axis, the interpolation of a view is linear between the centres of its tokens, and so the sum of all
views is linear between the centres of all: the *knots*. The views are added up at the knots by two products,
of rows and of columns, and the sum is interpolated at pixels. This is exact up to rounding, and far less work
than interpolating each view at each pixel: `balanced` has 148 x 148 knots for 518 x 518 pixels, as many as
tokens of its views. With ``interpolation: nearest`` a knot stands for successive pixels that take the same
tokens in all views.

Knots are added up in bands of rows that do not depend on which pixels are wanted, so that a pixel has the
same bits whatever is computed with it.

Everything is linear: tokens may be features, or class logits or other linear maps of them. The results equal
those of :class:`hrvol.features.deep.token_grids.TokenGrids` up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hrvol.features.deep.layout import Layout
from hrvol.features.deep.placement import Axis, Interpolation, axis_weights
from hrvol.features.deep.views import View

SCRATCH = 32 << 20
"""Most bytes of intermediate results on a GPU, where few large products are faster."""

ROWS_OF_KNOTS = 16
"""Rows of knots that are added up at once on the CPU, where small products skip the tokens of other rows."""

ROWS_OF_PIXELS = {"cpu": 4, "cuda": 32}
"""Rows of pixels that are interpolated at once: few fit in the cache of a CPU."""

WHOLE = slice(None)


@dataclass(frozen=True, eq=False)
class Knots:
    """The knots of one axis: the weights of each view's tokens at the knots, and of the knots at the pixels.

    Attributes
    ----------
    weights
        ``(knots, tokens)`` float32 of each view, on the CPU.
    pixels
        Weights from knots to pixels.
    """

    weights: tuple[Tensor, ...]
    pixels: Axis


def knots_of(
    centres: NDArray[np.float64], positions: Sequence[NDArray[np.float64]], how: Interpolation
) -> Knots:
    """Return the knots of one axis, at most as many as pixels.

    Parameters
    ----------
    centres
        ``(tokens,)`` ascending centres of the tokens of every view.
    positions
        ``(pixels,)`` positions of the pixels along the tokens of each view, see
        :meth:`hrvol.features.deep.layout.Layout.pixels_of`. They may ascend, descend and wrap around.
    how
        Interpolation between tokens.
    """
    number = np.arange(len(positions[0]), dtype=np.float64)
    if how == "nearest":
        taken = np.stack([axis_weights(centres, at, how).low.numpy() for at in positions])
        starts = np.append(True, (np.diff(taken) != 0).any(0))
        of_pixel = torch.from_numpy(np.cumsum(starts) - 1)
        weights = tuple(_dense(axis_weights(centres, at[starts], how), len(centres)) for at in positions)
        return Knots(weights, Axis(of_pixel, of_pixel, torch.zeros(len(of_pixel))))
    # Whole numbers stay exact: the pixels beside a jump must be knots themselves.
    knots = np.unique(np.concatenate([_breakpoints(centres, at) for at in positions]).round(6))
    if len(knots) >= len(number):
        knots = number
    weights = tuple(
        _dense(axis_weights(centres, np.interp(knots, number, at), how), len(centres)) for at in positions
    )
    return trimmed(weights, knots, number)


def trimmed(weights: tuple[Tensor, ...], knots: NDArray[np.float64], pixels: NDArray[np.float64]) -> Knots:
    """Return knots without the first and the last pixel where these add nothing.

    They add nothing where they are before the first token and after the last one.
    """
    first = int(len(knots) > 1 and all(torch.equal(view[0], view[1]) for view in weights))
    last = len(knots) - int(len(knots) - first > 1 and all(torch.equal(v[-1], v[-2]) for v in weights))
    weights = tuple(view[first:last] for view in weights)
    return Knots(weights, axis_weights(knots[first:last], pixels, "bilinear"))


def _breakpoints(centres: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where a view's interpolation changes its slope, in numbers of pixels, with the first and last.

    Where positions wrap around, the interpolation jumps: the pixels on both sides are included.
    """
    number = np.arange(len(at), dtype=np.float64)
    step = np.diff(at)
    jumps = np.flatnonzero(np.abs(step) > 1.5 * np.abs(step).min(initial=np.inf)) + 1
    found: list[NDArray[np.float64]] = []
    for run, pixels in zip(np.split(at, jumps), np.split(number, jumps), strict=True):
        inside = centres[(centres > run.min()) & (centres < run.max())]
        descends = len(run) > 1 and run[1] < run[0]
        order = slice(None, None, -1 if descends else 1)
        found += [pixels[[0, -1]], np.interp(inside, run[order], pixels[order])]
    return np.concatenate(found)


def _dense(axis: Axis, tokens: int) -> Tensor:
    """Return interpolation weights as a matrix ``(pixels, tokens)``."""
    matrix = torch.zeros(len(axis.low), tokens)
    matrix.scatter_add_(1, axis.low[:, None], (1 - axis.fraction)[:, None])
    return matrix.scatter_add_(1, axis.high[:, None], axis.fraction[:, None])


@dataclass(frozen=True, eq=False)
class JointGrid:
    """Weights that add up the tokens of all views of images of one shape, made once and used for each image.

    Attributes
    ----------
    rows
        ``(GY, h)`` float32 of each view, times its share of the mean.
    reach
        First token and the one after the last that each of the GY knots needs, ``(GY, 2)`` of each view; on
        the host, so that nothing waits for a GPU.
    group
        Number of the columns of each view: views that share their columns are added up before these are
        interpolated.
    columns
        ``(GX, groups * w)`` float32.
    y, x
        Weights from knots to pixels, on the host and on the device.
    """

    rows: tuple[Tensor, ...]
    reach: tuple[NDArray[np.int64], ...]
    group: tuple[int, ...]
    columns: Tensor
    y: tuple[Axis, Axis]
    x: tuple[Axis, Axis]

    @property
    def knots(self) -> tuple[int, int]:
        """Rows and columns of knots."""
        return len(self.rows[0]), len(self.columns)

    def add_up(self, grids: Sequence[Tensor], rows: slice = WHOLE, columns: slice = WHOLE) -> JointTokens:
        """Return the mean of all views at the knots that a region of pixels needs.

        The bits of a knot do not depend on the region. The result has ``C`` float32 values per knot.
        Intermediate results have at most :data:`SCRATCH` bytes (on the CPU those of :data:`ROWS_OF_KNOTS`
        rows), or those of one row of ``(groups * w + GX) * C`` values. On the CPU the bits may depend on the
        number of torch's threads: call this where it has one.

        Parameters
        ----------
        grids
            Tokens ``(h, w, C)`` float32 of each view, in order, in the orientation of the image and on the
            device of the weights.
        rows, columns
            The region, as slices without a step.
        """
        if len(grids) != len(self.rows):
            raise ValueError(f"found the tokens of {len(grids)} views, expected {len(self.rows)}")
        (height, across), channels = self.knots, grids[0].shape[2]
        y, x = (_region(pixels, axes[0]) for pixels, axes in ((rows, self.y), (columns, self.x)))
        (top, bottom), (left, right) = _span(y, self.y[0]), _span(x, self.x[0])
        total = grids[0].new_empty((bottom - top, right - left, channels))
        at_once = self._at_once(grids[0])
        partial = total.new_empty((at_once, max(self.group) + 1, grids[0].shape[1] * channels))
        band = total.new_empty((at_once, across, channels))
        for start in range(top // at_once * at_once, bottom, at_once):
            stop = min(start + at_once, height)
            self._band(grids, start, stop, partial, band)
            first, last = max(start, top), min(stop, bottom)
            total[first - top : last - top] = band[first - start : last - start, left:right]
        return JointTokens(total, _placed(self.y[1], y, top), _placed(self.x[1], x, left), y, x)

    def _at_once(self, grid: Tensor) -> int:
        """Return the rows of knots of a band, which do not depend on the region."""
        height, across = self.knots
        bytes_per_row = ((max(self.group) + 1) * grid.shape[1] + across) * grid.shape[2] * 4
        at_once = ROWS_OF_KNOTS if grid.device.type == "cpu" else max(1, SCRATCH // bytes_per_row)
        return min(height, at_once)

    def _band(self, grids: Sequence[Tensor], start: int, stop: int, partial: Tensor, band: Tensor) -> None:
        """Write the mean at some rows of knots to the first rows of ``band``, which has all columns."""
        _, width, channels = grids[0].shape
        partial = partial[: stop - start].zero_()
        for grid, rows, reach, group in zip(grids, self.rows, self.reach, self.group, strict=True):
            first, last = int(reach[start:stop, 0].min()), int(reach[start:stop, 1].max())
            tokens = grid[first:last].reshape(last - first, width * channels)
            partial[:, group].addmm_(rows[start:stop, first:last], tokens)
        columns = self.columns.expand(stop - start, -1, -1)
        torch.bmm(columns, partial.view(stop - start, -1, channels), out=band[: stop - start])


def _region(pixels: slice, axis: Axis) -> range:
    """Return the numbers of the pixels of a slice."""
    region = range(*pixels.indices(len(axis.low)))
    if region.step != 1:
        raise ValueError(f"found a step of {region.step}, expected a region without a step")
    return region


def _span(region: range, axis: Axis) -> tuple[int, int]:
    """Return the first knot that pixels need and the one after the last."""
    if not region:
        return 0, 0
    pixels = slice(region.start, region.stop)
    return int(axis.low[pixels].min()), int(axis.high[pixels].max()) + 1


def _placed(axis: Axis, region: range, first: int) -> Axis:
    """Return the weights of the pixels of a region from knots that are counted from the first one."""
    own = axis.crop(slice(region.start, region.stop))
    return Axis(own.low - first, own.high - first, own.fraction)


@dataclass(frozen=True, eq=False)
class JointTokens:
    """The mean of all views of one image at the knots, for interpolating any pixels of a region.

    Attributes
    ----------
    grid
        ``(GY, GX, C)`` float32.
    y, x
        Weights from knots to the pixels of the region.
    rows, columns
        The pixels of the region.
    """

    grid: Tensor
    y: Axis
    x: Axis
    rows: range
    columns: range

    def spread(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the features of some rows and columns of pixels into ``out``, ``(y, x, C)`` float32.

        The bits do not depend on which rows and columns are computed together. Besides the result, memory for
        three times :data:`ROWS_OF_PIXELS` of its rows is needed; nothing waits for a GPU.

        Parameters
        ----------
        rows, columns
            Pixels of the image inside of the region, as slices that may have a step; without bounds, those of
            the region.
        out
            Buffer on the device of the tokens; its rows may have gaps.

        Raises
        ------
        ValueError
            Pixels are outside of the region.
        """
        y, x = self.y.crop(_inside(rows, self.rows)), self.x.crop(_inside(columns, self.columns))
        height, width = len(y.low), len(x.low)
        at_once = ROWS_OF_PIXELS.get(self.grid.device.type, height)
        low, high = (self.grid.new_empty((min(at_once, height), width, self.grid.shape[-1])) for _ in "ab")
        for start in range(0, height, max(1, at_once)):
            stripe = slice(start, min(start + at_once, height))
            knots = self._rows(y.crop(stripe))
            left, right = low[: len(knots)], high[: len(knots)]
            torch.index_select(knots, 1, x.low, out=left)
            torch.index_select(knots, 1, x.high, out=right)
            torch.lerp(left, right, x.fraction[:, None], out=out[stripe])

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the features ``(n, C)`` of single pixels, with the bits of :meth:`spread`.

        Parameters
        ----------
        y, x
            ``(n,)`` int64 rows and columns of the image, inside of the region.

        Raises
        ------
        ValueError
            Pixels are outside of the region.
        """
        for pixels, region in ((y, self.rows), (x, self.columns)):
            if len(pixels) and not region.start <= int(pixels.min()) <= int(pixels.max()) < region.stop:
                raise ValueError(f"found pixels outside of {region.start}:{region.stop}")
        y, x = y - self.rows.start, x - self.columns.start
        top, bottom, part = self.y.low[y], self.y.high[y], self.y.fraction[y][:, None]
        left, right = (
            torch.lerp(self.grid[top, column], self.grid[bottom, column], part)
            for column in (self.x.low[x], self.x.high[x])
        )
        return torch.lerp(left, right, self.x.fraction[x][:, None])

    def mapped(self, weight: Tensor, bias: Tensor | None = None) -> JointTokens:
        """Return a linear map of the features, ``(K, C)`` and ``(K,)`` float32, which has K channels."""
        return replace(self, grid=F.linear(self.grid, weight, bias))

    @property
    def grids(self) -> tuple[Tensor, ...]:
        """The values ``(GY, GX, C)`` at the knots, alone."""
        return (self.grid,)

    @property
    def nbytes(self) -> int:
        """Bytes of the values at the knots."""
        return self.grid.nbytes

    def _rows(self, y: Axis) -> Tensor:
        """Return the values at rows of pixels and columns of knots, ``(Y, GX, C)``."""
        low, high = self.grid.index_select(0, y.low), self.grid.index_select(0, y.high)
        return torch.lerp(low, high, y.fraction[:, None, None], out=low)


def _inside(pixels: slice, region: range) -> slice:
    """Return a slice of the pixels of an image as a slice of those of a region of it."""
    start = region.start if pixels.start is None else pixels.start
    stop = region.stop if pixels.stop is None else pixels.stop
    if start < stop and not region.start <= start < stop <= region.stop:
        raise ValueError(f"found pixels {start}:{stop}, expected some of {region.start}:{region.stop}")
    return slice(max(0, start - region.start), max(0, stop - region.start), pixels.step)


def joint_grid(
    layout: Layout,
    views: Sequence[View],
    how: Interpolation = "bilinear",
    *,
    device: str | torch.device = "cpu",
) -> JointGrid:
    """Return the joint grid of views of images of one shape.

    Parameters
    ----------
    layout
        Geometry of images of this shape.
    views
        Views that are averaged, see :func:`hrvol.features.deep.views.views_of`.
    how
        Interpolation between tokens.
    device
        Device of the tokens.
    """
    if not views:
        raise ValueError("found no views, expected at least one")
    positions = [layout.pixels_of(view) for view in views]
    down = knots_of(layout.centres[0], [y for y, _ in positions], how)
    across = knots_of(layout.centres[1], [x for _, x in positions], how)
    return assembled(down, across, 1 / len(views), device)


def assembled(down: Knots, across: Knots, share: float, device: str | torch.device) -> JointGrid:
    """Return the joint grid of the knots of both axes, with the share of each view in the sum."""
    numbers: dict[bytes, int] = {}
    group = tuple(numbers.setdefault(w.numpy().tobytes(), len(numbers)) for w in across.weights)
    distinct = [across.weights[group.index(number)] for number in range(len(numbers))]
    return JointGrid(
        rows=tuple((weights * share).to(device) for weights in down.weights),
        reach=tuple(_reach(weights) for weights in down.weights),
        group=group,
        columns=torch.cat(distinct, 1).to(device),
        y=(down.pixels, down.pixels.to(device)),
        x=(across.pixels, across.pixels.to(device)),
    )


def _reach(weights: Tensor) -> NDArray[np.int64]:
    """Return the first token with a weight and the one after the last, ``(knots, 2)``."""
    used = weights.numpy() != 0
    return np.stack([used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)], 1)
