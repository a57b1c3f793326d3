"""Split the pixels of strokes into folds of a cross-validation, keeping each stroke together.

Neighbouring pixels are nearly copies of each other: a classifier that was trained on one of them knows the
other, however poor its features. So whole planes are held out where enough of them have strokes, else whole
strokes; and where a class has too few strokes, pieces of them with a gap between.

scikit-learn's StratifiedGroupKFold balances groups too, but of whole planes it often makes a fold that tests
no pixel of a class, although there are enough planes that have all classes.
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
    """The fold that tests each pixel; each fold trains on the pixels of the others.

    Attributes
    ----------
    of
        ``(n,)`` int8: the fold from 0, or :data:`ALWAYS`, or :data:`UNUSED`.
    count
        Number of folds.
    description
        What was kept together, in words.
    of_planes
        Whether whole planes were, else strokes.
    """

    of: NDArray[np.int8]
    count: int
    description: str
    of_planes: bool = False

    def split(self, fold: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the indices of the pixels to train on and of those to test with."""
        test = self.of == fold
        return np.flatnonzero(~test & (self.of != UNUSED)), np.flatnonzero(test)


def split_strokes(
    pixels: NDArray[np.int64], labels: NDArray[Any], folds: int, seed: int, *, gap: int = GAP
) -> Folds:
    """Split the pixels of strokes into folds.

    Planes, or the strokes of a class, are assigned one by one, the largest first, to the fold that has the
    fewest pixels (of the class) so far.

    Parameters
    ----------
    pixels
        ``(n, 4)`` int64, each row once, in any order: image, z, y, x of every pixel of the strokes.
    labels
        ``(n,)`` integers: classes, 1 and above.
    folds
        Number of folds, at least 2.
    seed
        Decides between equals.
    gap
        Pixels between pieces of a stroke that has to be cut.

    Returns
    -------
    Folds
        Of whole planes if at least as many of them as folds have all classes, else of whole strokes. A class
        with fewer strokes than folds has its largest cut, as long as pieces and gap have room; once in any
        case, with a gap of a third of it. A class that cannot be cut even so is trained on in each fold and
        tested in none.
    """
    order = np.lexsort(pixels.T[::-1])
    pixels, labels = pixels[order], np.asarray(labels)[order]
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    plane, table = count_by_plane(pixels, labels)
    complete = np.asarray((table > 0).all(axis=1), bool)
    fold_of = np.full(len(pixels), UNUSED, np.int8)
    of_planes = bool(complete.sum() >= folds)
    if of_planes:
        fold_of[:] = _balanced(table.sum(axis=1), folds, rng, first=complete)[plane]
        description = f"{folds} folds of whole planes ({len(table)} drawn on)"
    else:
        stroke = number_strokes(pixels, labels)
        notes = [f"{folds} folds of whole strokes"]
        for value in classes:
            of_class = np.flatnonzero(labels == value)
            strokes = [of_class[group] for group in _groups(stroke[of_class])]
            pieces, distance = _cut_largest(strokes, pixels[:, 2:], folds, gap)
            if len(pieces) == 1:
                fold_of[of_class] = ALWAYS
                notes.append(f"class {value} has one stroke too small to cut, and is not tested")
                continue
            for piece, fold in zip(
                pieces, _balanced(np.array(list(map(len, pieces))), folds, rng), strict=True
            ):
                fold_of[piece] = fold
            if len(pieces) > len(strokes):
                count = f"{len(strokes)} stroke{'s' * (len(strokes) > 1)}"
                notes.append(
                    f"class {value} has {count}, cut into {len(pieces)} pieces {distance:.0f} px apart"
                )
        description = "; ".join(notes)
    of = np.empty_like(fold_of)
    of[order] = fold_of
    return Folds(of, folds, description, of_planes)


def count_by_plane(
    pixels: NDArray[np.int64], labels: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the number of each pixel's plane ``(n,)``, and how many of each class it has ``(planes, K)``."""
    planes, plane = np.unique(pixels[:, :2], axis=0, return_inverse=True)
    plane = plane.reshape(-1)
    counts = [np.bincount(plane[labels == value], minlength=len(planes)) for value in np.unique(labels)]
    return plane, np.stack(counts, 1)


def number_strokes(pixels: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of each pixel's stroke, from 0.

    Strokes are connected components, by edges or corners, of one class in one plane. Only drawn pixels are
    held in memory, however large the plane.

    Parameters
    ----------
    pixels
        ``(n, 4)`` int64, each row once: image, z, y, x.
    labels
        ``(n,)`` integers.
    """
    low = pixels.min(axis=0)
    # One row and column more on each side, so that a neighbour beyond a border has a key of its own.
    sides = (pixels.max(axis=0) - low + (1, 1, 3, 3)).tolist()
    keys = np.ravel_multi_index(tuple((pixels - low + (0, 0, 1, 1)).T), sides)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    links = []
    for step in (1, sides[3] - 1, sides[3], sides[3] + 1):
        rank = np.minimum(np.searchsorted(ranked, keys + step), len(keys) - 1)
        other = order[rank]
        linked = (ranked[rank] == keys + step) & (labels[other] == labels)
        links.append(np.stack([np.flatnonzero(linked), other[linked]]))
    a, b = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(keys), len(keys)))
    _, numbers = connected_components(graph, directed=False)
    return np.asarray(numbers, np.int64)


def _balanced(
    sizes: NDArray[np.int64], folds: int, rng: np.random.Generator, first: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Assign groups to folds of similar size: those in ``first`` before the others, then the larger ones."""
    late = np.zeros(len(sizes), bool) if first is None else ~first
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, late))
    preference = rng.permutation(folds)
    totals = np.zeros(folds, np.int64)
    fold_of = np.empty(len(sizes), np.int8)
    for number in order:
        fold = preference[np.argmin(totals[preference])]
        fold_of[number] = fold
        totals[fold] += sizes[number]
    return fold_of


def _groups(numbers: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Return the indices of each number, in order of the number's first index."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    indices = np.split(order, np.cumsum(np.bincount(group))[:-1])
    return [indices[i] for i in np.argsort(first)]


def _cut_largest(
    strokes: Sequence[NDArray[np.intp]], yx: NDArray[np.int64], count: int, gap: int
) -> tuple[list[NDArray[np.intp]], float]:
    """Cut strokes until there are ``count`` pieces or none has room; also return the least gap."""
    pieces, least = list(strokes), float(gap)
    while len(pieces) < count:
        cuts = [(len(piece), i, _halves(yx[piece], gap)) for i, piece in enumerate(pieces)]
        roomy = [cut for cut in cuts if cut[2][2] >= gap or len(pieces) == 1]
        if not roomy:
            break
        _, i, (left, right, width) = max(roomy, key=lambda cut: (cut[0], -cut[1]))
        if not len(left) or not len(right):
            break
        pieces[i : i + 1] = [pieces[i][left], pieces[i][right]]
        least = min(least, width)
    return pieces, least


def _halves(yx: NDArray[np.int64], gap: int) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Return two halves of a stroke across its longest axis, and the gap between them.

    The gap is at most a third of the stroke's length. Pixels of different halves are at least this far apart,
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
