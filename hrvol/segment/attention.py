"""Attention density: the attention of the network per pixel of a cluster (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ClusterTally:
    """Pixels and attention of each cluster; tallies of pieces of an image add up to that of the image.

    Attributes
    ----------
    pixels
        ``(C,)`` int64, number of pixels.
    attention
        ``(C,)`` float64, sum of the attention of these pixels; ``None`` for features without attention.
    """

    pixels: NDArray[np.int64]
    attention: NDArray[np.float64] | None

    @classmethod
    def of(
        cls, assigned: NDArray[Any], attention: NDArray[np.floating[Any]] | None, n_clusters: int
    ) -> ClusterTally:
        """Count pixels (any shape) by cluster, numbered 0..n_clusters - 1."""
        flat = assigned.ravel()
        pixels = np.bincount(flat, minlength=n_clusters).astype(np.int64, copy=False)
        if attention is None:
            return cls(pixels, None)
        return cls(pixels, _sum_by_group(flat, attention.ravel().astype(np.float64), n_clusters))

    def __add__(self, other: ClusterTally) -> ClusterTally:
        attention = None
        if self.attention is not None and other.attention is not None:
            attention = self.attention + other.attention
        return ClusterTally(self.pixels + other.pixels, attention)

    def merged(self, group: NDArray[np.int64], n_groups: int) -> ClusterTally:
        """Return the tally of groups of clusters; ``group[c]`` is the group of cluster c, from 0."""
        pixels = _sum_by_group(group, self.pixels.astype(np.float64), n_groups).astype(np.int64)
        if self.attention is None:
            return ClusterTally(pixels, None)
        return ClusterTally(pixels, _sum_by_group(group, self.attention, n_groups))

    @property
    def density(self) -> NDArray[np.float64]:
        """Attention density ``(C,)``: attention per pixel; NaN without attention or pixels.

        Attention is multiplied by the number of tokens, so that tiles of different sizes are comparable: a
        uniform distribution has density 1.
        """
        if self.attention is None:
            return np.full(len(self.pixels), np.nan)
        density = np.full(len(self.pixels), np.nan)
        np.divide(self.attention, self.pixels, out=density, where=self.pixels > 0)
        return density


def _sum_by_group(
    group: NDArray[np.integer[Any]], weights: NDArray[np.float64], n_groups: int
) -> NDArray[np.float64]:
    """Return the sum of weights in each group."""
    return np.bincount(group, weights, n_groups).astype(np.float64, copy=False)


def foreground(density: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which attention densities are above their mean; NaN is not."""
    measured = density[~np.isnan(density)]
    if not measured.size:
        return np.zeros(len(density), bool)
    # Equal densities can differ from their mean by rounding.
    above: NDArray[np.bool_] = np.nan_to_num(density, nan=-np.inf) > measured.mean() * (1 + 1e-9)
    return above
