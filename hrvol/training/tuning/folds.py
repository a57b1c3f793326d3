"""Strokes -> folds of a cross-validation that never trains on one part of a stroke and tests on another.

Neighbouring pixels are all but copies of each other: a classifier that has seen one of them knows the other,
whatever its features are worth. So whole planes are held out where enough of them are drawn on, else whole
strokes; and where a class has too few strokes, pieces of them with a gap between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GAP = 14
"""Pixels between pieces of a stroke: a patch of the network, whose pixels share a token."""

ALWAYS, UNUSED = -1, -2
"""In place of a fold: a pixel that every fold trains on, and one in a gap, that no fold uses."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold tests which pixels; each fold trains on those of the others.

    Attributes
    ----------
    of
        ``(n,)`` int8: the fold from 0, or :data:`ALWAYS`, or :data:`UNUSED`.
    count
        Number of folds.
    how
        What was kept together, in words.
    """

    of: NDArray[np.int8]
    count: int
    how: str

    def split(self, fold: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the numbers of the pixels to train on and of those to test with."""
        test = self.of == fold
        return np.flatnonzero(~test & (self.of != UNUSED)), np.flatnonzero(test)


def deal_folds(
    where: NDArray[np.int64], labels: NDArray[Any], folds: int, seed: int, *, gap: int = GAP
) -> Folds:
    """Deal the pixels of strokes to folds.

    Planes, or the strokes of a class, go one by one, the largest first, to the fold that has the fewest
    pixels (of the class) so far.

    Parameters
    ----------
    where
        ``(n, 4)`` int64, each row once, in any order: image, z, y, x of every pixel of the strokes.
    labels
        ``(n,)`` integers: classes, 1 and above.
    folds
        How many, at least 2.
    seed
        Decides between equals.
    gap
        Pixels between pieces of a stroke that has to be cut.

    Returns
    -------
    Folds
        Planes are kept together if at least ``folds`` of them show all classes; else strokes are. A class of
        fewer strokes than folds has its largest cut, as long as pieces and gap have room; once in any case,
        with a gap of a third of it. A class that cannot be cut even so is trained on in each fold and tested
        in none.
    """
    order = np.lexsort(where.T[::-1])
    where, labels = where[order], np.asarray(labels)[order]
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    planes, plane = np.unique(where[:, :2], axis=0, return_inverse=True)
    plane = plane.reshape(-1)
    table = np.stack([np.bincount(plane[labels == value], minlength=len(planes)) for value in classes], 1)
    complete = np.asarray((table > 0).all(axis=1), bool)
    found = np.full(len(where), UNUSED, np.int8)
    if complete.sum() >= folds:
        found[:] = _deal(table.sum(axis=1), folds, rng, first=complete)[plane]
        how = f"{folds} folds of whole planes ({len(planes)} drawn on)"
    else:
        stroke = number_strokes(where, labels)
        said = []
        for value in classes:
            mine = np.flatnonzero(labels == value)
            strokes = [mine[part] for part in _groups(stroke[mine])]
            pieces, apart = _cut_largest(strokes, where[:, 2:], folds, gap)
            if len(pieces) == 1:
                found[mine] = ALWAYS
                said.append(f"class {value} has one stroke too small to cut, and is not tested")
                continue
            dealt = _deal(np.array([len(piece) for piece in pieces]), folds, rng)
            for piece, fold in zip(pieces, dealt, strict=True):
                found[piece] = fold
            if len(pieces) > len(strokes):
                number = f"{len(strokes)} stroke{'s' * (len(strokes) > 1)}"
                said.append(f"class {value} has {number}, cut into {len(pieces)} pieces {apart:.0f} px apart")
        how = "; ".join([f"{folds} folds of whole strokes", *said])
    of = np.empty_like(found)
    of[order] = found
    return Folds(of, folds, how)


def number_strokes(where: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of each pixel's stroke, from 0.

    Strokes are connected components, by edges or corners, of one class in one plane. Only drawn pixels are
    held in memory, however large the plane.

    Parameters
    ----------
    where
        ``(n, 4)`` int64, each row once: image, z, y, x.
    labels
        ``(n,)`` integers.
    """
    low = where.min(axis=0)
    # One row and column more on each side, so that what lies beyond a border is nobody's.
    sides = (where.max(axis=0) - low + (1, 1, 3, 3)).tolist()
    keys = np.ravel_multi_index(tuple((where - low + (0, 0, 1, 1)).T), sides)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    links = []
    for step in (1, sides[3] - 1, sides[3], sides[3] + 1):
        place = np.minimum(np.searchsorted(ranked, keys + step), len(keys) - 1)
        other = order[place]
        linked = (ranked[place] == keys + step) & (labels[other] == labels)
        links.append(np.stack([np.flatnonzero(linked), other[linked]]))
    a, b = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(keys), len(keys)))
    _, numbers = connected_components(graph, directed=False)
    return np.asarray(numbers, np.int64)


def _deal(
    sizes: NDArray[np.int64], folds: int, rng: np.random.Generator, first: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Return the fold of each thing; those that are ``first`` go before the others, then the larger."""
    late = np.zeros(len(sizes), bool) if first is None else ~first
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, late))
    favour = rng.permutation(folds)
    full = np.zeros(folds, np.int64)
    dealt = np.empty(len(sizes), np.int8)
    for number in order:
        fold = favour[np.argmin(full[favour])]
        dealt[number] = fold
        full[fold] += sizes[number]
    return dealt


def _groups(numbers: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Return the places of each number, in order of the number's first place."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group))[:-1])
    return [parts[i] for i in np.argsort(first)]


def _cut_largest(
    strokes: Sequence[NDArray[np.intp]], yx: NDArray[np.int64], wanted: int, gap: int
) -> tuple[list[NDArray[np.intp]], float]:
    """Cut strokes until there are as many pieces as wanted or none has room; also return the least gap."""
    pieces, apart = list(strokes), float(gap)
    while len(pieces) < wanted:
        cuts = [(len(piece), i, _halves(yx[piece], gap)) for i, piece in enumerate(pieces)]
        roomy = [cut for cut in cuts if cut[2][2] >= gap or len(pieces) == 1]
        if not roomy:
            break
        _, i, (left, right, width) = max(roomy, key=lambda cut: (cut[0], -cut[1]))
        if not len(left) or not len(right):
            break
        pieces[i : i + 1] = [pieces[i][left], pieces[i][right]]
        apart = min(apart, width)
    return pieces, apart


def _halves(yx: NDArray[np.int64], gap: int) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Return two halves of a stroke across its longest axis, and the gap left between them.

    The gap is at most a third of the stroke's length. Pixels of different halves are at least so far apart,
    because their projections are.
    """
    centred = yx - yx.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    along = centred @ (axis * np.sign(axis[np.argmax(np.abs(axis))]))
    width = min(float(gap), float(np.ptp(along)) / 3)
    middle = float(np.median(along))
    # Strictly: a dot, of no length, has no halves.
    left, right = np.flatnonzero(along < middle - width / 2), np.flatnonzero(along > middle + width / 2)
    return left, right, width
