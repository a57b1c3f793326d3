"""Weave symmetries of an image into one grid of tokens: fewer passes of the network for the same quality.

The other presets show the network all k x k sub-patch offsets of each mirror image. Here each of the 2 x 2
offsets is seen through another symmetry, so that four passes make one grid of half the patch size that has
all four mirror images in it. Neighbouring tokens of the grid are then averaged, two along each axis: every
value at a corner of four cells has all four mirror images in equal parts. More passes make more such grids,
whose tokens lie at the same places and are averaged.

The geometry is that of a layout with two offsets per axis, unchanged; only the views of its passes differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvol.features.deep.joint_grid import JointTokens
from hrvol.features.deep.layout import Layout
from hrvol.features.deep.placement import axis_weights, interleave
from hrvol.features.deep.views import Chain, Flip, Rotate90, View

PER_AXIS = 2
"""Sub-patch offsets along each axis of a woven grid."""

_GRIDS: dict[int, tuple[tuple[bool, bool], ...]] = {
    4: ((False, False),),
    8: ((False, False), (True, True)),
    16: ((False, False), (False, True), (True, False), (True, True)),
}
"""Passes -> whether the symmetries of each grid are transposed, and whether their offsets are exchanged."""


def woven(passes: Literal[4, 8, 16]) -> tuple[tuple[View, ...], ...]:
    """Return the views of woven grids: of each grid, one view for each of the 2 x 2 offsets, row by row.

    With 4 passes there is one grid of the four mirror images. With 8 there is a second one of the four
    transposed mirror images. With 16 each of the eight symmetries is in two grids, at two offsets that differ
    along both axes.

    Parameters
    ----------
    passes
        Passes of the network per image.

    Raises
    ------
    ValueError
        Another number of passes.
    """
    if passes not in _GRIDS:
        raise ValueError(f"found {passes} passes, expected one of {', '.join(map(str, _GRIDS))}")
    return tuple(
        tuple(
            _symmetry((row == 1) != exchanged, (column == 1) != exchanged, transposed)
            for row, column in product(range(PER_AXIS), repeat=2)
        )
        for transposed, exchanged in _GRIDS[passes]
    )


def _symmetry(mirror_y: bool, mirror_x: bool, transposed: bool) -> View:
    """Return the view that mirrors the image and then, perhaps, exchanges its rows and columns."""
    # A quarter turn mirrors up-down before it exchanges the axes.
    views: list[View] = [Flip("y")] if mirror_y != transposed else []
    views += [Flip("x")] if mirror_x else []
    views += [Rotate90(1)] if transposed else []
    return Chain(tuple(views))


def woven_crops(canvas: Tensor, layout: Layout, grid: Sequence[View]) -> list[Tensor]:
    """Return what the network sees for one woven grid: crops of the canvas, each through its view.

    Parameters
    ----------
    canvas
        ``(Y, X)``, see :func:`hrvol.features.deep.layout.canvas_of`.
    layout
        Geometry with two offsets per axis (``stride: native``, ``offsets: 2``).
    grid
        Views of one grid of :func:`woven`.

    Returns
    -------
    list of Tensor
        One for each view, of ``layout.pass_shape``; transposed views have the transposed shape.
    """
    height, width = layout.pass_shape
    return [
        view.apply(canvas[y : y + height, x : x + width])
        for view, (y, x) in zip(grid, _starts(layout), strict=True)
    ]


def weave(tokens: Sequence[Tensor], grid: Sequence[View]) -> Tensor:
    """Return the tokens of one woven grid in the orientation of the image, ``(2h, 2w, C)``.

    Parameters
    ----------
    tokens
        ``(C, h, w)`` of each pass of :func:`woven_crops`, transposed views ``(C, w, h)``.
    grid
        Views of the passes.
    """
    upright = [view.undo(values) for view, values in zip(grid, tokens, strict=True)]
    return interleave(torch.stack(upright), PER_AXIS)


def smooth(grid: Tensor) -> Tensor:
    """Return the means of each 2 x 2 neighbouring tokens ``(H, W, C)``, as ``(H - 1, W - 1, C)``."""
    rows = torch.lerp(grid[:-1], grid[1:], 0.5)
    return torch.lerp(rows[:, :-1], rows[:, 1:], 0.5)


def woven_tokens(grids: Sequence[Tensor], layout: Layout, *, smoothed: bool = True) -> JointTokens:
    """Return the mean of woven grids, for interpolating any pixels of the image.

    The grids' tokens lie at the same places, so that their mean is already the joint grid. It has
    ``2h * 2w * C`` float32 values at most; three times as many are needed while it is made.

    Parameters
    ----------
    grids
        Tokens ``(2h, 2w, C)`` float32 of each grid, see :func:`weave`; or a linear map of them.
    layout
        Geometry with two offsets per axis.
    smoothed
        Whether to average neighbouring tokens.
    """
    _starts(layout)
    total = grids[0].clone()
    for grid in grids[1:]:
        total.add_(grid)
    total.mul_(1 / len(grids))
    y, x = (
        axis_weights(_middles(centres) if smoothed else centres, pixels, "bilinear").to(total.device)
        for centres, pixels in zip(layout.centres, layout.pixels, strict=True)
    )
    return JointTokens(smooth(total) if smoothed else total, y, x)


def _middles(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the places of the means of neighbouring tokens."""
    middles: NDArray[np.float64] = (centres[1:] + centres[:-1]) / 2
    return middles


def _starts(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Return where the passes of a layout begin, row by row of the offsets."""
    if layout.per_axis != PER_AXIS:
        raise ValueError(f"found a layout of {layout.per_axis} offsets per axis, expected {PER_AXIS}")
    return layout.starts
