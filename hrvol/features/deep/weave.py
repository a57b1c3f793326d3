"""Weave the tokens of mirror images to one grid, which takes a quarter of the passes.

At one pair of sub-patch offsets, the tokens of a mirror image lie between those of the others: an image, its
two mirror images and their common one form a grid of twice the density along both axes. Each of its points
would have the tokens of one mirror image only, and the directions of the others would be seen as a pattern:
so neighbours are averaged, and a point between four tokens has one of each mirror image.

All of it is linear and acts on each axis by itself, so that woven views are added up on the knots of a joint
grid as other views are, only with other weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvol.features.deep.joint_grid import JointGrid, Knots, assembled, trimmed
from hrvol.features.deep.layout import Layout
from hrvol.features.deep.placement import axis_weights
from hrvol.features.deep.views import View, transposes


def woven_grid(passes: Sequence[tuple[View, Layout]], *, device: str | torch.device = "cpu") -> JointGrid:
    """Return the joint grid of woven views of images of one shape.

    Parameters
    ----------
    passes
        Views with their layouts, of :func:`hrvol.features.deep.layout.view_layouts`. The four that are turned
        alike, with one layout, form a grid; the mean is over all grids.
    device
        Device of the tokens.
    """
    keys = [(transposes(view), layout.starts) for view, layout in passes]
    grids = [sorted(set(keys)).index(key) for key in keys]
    places = [_token_places(view, layout) for view, layout in passes]
    if len(
        {(of, *(tuple(_rounded(at)) for at in place)) for of, place in zip(grids, places, strict=True)}
    ) < len(places):
        raise ValueError("found views with the same tokens in a grid, expected tokens between each other's")
    height, width = (len(axis) for axis in passes[0][1].pixels)
    down = woven_knots([y for y, _ in places], grids, height)
    across = woven_knots([x for _, x in places], grids, width)
    return assembled(down, across, 1 / (max(grids) + 1), device)


def woven_knots(places: Sequence[NDArray[np.float64]], grids: Sequence[int], pixels: int) -> Knots:
    """Return the knots of one axis, at most as many as pixels.

    Parameters
    ----------
    places
        ``(tokens,)`` places of the tokens of each view along the axis, in numbers of pixels.
    grids
        Number of the grid of each view, from 0. The sum of the views of a grid is its interpolation.
    pixels
        Length of the image along the axis.
    """
    number = np.arange(pixels, dtype=np.float64)
    of_grid: list[list[NDArray[np.float64]]] = [[] for _ in range(max(grids) + 1)]
    for at, of in zip(places, grids, strict=True):
        of_grid[of].append(at)
    woven = [_Woven(views) for views in of_grid]
    inside = [grid.middles[(grid.middles > 0) & (grid.middles < pixels - 1)] for grid in woven]
    knots = np.unique(np.concatenate([number[[0, -1]], *inside]).round(6))
    if len(knots) >= pixels:
        knots = number
    weights = tuple(woven[of].weights(at, knots) for at, of in zip(places, grids, strict=True))
    return trimmed(weights, knots, number)


class _Woven:
    """The tokens of one grid along one axis, in order, and the middles of neighbours."""

    def __init__(self, places: Sequence[NDArray[np.float64]]) -> None:
        self._places = np.unique(np.concatenate([_rounded(at) for at in places]))
        single = len(self._places) == 1
        self.middles = self._places if single else (self._places[1:] + self._places[:-1]) / 2
        means = np.eye(len(self._places), dtype=np.float32)
        self._means = means if single else (means[1:] + means[:-1]) / 2

    def weights(self, places: NDArray[np.float64], knots: NDArray[np.float64]) -> Tensor:
        """Return the weights ``(knots, tokens)`` of the tokens at these places in the grid."""
        axis = axis_weights(self.middles, knots, "bilinear")
        low, high, part = axis.low.numpy(), axis.high.numpy(), axis.fraction.numpy()[:, None]
        at_knots = (1 - part) * self._means[low] + part * self._means[high]
        own = np.searchsorted(self._places, _rounded(places))
        return torch.from_numpy(np.ascontiguousarray(at_knots[:, own]))


def _rounded(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places that are equal where they differ by rounding only."""
    rounded: NDArray[np.float64] = places.round(6)
    return rounded


def _token_places(view: View, layout: Layout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where a view's tokens are along the axes of the image, in numbers of pixels.

    The tokens of a view that exchanges rows and columns are in the orientation of the image.
    """
    steps = [side / len(axis) for side, axis in zip(layout.scaled, layout.pixels, strict=True)]
    first, second = (axis[0] + np.array([0, step]) for axis, step in zip(layout.pixels, steps, strict=True))
    y, x = view.where(first, second, layout.canvas)
    down, across = (
        (centres - at[0]) / (at[1] - at[0])
        for centres, at in zip(layout.centres, (x, y) if transposes(view) else (y, x), strict=True)
    )
    return down, across
