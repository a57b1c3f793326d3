"""Measure the agreement of a segmentation with a ground truth, with boxes, and with itself at seams.

Label 0 in a ground truth is unlabelled and ignored. Label 0 in a prediction counts as a miss of the true
class. Pixels are counted as integers first, so that chunks of any size add up to the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, namespace, to_host
from hrvol.errors import InputError
from hrvol.quality.matching import match_classes, relabel
from hrvol.text import listed

BoundingBox = tuple[float, float, float, float]
"""``(y0, x0, y1, x1)`` in pixels, half-open: ``y0 <= y < y1``."""

MOST_CLASSES = 4095
"""Largest label that can be counted: the counts are a square matrix of labels."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of pixels by true and predicted label; counts of chunks can be added.

    Attributes
    ----------
    matrix
        ``(K + 1, K + 1)`` int64: pixels by true label (row) and predicted label (column); the index is the
        label. Row 0 is zero; column 0 counts pixels with a true class but no predicted one.
    """

    matrix: NDArray[np.int64]

    @classmethod
    def of(cls, pred: NDArray[Any], truth: NDArray[Any], n_classes: int | None = None) -> Confusion:
        """Count two label arrays of the same shape; ``n_classes`` defaults to the largest label of both.

        Raises
        ------
        InputError
            As :func:`confusion_matrix`, or a label is above :data:`MOST_CLASSES`.
        """
        if n_classes is None:
            n_classes = max(int(labels.max(initial=0)) for labels in (pred, truth))
        if n_classes > MOST_CLASSES:
            raise InputError(
                f"labels: found a label {n_classes}, expected at most {MOST_CLASSES} (classes, not objects)"
            )
        return cls(confusion_matrix(pred, truth, n_classes))

    def __add__(self, other: Confusion) -> Confusion:
        size = max(len(self.matrix), len(other.matrix))
        total = np.zeros((size, size), np.int64)
        for matrix in (self.matrix, other.matrix):
            total[: len(matrix), : len(matrix)] += matrix
        return Confusion(total)

    def matched(self) -> Confusion:
        """Return the counts after each predicted class is matched with at most one true class.

        :func:`hrvol.quality.matching.match_classes` matches the classes by these counts: add the counts of
        all chunks before. Pixels of a predicted class without a match get label 0 and count as misses of
        their true class. The mean IoU is the same as if they kept a label that the truth lacks.
        """
        return Confusion(relabel(self.matrix, match_classes(self.matrix)))

    def to_dict(self, class_names: Sequence[str] | Mapping[int, str] | None = None) -> dict[str, Any]:
        """Return all figures as JSON values.

        Parameters
        ----------
        class_names
            Names of classes 1..K, or names by value. Other classes are named by their number.

        Returns
        -------
        dict
            ``miou`` (float); ``iou`` and ``dice`` (class name -> float, or ``None`` for a class that the
            truth lacks); ``accuracy`` (float); ``confusion`` (K rows of K counts: true, predicted);
            ``unlabelled`` (number of pixels with a true class and predicted label 0).

        Raises
        ------
        InputError
            The truth has no labelled pixels, or two classes have the same name.
        """
        if not self.matrix.any():
            raise InputError("truth: found no labelled pixels, expected labels 1 and above")
        names = _names(len(self.matrix) - 1, class_names)
        return {
            "miou": mean_iou(self.matrix),
            "iou": _named(names, iou_per_class(self.matrix)),
            "dice": _named(names, dice(self.matrix)),
            "accuracy": pixel_accuracy(self.matrix),
            "confusion": self.matrix[1:, 1:].tolist(),
            "unlabelled": int(self.matrix[1:, 0].sum()),
        }


def confusion_matrix(pred: NDArray[Any], truth: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Count pixels by true and predicted label.

    Parameters
    ----------
    pred, truth
        Integer labels in 0..n_classes of the same shape. Pixels with truth 0 are ignored.
    n_classes
        Number of classes K.

    Returns
    -------
    NDArray[np.int64]
        ``(K + 1, K + 1)``; see :class:`Confusion`.

    Raises
    ------
    InputError
        Shapes differ, or labels are not integers or out of range.
    """
    if pred.shape != truth.shape:
        raise InputError(f"prediction: found shape {pred.shape}, expected the truth's {truth.shape}")
    for name, labels in (("prediction", pred), ("truth", truth)):
        if labels.dtype.kind not in "iub":
            raise InputError(f"{name}: found values of type {labels.dtype}, expected integer labels")
        if labels.size and not (labels.min() >= 0 and labels.max() <= n_classes):
            raise InputError(
                f"{name}: found labels {labels.min()}..{labels.max()}, expected them in 0..{n_classes}"
            )
    labelled = truth != 0
    size = n_classes + 1
    pairs = truth[labelled].astype(np.int64) * size + pred[labelled].astype(np.int64)
    return np.bincount(pairs, minlength=size * size).astype(np.int64, copy=False).reshape(size, size)


def iou_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union of classes 1..K, ``(K,)``; NaN for a class that the truth lacks.

    Pixels that are predicted as such a class still count as misses of their true class.
    """
    right, true, predicted = _sums(confusion)
    return _ratio(right, true + predicted - right, true > 0)


def dice(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Dice coefficient (F1) of classes 1..K, ``(K,)``; NaN for a class that the truth lacks."""
    right, true, predicted = _sums(confusion)
    return _ratio(2 * right, true + predicted, true > 0)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Return the mean IoU over the classes in the truth; NaN if there are none."""
    ious = iou_per_class(confusion)
    present = ious[~np.isnan(ious)]
    return float(present.mean()) if present.size else float("nan")


def pixel_accuracy(confusion: NDArray[np.int64]) -> float:
    """Return the share of labelled pixels that are predicted correctly; NaN if there are none."""
    total = int(confusion[1:].sum())
    return int(np.trace(confusion[1:, 1:])) / total if total else float("nan")


def evaluate(
    pred: NDArray[Any], truth: NDArray[Any], class_names: Sequence[str] | Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return the metrics of one prediction; see :meth:`Confusion.to_dict`."""
    return Confusion.of(pred, truth).to_dict(class_names)


def binary_iou(pred: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the intersection over union of two foreground masks (paper, section 3.5).

    Parameters
    ----------
    pred, truth
        Masks of the same shape: booleans, or integers that are 0 in the background. Unlike in
        :class:`Confusion`, 0 in the truth is background, not unlabelled.

    Returns
    -------
    float
        In [0, 1]; 1 if both foregrounds are empty.

    Raises
    ------
    InputError
        The shapes differ, or the values are neither boolean nor integer.
    """
    if pred.shape != truth.shape:
        raise InputError(f"prediction: found shape {pred.shape}, expected the truth's {truth.shape}")
    for name, mask in (("prediction", pred), ("truth", truth)):
        if mask.dtype.kind not in "iub":
            raise InputError(f"{name}: found values of type {mask.dtype}, expected a mask")
    predicted, true = pred != 0, truth != 0
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union, in 0..1, of two half-open boxes; 0 if both are empty.

    Parameters
    ----------
    a, b
        Lower bounds of all axes, then upper bounds: ``(y0, x0, y1, x1)`` or ``(z0, y0, x0, z1, y1, x1)``.
    """
    middle = len(a) // 2
    lows = [max(pair) for pair in zip(a[:middle], b[:middle], strict=True)]
    highs = [min(pair) for pair in zip(a[middle:], b[middle:], strict=True)]
    common = _volume(lows, highs)
    total = _volume(a[:middle], a[middle:]) + _volume(b[:middle], b[middle:]) - common
    return common / total if total else 0.0


def cor_loc(
    boxes_pred: Sequence[BoundingBox | Sequence[BoundingBox] | None],
    boxes_true: Sequence[Sequence[BoundingBox]],
    threshold: float = 0.5,
) -> float:
    """Return CorLoc: the share of images in which a predicted box overlaps a true box enough.

    One box per image gives single-object localisation; of several boxes ("multi" in table 2 of the paper) one
    hit is enough, and the others are ignored.

    Parameters
    ----------
    boxes_pred
        One box or any number of boxes for each image; ``None`` or an empty sequence is a miss.
    boxes_true
        The true boxes of each image, at least one.
    threshold
        Smallest intersection over union of a hit, as in LOST (Simeoni et al., 2021).

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        There are no images, the sequences differ in length, or a box does not have four numbers.
    """
    if len(boxes_pred) != len(boxes_true) or not boxes_true:
        raise InputError(
            f"boxes: found {len(boxes_pred)} predictions, expected {len(boxes_true)}, at least one"
        )
    hits = [
        any(box_iou(box, true) >= threshold for box in _boxes(predicted) for true in truths)
        for predicted, truths in zip(boxes_pred, boxes_true, strict=True)
    ]
    return sum(hits) / len(hits)


@dataclass(frozen=True)
class SeamDisagreement:
    """Differences between neighbouring tiles at the pixels that they share; seams can be added.

    Attributes
    ----------
    pixels
        Number of pixels that were compared.
    labels_differ
        Number of these with different labels.
    probability_change
        Sum over the pixels of the mean absolute difference of their class probabilities.
    """

    pixels: int = 0
    labels_differ: int = 0
    probability_change: float = 0.0

    @property
    def label_share(self) -> float:
        """Share of pixels with different labels, in 0..1; 0 if no pixels were compared."""
        return self.labels_differ / self.pixels if self.pixels else 0.0

    @property
    def mean_probability_difference(self) -> float:
        """Mean absolute difference of probabilities over pixels and classes, in 0..1."""
        return self.probability_change / self.pixels if self.pixels else 0.0

    def __add__(self, other: SeamDisagreement) -> SeamDisagreement:
        return SeamDisagreement(
            self.pixels + other.pixels,
            self.labels_differ + other.labels_differ,
            self.probability_change + other.probability_change,
        )


def seam_disagreement(a_labels: Array, b_labels: Array, a_prob: Array, b_prob: Array) -> SeamDisagreement:
    """Compare two tiles in the region that they share; only three numbers are copied to the host.

    Parameters
    ----------
    a_labels, b_labels
        Labels of the same shape; pixels with label 0 in one of them are ignored. All arrays are of one
        library, which may be any.
    a_prob, b_prob
        ``(K, ...)`` probabilities in [0, 1] of the same pixels.

    Returns
    -------
    SeamDisagreement
        The differences of this seam.

    Raises
    ------
    InputError
        Shapes do not match.
    """
    if not (a_labels.shape == b_labels.shape == a_prob.shape[1:] and a_prob.shape == b_prob.shape):
        raise InputError(
            f"seam: found labels {a_labels.shape} and {b_labels.shape} with probabilities {a_prob.shape} and "
            f"{b_prob.shape}, expected the same pixels"
        )
    xp = namespace(a_labels, b_labels, a_prob, b_prob)
    both = (a_labels != 0) & (b_labels != 0)
    a, b = xp.astype(a_prob, xp.float64), xp.astype(b_prob, xp.float64)
    change = reduce(add, [xp.abs(a[k, ...] - b[k, ...]) for k in range(a.shape[0])]) / a.shape[0]
    counted = (both, both & (a_labels != b_labels), both)
    weights = (xp.ones_like(change), xp.ones_like(change), change)
    sums = [
        xp.sum(xp.astype(mask, xp.float64) * weight) for mask, weight in zip(counted, weights, strict=True)
    ]
    pixels, differ, changed = to_host(xp.stack(sums)).tolist()  # counts are exact up to 2**53
    return SeamDisagreement(int(pixels), int(differ), changed)


def _sums(confusion: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return np.diagonal(confusion)[1:], confusion[1:].sum(axis=1), confusion[:, 1:].sum(axis=0)


def _ratio(
    numerator: NDArray[np.int64], denominator: NDArray[np.int64], present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=present)
    return ratio


def _names(n: int, given: Sequence[str] | Mapping[int, str] | None) -> list[str]:
    by_value = given if isinstance(given, Mapping) else dict(enumerate(given or (), start=1))
    names = [by_value.get(value, str(value)) for value in range(1, n + 1)]
    if len(set(names)) != n:
        raise InputError(f"classes: found names {listed(names)}, expected each name once")
    return names


def _named(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)
    }


def _boxes(predicted: BoundingBox | Sequence[BoundingBox] | None) -> list[BoundingBox]:
    """Return the boxes of an image as a list."""
    boxes = np.asarray(() if predicted is None else predicted, dtype=np.float64)
    if boxes.size and (boxes.ndim > 2 or boxes.shape[-1] != 4):
        raise InputError(f"boxes: found an array of shape {boxes.shape}, expected y0, x0, y1, x1 of each")
    return [(y0, x0, y1, x1) for y0, x0, y1, x1 in boxes.reshape(-1, 4).tolist()]


def _volume(lows: Sequence[float], highs: Sequence[float]) -> float:
    return prod(max(high - low, 0) for low, high in zip(lows, highs, strict=True))
