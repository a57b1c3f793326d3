"""Which true class a class found without labels stands for, from counts of pixels alone.

An unsupervised segmentation numbers its classes as it likes. Before it can be scored, each predicted class is
taken for a true one: *one to one* (:func:`match_classes`: the Hungarian method, as is usual for unsupervised
segmentation), or *many to one* (:func:`majority_classes`, for over-segmentations). Every ``counts`` here is
the matrix of :class:`hrvol.quality.metrics.Confusion`: rows are true labels, columns predicted ones, the
index is the label, and column 0 holds labelled pixels without a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def match_classes(counts: NDArray[np.int64]) -> dict[int, int]:
    """Match predicted to true classes one to one, so that the sum of their IoUs is largest.

    The mean IoU is that sum over the number of true classes, so no relabelling of the predicted classes has
    a better one, the labels as they are included. Of several best matchings one is chosen.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.

    Returns
    -------
    dict
        Predicted label -> true label, in rising order. A predicted class is left out where there are more
        of them than true ones, or where it would get a class that it shares no pixel with.
    """
    pairs = counts[1:, 1:]
    true = np.flatnonzero(counts[1:].any(axis=1))
    found = np.flatnonzero(pairs.any(axis=0))
    shared = pairs[np.ix_(true, found)]
    # Pixels of a true class that have no predicted label (column 0) are part of the union too.
    union = counts[1:].sum(axis=1)[true][:, None] + pairs.sum(axis=0)[found] - shared
    iou = shared / union  # a row and a column have a pixel each: no union is empty
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = {
        int(found[column]) + 1: int(true[row]) + 1
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column]
    }
    return dict(sorted(matched.items()))


def majority_classes(counts: NDArray[np.int64]) -> dict[int, int]:
    """Return the true class that most of each predicted class is; of equals, the lowest.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.

    Returns
    -------
    dict
        Predicted label -> true label, for each predicted class that has a labelled pixel.
    """
    pairs = counts[1:, 1:]
    return {int(found) + 1: int(pairs[:, found].argmax()) + 1 for found in np.flatnonzero(pairs.any(axis=0))}


def purity(counts: NDArray[np.int64]) -> float:
    """Return the share of labelled pixels that are of the majority class of their predicted class.

    It never falls when a predicted class is split, and is 1 with one class for each pixel: compare it
    between segmentations with about as many classes.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.

    Returns
    -------
    float
        In [0, 1]; at least the share of the largest true class if every labelled pixel has a predicted
        label, because one without counts as wrong. NaN if there are no labelled pixels.
    """
    total = int(counts[1:].sum())
    return int(counts[1:, 1:].max(axis=0, initial=0).sum()) / total if total else float("nan")


def relabel(counts: NDArray[np.int64], mapping: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the counts as they are after predicted labels are replaced.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.
    mapping
        Predicted label -> true label. Others become 0: a miss of their pixels' true class, and a false
        find of none.

    Returns
    -------
    NDArray[np.int64]
        ``(T + 1, T + 1)``, T being the largest label in the truth or in the mapping's values.
    """
    present = np.flatnonzero(counts.any(axis=1))
    size = max(int(present.max(initial=0)), *mapping.values(), 0) + 1
    rows = counts[: min(size, len(counts))]
    out = np.zeros((size, size), np.int64)
    for label in np.flatnonzero(counts.any(axis=0)):
        out[: len(rows), mapping.get(int(label), 0)] += rows[:, label]
    return out
