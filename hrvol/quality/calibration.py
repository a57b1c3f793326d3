"""Calibrate probabilities: how often they are right, and the temperature with which they fit best.

A classifier is calibrated if of the pixels that it labels with a probability of 0.8, four of five are right.
The expected calibration error (ECE) is the mean difference of both over bins of the probability of the most
likely class. A temperature divides the logarithms of the probabilities (Guo et al., ICML 2017): above 1 it
makes them less sure, below 1 surer, and the most likely class stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hrvol.arrays import Array, added_up, namespace, where_is

BINS = 15
"""Bins of confidence of the calibration error."""

COLDEST, HOTTEST = 0.1, 10.0
"""Bounds of a temperature that is fitted."""

_LEAST = 1e-12  # probability whose logarithm is taken in place of a smaller one


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pixels by the probability of their most likely class; those of several sets can be added.

    Attributes
    ----------
    counts
        ``(BINS,)`` float64: pixels, or their weights, in equal bins of that probability from 0 to 1.
    confidence
        ``(BINS,)`` float64: sum of the probabilities.
    right
        ``(BINS,)`` float64: pixels whose most likely class is the true one.
    """

    counts: NDArray[np.float64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(
        cls, probabilities: NDArray[Any], truth: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> Reliability:
        """Count pixels.

        Parameters
        ----------
        probabilities
            ``(K, ...)``, in 0..1.
        truth
            ``(...)`` numbers of the true classes, 0..K-1.
        weights
            ``(...)`` weights of the pixels; ``None``: 1.
        """
        confidence = probabilities.max(axis=0).ravel()
        right = (probabilities.argmax(axis=0) == truth).ravel()
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        of_pixel = np.ones(confidence.shape) if weights is None else weights.ravel()
        counts, sums, hits = (
            np.bincount(bins, of_pixel * values, BINS).astype(np.float64)
            for values in (np.float64(1), confidence, right)
        )
        return cls(counts, sums, hits)

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.counts + other.counts, self.confidence + other.confidence, self.right + other.right
        )

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1; 0 without pixels."""
        total = self.counts.sum()
        return float(np.abs(self.confidence - self.right).sum() / total) if total else 0.0

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean probability, share of right pixels, and share of all pixels, of the bins that have some."""
        used = self.counts > 0
        counts = self.counts[used]
        return self.confidence[used] / counts, self.right[used] / counts, counts / max(counts.sum(), 1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A temperature that was fitted on held-out strokes, and how well it does on others.

    Attributes
    ----------
    temperature
        Logarithms of probabilities are divided by it.
    before, after
        Reliability on the held-out strokes; after with the temperatures that were fitted without each fold.
    pixels
        How many were held out.
    held_out
        What was kept together, in words.
    """

    temperature: float
    before: Reliability
    after: Reliability
    pixels: int
    held_out: str


def tempered(probabilities: Array, temperature: float) -> Array:
    """Return probabilities ``(K, ...)`` of any library whose logarithms are divided by a temperature."""
    if temperature == 1:
        return probabilities
    xp = namespace(probabilities)
    least = xp.asarray(_LEAST, dtype=probabilities.dtype, device=where_is(probabilities))
    powers = xp.maximum(probabilities, least) ** (1 / temperature)
    return powers / added_up(powers)


def temperature_for(
    probabilities: NDArray[Any], target: NDArray[Any], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the temperature with the least cross-entropy.

    Parameters
    ----------
    probabilities
        ``(K, n)``.
    target
        ``(K, n)`` shares of the true classes, with sum 1: those of a teacher, or 1 for the true class.
    weights
        ``(n,)`` weights of the pixels; ``None``: all count the same.

    Returns
    -------
    float
        :data:`COLDEST` to :data:`HOTTEST`, with four decimals; above 1 where probabilities are too sure.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    target = target.astype(np.float64)
    mean: Callable[[Any], Any] = (
        np.mean if weights is None else lambda cost: np.average(cost, weights=weights)
    )

    def cost(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(mean(np.logaddexp.reduce(scaled, axis=0) - (target * scaled).sum(axis=0)))

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    return float(round(np.exp(minimize_scalar(cost, bounds=bounds, method="bounded").x), 4))
