"""Merge basins to objects: a peak that rises less than the depth above the pass to a higher one is none.

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

from hrvol.analysis.separating.graph import Basins, counts_of, highest, split_key
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

    def least(self, peak: int) -> float:
        """Return the least rise of a peak of some height."""
        return max(self.height, self.share * peak)


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
        """Return the objects ``(n + 1,)`` of basins 0..n of a block; basin 0 is none."""
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
    starts = np.concatenate([[0], np.cumsum(counts_of(pieces))])
    firsts = np.concatenate([report.firsts for report in pieces])
    peaks = np.concatenate([report.peaks for report in pieces])
    # The order of basins in the volume: that of blocks would depend on these.
    order = np.argsort(firsts)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    meets, passes = _edges(pieces, blocks, starts, rank)
    joined = merged_over(meets, passes, peaks[order], depth)
    links = meets[joined]
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
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Return the pairs of basins that touch, as their ranks in the volume, and their passes."""
    meets = np.concatenate([report.meets for report in pieces])
    passes = np.concatenate([report.passes for report in pieces])
    meets, passes = highest(meets, passes)  # a pair may meet at several faces
    block, number = split_key(meets)
    found = np.searchsorted(blocks, block)
    found[found == len(blocks)] = 0
    if not np.array_equal(blocks[found], block) or np.any(number > np.diff(starts)[found]):
        raise InputError("blocks: found a basin of no block, expected the reports of all blocks")
    nodes = rank[starts[found] + number - 1]
    return np.sort(nodes, axis=1), passes


def merged_over(
    meets: NDArray[np.int64], passes: NDArray[np.uint16], peaks: NDArray[np.uint16], depth: Depth
) -> NDArray[np.int64]:
    """Return the pairs, by their rows, over whose passes basins are merged.

    Parameters
    ----------
    meets, passes
        ``(m, 2)`` pairs of basins 0..n-1, each once, and ``(m,)`` their highest passes.
    peaks
        ``(n,)`` largest heights.
    depth
        As for :func:`merge_basins`.
    """
    count = len(peaks)
    order = np.lexsort((meets[:, 1], meets[:, 0], -passes.astype(np.int64)))
    # Of equal passes the first is taken: each has a weight of its own, and there is one tree only.
    weights = np.arange(1, len(order) + 1, dtype=np.float64)
    rows = meets[order]
    tree = minimum_spanning_tree(coo_array((weights, rows.T), shape=(count, count)).tocsr())
    opened = np.sort(tree.data.astype(np.int64)) - 1
    top, parent = peaks.astype(np.int64).tolist(), list(range(count))
    merged = []
    for row, (one, other), level in zip(
        opened.tolist(), rows[opened].tolist(), passes[order][opened].tolist(), strict=True
    ):
        one, other = _root(parent, one), _root(parent, other)
        low, high = (one, other) if top[one] <= top[other] else (other, one)
        rise = top[low] - level
        if rise < depth.least(top[low]) or rise == 0:
            merged.append(row)
        parent[low] = high
    return order[np.array(merged, np.int64)]


def _root(parent: list[int], node: int) -> int:
    """Return the root of a node, and shorten the way to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
