"""Match the arbitrary class numbers of an unsupervised segmentation with true classes, from counts of pixels.

Every ``counts`` here is the matrix of :class:`hrvol.quality.metrics.Confusion`: rows are true labels, columns
predicted ones, the index is the label, and column 0 counts labelled pixels without a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def match_classes(counts: NDArray[np.int64]) -> dict[int, int]:
    """Match predicted to true classes one to one with the largest sum of IoUs (Hungarian method).

    The mean IoU is this sum divided by the number of true classes, so no other relabelling of the predicted
    classes has a larger one. Of several best matchings one is returned.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.

    Returns
    -------
    dict
        Predicted label -> true label, in ascending order. Surplus predicted classes are left out, and so are
        those that share no pixel with their true class.
    """
    pairs = counts[1:, 1:]
    true = np.flatnonzero(counts[1:].any(axis=1))
    predicted = np.flatnonzero(pairs.any(axis=0))
    shared = pairs[np.ix_(true, predicted)]
    # The union includes pixels of the true class without a predicted label (column 0).
    union = counts[1:].sum(axis=1)[true][:, None] + pairs.sum(axis=0)[predicted] - shared
    iou = shared / union  # no union is empty: each row and each column has a pixel
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = {
        int(predicted[column]) + 1: int(true[row]) + 1
        for row, column in zip(rows, columns, strict=True)
        if shared[row, column]
    }
    return dict(sorted(matched.items()))


def purity(counts: NDArray[np.int64]) -> float:
    """Return the share of labelled pixels whose true class is the most frequent one of their predicted class.

    Splitting a predicted class never decreases it, and one class per pixel gives 1: compare only
    segmentations with similar numbers of classes.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.

    Returns
    -------
    float
        In [0, 1]; pixels without a predicted label count as wrong. NaN if there are no labelled pixels.
    """
    total = int(counts[1:].sum())
    return int(counts[1:, 1:].max(axis=0, initial=0).sum()) / total if total else float("nan")


def relabel(counts: NDArray[np.int64], mapping: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the counts after replacing predicted labels.

    Parameters
    ----------
    counts
        ``(K + 1, K + 1)``: pixels by true and predicted label.
    mapping
        Predicted label -> true label. Other labels become 0: their pixels count as misses of their true
        class, and as false positives of no class.

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
