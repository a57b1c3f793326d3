"""Measure how far pixels are from those that a classifier was trained on.

The features of the training pixels are described by a Gaussian: a few principal components, in which each
class has a mean and all share a covariance, and one variance for everything beside them (probabilistic PCA,
Tipping and Bishop, 1999). The distance of a pixel is its Mahalanobis distance to the nearest class, over the
square root of the number of features, so that it is about 1 for pixels like those of the training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 16
"""Most principal components of a record."""

_RIDGE = 1e-2  # of the mean variance, added to the covariance of classes: few strokes determine it badly


@dataclass(frozen=True, eq=False)
class FeatureCloud:
    """The features of pixels of some classes.

    Attributes
    ----------
    columns
        First and last + 1 of the columns of features that are described.
    centre, scale
        ``(C,)`` float32: subtracted from these columns, and what they are divided by.
    components
        ``(k, C)`` float32: orthonormal rows.
    whitening
        ``(k, k)`` float32: makes the covariance of classes in the components the identity.
    means
        ``(K, k)`` float32: of the classes, whitened.
    variance
        Of a feature beside the components.
    """

    columns: tuple[int, int]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]
    whitening: NDArray[np.float32]
    means: NDArray[np.float32]
    variance: float

    @classmethod
    def of(
        cls,
        features: NDArray[np.float32],
        labels: NDArray[np.integer],
        columns: slice,
        *,
        standardise: bool = False,
    ) -> FeatureCloud | None:
        """Describe the features of pixels.

        Parameters
        ----------
        features
            ``(n, all)`` float32.
        labels
            ``(n,)`` classes.
        columns
            Those to describe, as a slice with a start and a stop.
        standardise
            Divide columns by their standard deviations: for features without a common unit.

        Returns
        -------
        FeatureCloud or None
            ``None`` if the pixels do not differ beyond the components, or there are too few.
        """
        values = np.asarray(features[:, columns], np.float64)
        width = values.shape[1]
        count = min(COMPONENTS, width // 2, len(values) // 4)
        if count < 1:
            return None
        centre = values.mean(axis=0)
        scale = np.ones(width)
        if standardise:
            deviation = values.std(axis=0)
            scale = np.where(deviation > 0, deviation, 1.0)
        values = (values - centre) / scale
        spectrum, vectors = np.linalg.eigh(values.T @ values / len(values))  # in rising order
        variance = float(spectrum[:-count].mean())
        if not variance > 1e-9 * float(spectrum[-1]):
            return None
        components = vectors[:, : -count - 1 : -1].T
        inside = values @ components.T
        numbers, of_pixel = np.unique(labels, return_inverse=True)
        means = np.stack([inside[of_pixel == number].mean(axis=0) for number in range(len(numbers))])
        spread = inside - means[of_pixel]
        covariance = spread.T @ spread / len(spread)
        covariance += np.eye(count) * max(_RIDGE * np.trace(covariance) / count, 1e-12)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        middle, deviation, axes, white = (
            np.ascontiguousarray(part, np.float32) for part in (centre, scale, components, whitening)
        )
        of_classes = np.ascontiguousarray(means @ whitening.T, np.float32)
        return cls((columns.start, columns.stop), middle, deviation, axes, white, of_classes, variance)

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distances ``(n,)`` float32 of pixels with features ``(n, all)``."""
        start, stop = self.columns
        values = (features[:, start:stop] - self.centre) / self.scale
        inside = values @ self.components.T
        beside = np.maximum((values**2).sum(axis=1) - (inside**2).sum(axis=1), 0) / self.variance
        white = inside @ self.whitening.T
        nearest = np.min([((white - mean) ** 2).sum(axis=1) for mean in self.means], axis=0)
        found: NDArray[np.float32] = np.sqrt((nearest + beside) / values.shape[1]).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class DriftRecord:
    """What a model keeps of its training pixels, to tell places that are far from them.

    Attributes
    ----------
    cloud
        Their features.
    threshold
        Median distance of the pixels of a plane above which it is far.
    held_out
        The largest median distance of strokes that were held out, in a cross-validation.
    description
        What was held out, in words.
    """

    cloud: FeatureCloud
    threshold: float
    held_out: float
    description: str
