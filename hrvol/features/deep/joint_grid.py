"""Add up the tokens of all views on one grid, so that pixels are interpolated once and not once per view.

Along an axis, the interpolation of a view is linear between the centres of its tokens, and so the sum of all
views is linear between the centres of all: the *knots*. The views are added up at the knots by two products,
of rows and of columns, and the sum is interpolated at pixels. This is exact up to rounding, and far less work
than interpolating each view at each pixel: `balanced` has 150 x 150 knots for 518 x 518 pixels. With
``interpolation: nearest`` a knot stands for successive pixels that take the same tokens in all views.

Everything is linear: tokens may be features, or class logits or other linear maps of them. The results equal
those of :class:`hrvol.features.deep.token_grids.TokenGrids` up to rounding, not bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hrvol.features.deep.layout import Layout
from hrvol.features.deep.placement import Axis, Interpolation, axis_weights
from hrvol.features.deep.views import View

SCRATCH = 64 << 20
"""Most bytes of intermediate results on a GPU, where few large products are faster."""

ROWS_OF_KNOTS = 16
"""Rows of knots that are added up at once on the CPU, where small products skip the tokens of other rows."""

ROWS_OF_PIXELS = 4
"""Rows of pixels that are interpolated at once on the CPU: they fit in its cache."""

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

    def crop(self, pixels: slice) -> Knots:
        """Return the knots that some of the pixels need; the slice may have a step."""
        axis = self.pixels.crop(pixels)
        if not len(axis.low):
            return Knots(tuple(weights[:0] for weights in self.weights), axis)
        first, last = int(axis.low.min()), int(axis.high.max())
        return Knots(
            tuple(weights[first : last + 1] for weights in self.weights),
            Axis(axis.low - first, axis.high - first, axis.fraction),
        )


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
    return Knots(weights, axis_weights(knots, number, how))


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
        Weights from knots to pixels.
    """

    rows: tuple[Tensor, ...]
    reach: tuple[NDArray[np.int64], ...]
    group: tuple[int, ...]
    columns: Tensor
    y: Axis
    x: Axis

    @property
    def knots(self) -> tuple[int, int]:
        """Rows and columns of knots."""
        return len(self.rows[0]), len(self.columns)

    def add_up(self, grids: Sequence[Tensor]) -> JointTokens:
        """Return the mean of all views at the knots.

        The result has ``GY * GX * C`` float32 values. Intermediate results have at most :data:`SCRATCH` bytes
        (on the CPU those of :data:`ROWS_OF_KNOTS` rows of ``groups * w * C`` values), or one row's.

        Parameters
        ----------
        grids
            Tokens ``(h, w, C)`` float32 of each view, in order, in the orientation of the image and on the
            device of the weights: :attr:`hrvol.features.deep.token_grids.TokenGrids.grids`.
        """
        if len(grids) != len(self.rows):
            raise ValueError(f"found the tokens of {len(grids)} views, expected {len(self.rows)}")
        _, width, channels = grids[0].shape
        (height, across), groups = self.knots, max(self.group) + 1
        total = grids[0].new_empty((height, across, channels))
        bytes_per_row = groups * width * channels * 4
        at_once = ROWS_OF_KNOTS if total.device.type == "cpu" else max(1, SCRATCH // bytes_per_row)
        for start in range(0, height, at_once):
            stop = min(start + at_once, height)
            partial = total.new_zeros((stop - start, groups, width * channels))
            for grid, rows, reach, group in zip(grids, self.rows, self.reach, self.group, strict=True):
                first, last = int(reach[start:stop, 0].min()), int(reach[start:stop, 1].max())
                tokens = grid[first:last].reshape(last - first, width * channels)
                partial[:, group].addmm_(rows[start:stop, first:last], tokens)
            columns = self.columns.expand(stop - start, -1, -1)
            torch.bmm(columns, partial.view(stop - start, groups * width, channels), out=total[start:stop])
        return JointTokens(total, self.y, self.x)


@dataclass(frozen=True, eq=False)
class JointTokens:
    """The mean of all views of one image at the knots, for interpolating any pixels of it.

    Attributes
    ----------
    grid
        ``(GY, GX, C)`` float32.
    y, x
        Weights from knots to pixels.
    """

    grid: Tensor
    y: Axis
    x: Axis

    def spread(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the features of some rows and columns of pixels into ``out``, ``(y, x, C)`` float32.

        The bits do not depend on which rows and columns are computed together. Besides the result, memory for
        three times :data:`ROWS_OF_PIXELS` rows of it is needed on the CPU, and for three times all rows on a
        GPU; nothing waits for a GPU.

        Parameters
        ----------
        rows, columns
            Pixels of the region for which the grid was made, as slices that may have a step.
        out
            Buffer on the device of the tokens; its rows may have gaps.
        """
        y, x = self.y.crop(rows), self.x.crop(columns)
        height, width = len(y.low), len(x.low)
        at_once = ROWS_OF_PIXELS if self.grid.device.type == "cpu" else height
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
            ``(n,)`` int64 rows and columns of the region for which the grid was made.
        """
        top, bottom, part = self.y.low[y], self.y.high[y], self.y.fraction[y][:, None]
        left, right = (
            torch.lerp(self.grid[top, column], self.grid[bottom, column], part)
            for column in (self.x.low[x], self.x.high[x])
        )
        return torch.lerp(left, right, self.x.fraction[x][:, None])

    def mapped(self, weight: Tensor, bias: Tensor | None = None) -> JointTokens:
        """Return a linear map of the features, ``(K, C)`` and ``(K,)`` float32, which has K channels."""
        return JointTokens(F.linear(self.grid, weight, bias), self.y, self.x)

    @property
    def nbytes(self) -> int:
        """Bytes of the values at the knots."""
        return self.grid.nbytes

    def _rows(self, y: Axis) -> Tensor:
        """Return the values at rows of pixels and columns of knots, ``(Y, GX, C)``."""
        low, high = self.grid.index_select(0, y.low), self.grid.index_select(0, y.high)
        return torch.lerp(low, high, y.fraction[:, None, None], out=low)


def joint_grid(
    layout: Layout,
    views: Sequence[View],
    how: Interpolation = "bilinear",
    *,
    rows: slice = WHOLE,
    columns: slice = WHOLE,
    device: str | torch.device = "cpu",
) -> JointGrid:
    """Return the joint grid of views for some of the pixels of images of one shape.

    A grid made for a region has only the knots of the region, and its sums need memory for these alone. Where
    there are as many knots as pixels (``paper``), make one grid for each stripe of rows: all sums of an image
    would need as much memory as its features. Sums made for different regions differ in their last bits.

    Parameters
    ----------
    layout
        Geometry of images of this shape.
    views
        Views that are averaged, see :func:`hrvol.features.deep.upsample.views_of`.
    how
        Interpolation between tokens.
    rows, columns
        Region of pixels; slices may have a step.
    device
        Device of the tokens.
    """
    if not views:
        raise ValueError("found no views, expected at least one")
    positions = [layout.pixels_of(view) for view in views]
    down = knots_of(layout.centres[0], [y for y, _ in positions], how).crop(rows)
    across = knots_of(layout.centres[1], [x for _, x in positions], how).crop(columns)
    numbers: dict[bytes, int] = {}
    group = tuple(numbers.setdefault(w.numpy().tobytes(), len(numbers)) for w in across.weights)
    distinct = [across.weights[group.index(number)] for number in range(len(numbers))]
    return JointGrid(
        rows=tuple((weights / len(views)).to(device) for weights in down.weights),
        reach=tuple(_reach(weights) for weights in down.weights),
        group=group,
        columns=torch.cat(distinct, 1).to(device),
        y=down.pixels.to(device),
        x=across.pixels.to(device),
    )


def _reach(weights: Tensor) -> NDArray[np.int64]:
    """Return the first token with a weight and the one after the last, ``(knots, 2)``."""
    used = weights.numpy() != 0
    return np.stack([used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)], 1)
