"""Join the pieces of components that reach other blocks, and decide what becomes of the components."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hrvol.analysis.cleaning.steps import FILL, LARGEST, REMOVE, Step
from hrvol.analysis.object_blocks import Contact
from hrvol.errors import InputError

NO_LABEL = -1
"""In place of a label: no label."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of components in one block that reach other blocks.

    Attributes
    ----------
    block
        Number of the block.
    numbers
        ``(n,)`` int32: numbers of the pieces in the block.
    values
        ``(n,)`` int64: their labels (of holes: 0).
    sizes
        ``(n,)`` int64: their voxels inside the block, without its surroundings.
    firsts
        ``(n,)`` int64: position of their first voxel in the volume, in C order.
    at_border
        ``(n,)`` bool: whether they reach a border of the volume.
    around
        ``(m, 3)`` int64: piece (0..n-1), label, and the number of faces with which the piece meets it.
    contacts
        Pieces ``(patches,)`` int32 of the patches of each contact with another block.
    best
        Label -> (voxels, position of the first voxel, number) of the largest component inside the block.
    """

    block: int
    numbers: NDArray[np.int32]
    values: NDArray[np.int64]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    around: NDArray[np.int64]
    contacts: Mapping[Contact, NDArray[np.int32]]
    best: Mapping[int, tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Decisions:
    """What becomes of components of blocks that the blocks cannot decide on.

    Attributes
    ----------
    blocks
        ``(n,)`` int64, ascending: numbers of blocks.
    numbers
        ``(n,)`` int32: components in them.
    values
        ``(n,)`` int64: labels that they are given.
    """

    blocks: NDArray[np.int64]
    numbers: NDArray[np.int32]
    values: NDArray[np.int64]

    def of(self, block: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the components of a block and their labels."""
        start, stop = np.searchsorted(self.blocks, [block, block + 1])
        return self.numbers[start:stop], self.values[start:stop]

    @property
    def digest(self) -> str:
        """Checksum of all of it."""
        found = hashlib.blake2b(digest_size=16)
        for column in (self.blocks, self.numbers, self.values):
            found.update(np.ascontiguousarray(column).tobytes())
        return found.hexdigest()


def decide(step: Step, reports: Iterable[Pieces]) -> Decisions:
    """Join the pieces of all blocks, and decide what becomes of the components.

    Parameters
    ----------
    step
        As for :func:`survey`.
    reports
        Of every block, in any order.

    Raises
    ------
    InputError
        The labels of two blocks differ where they meet.
    """
    pieces = sorted(reports, key=lambda report: report.block)
    starts = np.cumsum([0, *(len(report.numbers) for report in pieces)])
    group, count = _joined(pieces, starts)
    if not pieces:
        return Decisions(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
    blocks = np.repeat([report.block for report in pieces], np.diff(starts)).astype(np.int64)
    numbers = np.concatenate([report.numbers for report in pieces])
    values = np.concatenate([report.values for report in pieces])
    piece_sizes = np.concatenate([report.sizes for report in pieces])
    sizes = np.bincount(group, piece_sizes, count).astype(np.int64)  # exact below 2**53 voxels
    value_of = np.zeros(count, np.int64)
    value_of[group] = values
    if step.name == FILL:
        closed = np.ones(count, np.bool_)
        closed[group[np.concatenate([report.at_border for report in pieces])]] = False
        changed = closed if step.least is None else closed & (sizes < step.least)
        target = np.full(count, step.classes[0], np.int64)
        extra = Decisions(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
    else:
        changed = np.ones(count, np.bool_)
        if step.name == REMOVE:
            changed = sizes < (step.least or 0)
        firsts = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(firsts, group, np.concatenate([report.firsts for report in pieces]))
        extra = _kept(step, pieces, changed, value_of, sizes, firsts)
        target = _targets(step, pieces, starts, group, value_of)
    use = changed[group] & (piece_sizes > 0)
    rows = Decisions(blocks[use], numbers[use], target[group[use]])
    columns = [
        np.concatenate([getattr(rows, name), getattr(extra, name)])
        for name in ("blocks", "numbers", "values")
    ]
    order = np.lexsort((columns[1], columns[0]))
    return Decisions(columns[0][order], columns[1][order], columns[2][order])


def _joined(pieces: list[Pieces], starts: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the component of each piece, and how many there are."""
    waiting: dict[Contact, NDArray[np.int64]] = {}
    edges = [np.empty((0, 2), np.int64)]
    for report, start in zip(pieces, starts, strict=False):
        for key, nodes in report.contacts.items():
            mine = nodes.astype(np.int64) + start
            other = waiting.pop(key, None)
            if other is None:
                waiting[key] = mine
            elif len(other) != len(mine):
                raise InputError(
                    f"adjacent blocks: found {len(mine)} and {len(other)} patches at {key[0]}, expected the"
                    " same labels in both"
                )
            else:
                edges.append(np.stack([mine, other], axis=1))
    if waiting:
        raise InputError(f"blocks: found {len(waiting)} contacts of one block only, expected all blocks")
    links, count = np.concatenate(edges), int(starts[-1])
    if not count:
        return np.empty(0, np.int64), 0
    graph = coo_array((np.ones(len(links), np.bool_), links.T), shape=(count, count))
    number, group = connected_components(graph, directed=False)
    return group, int(number)


def _kept(
    step: Step,
    pieces: list[Pieces],
    changed: NDArray[np.bool_],
    values: NDArray[np.int64],
    sizes: NDArray[np.int64],
    firsts: NDArray[np.int64],
) -> Decisions:
    """Exempt the largest component of each label; return the decisions for those inside one block."""
    blocks, numbers, labels = [], [], []
    for label in step.classes if step.name == LARGEST else ():
        # The largest; of equal ones the first in C order.
        spanning = np.flatnonzero(values == label)
        rivals = [(-int(sizes[g]), int(firsts[g]), int(g), NO_LABEL) for g in spanning[sizes[spanning] > 0]]
        for report in pieces:
            if label in report.best:
                size, first, number = report.best[label]
                rivals.append((-size, first, number, report.block))
        if rivals:
            _, _, number, block = min(rivals)
            if block == NO_LABEL:
                changed[number] = False
            else:
                blocks.append(block)
                numbers.append(number)
                labels.append(label)
    return Decisions(np.array(blocks, np.int64), np.array(numbers, np.int32), np.array(labels, np.int64))


def _targets(
    step: Step, pieces: list[Pieces], starts: NDArray[Any], group: NDArray[Any], values: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the label that each component is given if it is removed."""
    count = len(values)
    if step.into is not None:
        return np.full(count, step.into, np.int64)
    tables = []
    for report, start in zip(pieces, starts, strict=False):
        table = report.around.copy()
        table[:, 0] = group[table[:, 0] + start]
        tables.append(table)
    best = most_frequent(np.concatenate(tables), count)
    return np.where(best == NO_LABEL, values, best)


def most_frequent(around: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return for each of ``count`` components the label with most faces, of equals the smallest; or -1."""
    best = np.full(count, NO_LABEL, np.int64)
    if len(around):
        pairs, where = np.unique(around[:, :2], axis=0, return_inverse=True)
        faces = np.bincount(where.ravel(), around[:, 2])
        order = np.lexsort((-pairs[:, 1], faces, pairs[:, 0]))  # the last of each component wins
        best[pairs[order, 0]] = pairs[order, 1]
    return best
