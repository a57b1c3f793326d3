"""Choose factors of classes with which the labels of a sample have given volume fractions.

The factors of :func:`hrvol.segment.class_weights.weighted` would be ratios of prior probabilities if a
model's probabilities were calibrated. Those of models that are trained on strokes are not, so the factors are
chosen by what they do: labels, not probabilities, have the fractions. The gradient of a convex function of
the log factors is labelled minus given shares (the dual of semi-discrete optimal transport), so there is one
solution, up to steps, and it is found by moving each log factor towards it (resilient propagation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import most_likely
from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.segment.class_weights import MOST_RATIO, Fractions, by_class, class_list, problem_of

CLOSE = 0.002
"""Largest difference between labelled and given shares that counts as none."""

_SMALL = 0.1
"""The same as a part of the given share: a rare class is matched more closely."""

_FACTOR_DIGITS, _SHARE_DIGITS = 4, 9

_MOST_STEPS = 400

_PATIENCE = 30  # steps without progress before the search ends

_PROGRESS = 0.01  # least decrease that counts of the sum of differences, each in units of its tolerance

_FASTER, _SLOWER = 1.3, 0.5  # where a difference keeps its sign, and where it changes

_FIRST, _LEAST, _MOST = 0.5, 1e-3, 50.0  # step in units of the log ratio of given to labelled share

_LONGEST = 3.0  # of that log ratio


@dataclass(frozen=True)
class FractionFactors:
    """Factors, and what they do to a sample.

    Attributes
    ----------
    factors
        One per class, with four digits; that of the most frequent one is 1.
    shares
        Shares of the sample that are labelled with them, one per class, with sum 1.
    """

    factors: tuple[float, ...]
    shares: tuple[float, ...]


def fraction_factors(
    probabilities: NDArray[np.floating], weights: NDArray[np.floating], fractions: Sequence[float]
) -> FractionFactors:
    """Return factors with which the labels of a sample have given fractions, or as close as they come.

    Parameters
    ----------
    probabilities
        ``(K, n)`` numbers in [0, 1] of sampled voxels, n at least 1. A voxel's label is the class with the
        largest product of probability and factor, the first one of equals.
    weights
        ``(n,)`` numbers of at least 0: how many voxels each of them stands for.
    fractions
        K numbers above 0 with sum 1.

    Returns
    -------
    FractionFactors
        Deterministic. The largest factor is less than :data:`MOST_RATIO` times the smallest.
    """
    target = np.asarray(fractions, np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(probabilities, np.float32))
    weights = np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)
    tolerance = np.maximum(np.minimum(CLOSE, _SMALL * target), weights.max())
    resolution = min(float(target.min()), 1e-6)
    reference = int(target.argmax())

    shift = np.zeros(len(target))
    step = np.full(len(target), _FIRST)
    before = np.zeros(len(target))
    best, best_loss, since = shift, math.inf, 0
    for _ in range(_MOST_STEPS):
        share = _shares(logs, weights, shift)
        differences = abs(share - target) / tolerance
        loss = float(differences.sum())
        since = 0 if loss < best_loss - _PROGRESS else since + 1
        if loss < best_loss:
            best, best_loss = shift, loss
        if since > _PATIENCE or differences.max() <= 1:
            break
        ratio = np.clip(np.log((target + resolution) / (share + resolution)), -_LONGEST, _LONGEST)
        turned = np.sign(ratio) * np.sign(before)
        step = np.clip(step * np.where(turned > 0, _FASTER, np.where(turned < 0, _SLOWER, 1)), _LEAST, _MOST)
        before = ratio
        shift = _limited(shift + step * ratio)
    factors = tuple(float(f"{factor:.{_FACTOR_DIGITS}g}") for factor in np.exp(best - best[reference]))
    return FractionFactors(factors, tuple(_shares(logs, weights, np.log(factors)).tolist()))


def fraction_shares(fractions: Fractions, classes: Sequence[ClassInfo]) -> tuple[float, ...]:
    """Return requested fractions as shares of 1, one per class in order of value.

    Fractions in per cent and as shares are the same request.

    Raises
    ------
    UsageError
        There is not one for each class, one is not finite or not above 0, or the ratio of two is above
        :data:`MOST_RATIO`; or two classes have the same name. The message lists the classes.
    """
    given = _in_order(fractions, classes)
    if (problem := problem_of(given, "fraction")) is not None:
        raise UsageError(f"fractions: {problem}, for the classes {class_list(classes)}")
    scaled = [fraction / max(given) for fraction in given]  # first, because the sum may overflow
    return tuple(float(f"{fraction / sum(scaled):.{_SHARE_DIGITS}g}") for fraction in scaled)


def _in_order(fractions: Fractions, classes: Sequence[ClassInfo]) -> list[float]:
    """Return one fraction per class, in order of value."""
    named = tuple(entry for entry in fractions if isinstance(entry, tuple))
    of_value = by_class(named, classes, "fractions")  # refuses classes of the same name, too
    if named:
        found = [of_value[info.value] for info in classes if info.value in of_value]
    else:
        found = [entry for entry in fractions if not isinstance(entry, tuple)]
    if len(found) != len(classes):
        raise UsageError(
            f"fractions: found {len(found)}, expected {len(classes)}, one for each of the classes"
            f" {class_list(classes)}"
        )
    return found


def _shares(
    logs: NDArray[np.float32], weights: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the weights that each class gets."""
    labels = most_likely(logs + shift[:, None].astype(np.float32), range(len(shift)))
    return np.bincount(labels, weights, len(shift)).astype(np.float64)


def _limited(shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log factors whose ratios a product in single precision survives, rounding included."""
    half = math.log(MOST_RATIO / 10) / 2
    middle = (shift.max() + shift.min()) / 2
    limited: NDArray[np.float64] = np.clip(shift - middle, -half, half)
    return limited
