"""Fit a PCA to feature vectors and project features onto its components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError


@dataclass(frozen=True, eq=False)
class Projection:
    """A PCA of standardised features.

    Attributes
    ----------
    mean, scale
        ``(C,)`` float32: subtracted from each channel, and its divisor.
    components
        ``(C, K)`` float32, orthonormal columns in decreasing order of variance.
    explained
        ``(K,)`` float64: share of the variance of the standardised features, in 0..1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]
    explained: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project features ``(n, C)`` to ``(n, K)`` float32."""
        projected: NDArray[Any] = ((features - self.mean) / self.scale) @ self.components
        return projected.astype(np.float32, copy=False)


def fit_projection(samples: NDArray[np.float32], components: int) -> Projection:
    """Fit a PCA.

    Channels are standardised first, because deep and classical ones have different units. The sign of each
    component makes its largest loading positive, so that the same samples give the same axes.

    Parameters
    ----------
    samples
        ``(n, C)`` float32.
    components
        Number of components K.

    Returns
    -------
    Projection
        The fitted PCA.

    Raises
    ------
    UsageError
        K is not in 1..C.
    """
    channels = samples.shape[1]
    if not 1 <= components <= channels:
        raise UsageError(f"components: expected 1..{channels} for these features, got {components}")
    exact = samples.astype(np.float64)
    mean, scale = exact.mean(axis=0), exact.std(axis=0)
    scale[scale == 0] = 1.0  # a constant channel stays zero
    standard = (exact - mean) / scale
    variances, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    vectors = vectors[:, ::-1][:, :components]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(components)] < 0, -1.0, 1.0)
    explained = np.maximum(variances[::-1], 0.0) / max(float(variances.sum()), 1e-12)
    return Projection(
        mean.astype(np.float32), scale.astype(np.float32), vectors.astype(np.float32), explained[:components]
    )
