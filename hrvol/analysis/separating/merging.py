"""Merge basins to objects: each peak that rises above the pass to a higher one by the depth is an object.

That is the watershed from the h-maxima of the landscape, computed on the graph of basins: passes are opened
from the highest to the lowest; where two groups of basins meet, the lower of their peaks rises above the pass
by its *dynamics*. Below the depth, the groups become one object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from hrvol.analysis.separating.graph import Basins, Passes, split_key
from hrvol.errors import InputError


@dataclass(frozen=True)
class Depth:
    """How far a peak rises above the pass to a higher one, to be a peak of its own.

    Attributes
    ----------
    height
        In the units of heights.
    share
        Of the peak's own height, 0..1. The larger of the two counts.
    """

    height: float = 0.0
    share: float = 0.0

    def merges(self, peak: Any, level: Any) -> Any:
        """Return whether a peak does not rise by the depth above a pass; of numbers or of arrays.

        A peak that is as high as the pass never does.
        """
        rise = peak - level
        return (rise < self.height) | (rise < self.share * peak) | (rise == 0)


@dataclass(frozen=True)
class Choice:
    """Which objects are kept.

    Attributes
    ----------
    least
        Voxels of the smallest.
    border
        Whether those that reach a border of the volume are kept.
    """

    least: int = 1
    border: bool = True


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a volume, and the number of each basin's object.

    Attributes
    ----------
    blocks
        ``(b,)`` int64, ascending: numbers of the blocks that have basins.
    starts
        ``(b + 1,)`` int64: where the basins of each begin.
    numbers
        ``(n,)`` int64: object of each basin, in order of block and basin; 0 for those removed.
    classes, sizes
        ``(m,)`` uint16 and int64: class and voxels of objects 1..m.
    small, at_border
        Numbers of the objects that were removed because of their size, and because they reach a border.
    """

    blocks: NDArray[np.int64]
    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    classes: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    small: int
    at_border: int

    def of(self, block: int) -> NDArray[np.unsignedinteger[Any]]:
        """Return the objects ``(n + 1,)`` of basins 0..n of a block; 0 stays 0."""
        found = int(np.searchsorted(self.blocks, block))
        there = found < len(self.blocks) and self.blocks[found] == block
        start, stop = self.starts[found : found + 2] if there else (0, 0)
        dtype = np.uint32 if len(self.sizes) < 2**32 else np.uint64
        return np.concatenate([[0], self.numbers[start:stop]]).astype(dtype)

    @property
    def digest(self) -> str:
        """Checksum of the objects of all basins."""
        found = hashlib.blake2b(digest_size=16)
        for column in (self.blocks, self.starts, self.numbers):
            found.update(np.ascontiguousarray(column).tobytes())
        return found.hexdigest()


def merge_basins(reports: Iterable[Basins], depth: Depth, choice: Choice) -> Objects:
    """Merge the basins of all blocks to objects, and number these by their first voxels.

    Parameters
    ----------
    reports
        Of every block, in any order.
    depth
        Below which groups of basins are merged.
    choice
        Which objects are kept.

    Raises
    ------
    InputError
        A block meets a basin that no block has.
    """
    pieces = sorted((report for report in reports if len(report.sizes)), key=lambda report: report.block)
    if not pieces:
        none = np.empty(0, np.int64)
        return Objects(none, np.zeros(1, np.int64), none, np.empty(0, np.uint16), none, 0, 0)
    blocks = np.array([report.block for report in pieces], np.int64)
    starts = np.concatenate([[0], np.cumsum([len(report.sizes) for report in pieces])])
    firsts = np.concatenate([report.firsts for report in pieces])
    peaks = np.concatenate([report.peaks for report in pieces])
    # The order of basins in the volume: that of blocks would depend on these.
    order = np.argsort(firsts)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    links = merged_over(_edges(pieces, blocks, starts, rank), peaks[order], depth)
    count = len(order)
    graph = coo_array((np.ones(len(links), np.bool_), links.T), shape=(count, count))
    number, group = connected_components(graph, directed=False)
    sizes = np.zeros(number, np.int64)
    np.add.at(sizes, group, np.concatenate([report.sizes for report in pieces])[order])
    at_border = np.zeros(number, np.bool_)
    at_border[group[np.concatenate([report.at_border for report in pieces])[order]]] = True
    classes = np.zeros(number, np.uint16)
    classes[group] = np.concatenate([report.classes for report in pieces])[order]
    small = sizes < choice.least
    cut = at_border & ~small if not choice.border else np.zeros(number, np.bool_)
    kept = ~small & ~cut
    # Basins are in order of their first voxels: the first basin of a group has that of the object.
    _, first_basin = np.unique(group, return_index=True)
    in_order = np.argsort(first_basin)
    in_order = in_order[kept[in_order]]
    new = np.zeros(number, np.int64)
    new[in_order] = np.arange(1, len(in_order) + 1)
    return Objects(
        blocks,
        starts,
        new[group][rank],
        classes[in_order],
        sizes[in_order],
        int(np.count_nonzero(small)),
        int(np.count_nonzero(cut)),
    )


def _edges(
    pieces: list[Basins], blocks: NDArray[np.int64], starts: NDArray[np.int64], rank: NDArray[np.int64]
) -> Passes:
    """Return the passes between basins, these as their ranks in the volume."""
    passes = Passes.concatenated([report.passes for report in pieces])  # a pair may meet at several faces
    block, number = split_key(passes.meets)
    found = np.searchsorted(blocks, block)
    found[found == len(blocks)] = 0
    if not np.array_equal(blocks[found], block) or np.any(number > np.diff(starts)[found]):
        raise InputError("blocks: found a basin of no block, expected the reports of all blocks")
    return Passes(rank[starts[found] + number - 1], passes.heights, passes.places)


def merged_over(passes: Passes, peaks: NDArray[np.uint16], depth: Depth) -> NDArray[np.int64]:
    """Return the pairs ``(k, 2)`` of basins that are merged over their pass; they form a forest.

    Parameters
    ----------
    passes
        Between basins 0..n-1.
    peaks
        ``(n,)`` largest heights.
    depth
        As for :func:`merge_basins`.
    """
    count = len(peaks)
    ordered = passes.from_the_highest()
    # Each pass has a weight of its own, so that there is one tree only.
    weights = np.arange(1, len(ordered.places) + 1, dtype=np.float64)
    edges = coo_array((weights, ordered.meets.T), shape=(count, count))
    opened = np.sort(minimum_spanning_tree(edges.tocsr()).data.astype(np.int64)) - 1
    tree = ordered[opened]
    top, parent = peaks.astype(np.int64).tolist(), list(range(count))
    merged = []
    for row, ((one, other), level) in enumerate(zip(tree.meets.tolist(), tree.heights.tolist(), strict=True)):
        one, other = _root(parent, one), _root(parent, other)
        low, high = (one, other) if top[one] <= top[other] else (other, one)
        if depth.merges(top[low], level):
            merged.append(row)
        parent[low] = high
    return np.asarray(tree.meets[np.array(merged, np.int64)], np.int64)


def _root(parent: list[int], node: int) -> int:
    """Return the root of a node, and shorten the way to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
