"""Merge the basins inside of a block that any merging of the volume merges: fewer are stored and reported.

A basin is merged if its highest pass leads to a higher peak, and its own peak rises above this pass by less
than the depth. Then the two are one object whatever is elsewhere: this pass is the first of the basin to be
opened, and the height of the other group stays. All passes of a basin are known if it does not reach another
block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.separating.graph import Passes, passes_of, peaks_of
from hrvol.analysis.separating.merging import Depth
from hrvol.arrays import Shape3
from hrvol.volume.grid.tiling import Box


def contract(
    basins: NDArray[np.uint32],
    heights: NDArray[np.uint16],
    kept: NDArray[np.uint16],
    place: tuple[Box, Shape3],
    depth: Depth,
) -> NDArray[np.uint32]:
    """Return the basins of a block after merging, from 1.

    Parameters
    ----------
    basins, heights, kept
        ``(z, y, x)``, see :func:`hrvol.analysis.separating.basins.basins_of`.
    place
        The block, and the shape of the volume.
    depth
        As for :func:`hrvol.analysis.separating.merging.merge_basins`.
    """
    core, shape = place
    count = int(basins.max(initial=0))
    if not count:
        return basins
    passes = passes_of(basins.astype(np.int64), heights, kept, (core, core), shape)
    into = contraction(passes, peaks_of(basins, heights, count), _reaching(basins, core, shape, count), depth)
    _, numbers = np.unique(into, return_inverse=True)  # 0 stays 0
    return np.asarray(numbers.astype(np.uint32)[basins])


def contraction(
    passes: Passes, peaks: NDArray[np.uint16], fixed: NDArray[np.bool_], depth: Depth
) -> NDArray[np.int64]:
    """Return the basin that each of 0..n-1 is merged into.

    Parameters
    ----------
    passes
        Between the basins.
    peaks
        ``(n,)`` largest heights.
    fixed
        ``(n,)``: basins of which not all passes are known; others are merged into them.
    depth
        As for :func:`contract`.
    """
    group = np.arange(len(peaks))
    top = peaks.astype(np.int64)
    while len(passes.places):
        ordered = passes.from_the_highest()
        # Of several assignments the last one counts: that of the highest pass.
        highest = np.full(len(peaks), -1)
        highest[ordered.meets.ravel()[::-1]] = np.repeat(np.arange(len(ordered.places)), 2)[::-1]
        nodes = np.flatnonzero((highest >= 0) & ~fixed)
        rows = ordered.meets[highest[nodes]]
        others = rows.sum(axis=1) - nodes
        level = ordered.heights[highest[nodes]].astype(np.int64)
        lower = (top[nodes] < top[others]) | ((top[nodes] == top[others]) & (nodes > others))
        merged = lower & depth.merges(top[nodes], level)
        if not merged.any():
            break
        into = np.arange(len(peaks))
        into[nodes[merged]] = others[merged]
        while not np.array_equal(further := into[into], into):
            into = further
        group = into[group]
        meets = np.sort(into[passes.meets], axis=1)
        apart = meets[:, 0] != meets[:, 1]
        passes = Passes(meets[apart], passes.heights[apart], passes.places[apart]).highest()
    return group


def _reaching(basins: NDArray[np.uint32], core: Box, shape: Shape3, count: int) -> NDArray[np.bool_]:
    """Return which of basins 0..count reach a face with another block behind it."""
    found = np.zeros(count + 1, np.bool_)
    for axis, (span, side) in enumerate(zip(core, shape, strict=True)):
        if span.start > 0:
            found[np.take(basins, 0, axis)] = True
        if span.stop < side:
            found[np.take(basins, -1, axis)] = True
    return found
