"""Model the positional component of deep features over a tile window, to be subtracted from them.

More than half of the variance of a transformer's tokens encodes their position in the window. If it stays,
clusters group positions, and neighbouring tiles disagree. The *position field* models it as a sum of Legendre
polynomials, fitted to pixels at different positions in two windows: the pixel is the same, so the difference
of its features is that of the field. Unlike a mean over tiles, the fit is independent of their content.

Scores of clusters ``2 mu.(F - M(p)) - |mu|^2`` stay linear, so tokens are still mapped before upsampling;
``2 mu.M(p)`` is a small map of its own (:meth:`PositionField.mapped`).

All products run on one thread, so that their bits do not depend on the number of cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from hrvol.segment.estimators.estimators import one_thread

MAX_DEGREE = 12
"""Highest degree of the polynomials."""

_RIDGE = 1e-4  # of the mean square of a term; keeps coefficients finite that the pairs do not determine


@dataclass(frozen=True, eq=False)
class PositionField:
    """The positional component of features.

    Attributes
    ----------
    degree
        Degree of the polynomials ``P_a(y) P_b(x)`` with ``0 < a + b <= degree``. There is no constant term,
        so the mean of the field over the window is 0.
    coefficients
        ``(T, C)`` float32 coefficients of these terms.
    """

    degree: int
    coefficients: NDArray[np.float32]

    def at(self, places: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the field ``(n, C)`` at positions ``(n, 2)``, see :func:`relative`."""
        with one_thread():
            values: NDArray[np.float32] = terms(places, self.degree).astype(np.float32) @ self.coefficients
        return values

    def mapped(
        self, weight: NDArray[np.float32], rows: slice, columns: slice, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return a linear map of the field over a rectangle of a window.

        Parameters
        ----------
        weight
            ``(K, C)`` matrix of the map.
        rows, columns
            Rectangle of the window, in pixels.
        shape
            Shape of the window, (y, x).

        Returns
        -------
        NDArray[np.float32]
            ``(y, x, K)``.
        """
        y, x = (
            legendre.legvander(relative(np.arange(span.start, span.stop), side), self.degree)
            for span, side in zip((rows, columns), shape, strict=True)
        )
        cube = np.zeros((self.degree + 1, self.degree + 1, len(weight)))
        with one_thread():
            coefficients = self.coefficients @ weight.T
            for (a, b), values in zip(_exponents(self.degree), coefficients, strict=True):
                cube[a, b] = values
            # Separable: first along x, for every degree of y.
            along_x = np.tensordot(x, cube, axes=(1, 1))
            mapped: NDArray[np.float32] = np.tensordot(y, along_x, axes=(1, 1)).astype(np.float32)
        return mapped


def relative(pixels: NDArray[np.integer], side: int) -> NDArray[np.float64]:
    """Return positions of pixels along an axis of a window: -1 at its lower border, 1 at its upper one."""
    return np.asarray((2 * pixels + 1) / side - 1, np.float64)


def n_terms(degree: int) -> int:
    """Return the number of terms of a degree."""
    return len(_exponents(degree))


def terms(places: NDArray[np.floating], degree: int) -> NDArray[np.float64]:
    """Return the polynomials ``(n, T)`` at positions ``(n, 2)`` (y, x) in -1..1."""
    y, x = (legendre.legvander(places[:, axis].astype(np.float64), degree) for axis in (0, 1))
    return np.stack([y[:, a] * x[:, b] for a, b in _exponents(degree)], axis=1)


def fit_field(
    differences: NDArray[np.float32],
    here: NDArray[np.floating],
    there: NDArray[np.floating],
    degree: int,
) -> PositionField:
    """Fit the field to pixels at different positions in two windows.

    Parameters
    ----------
    differences
        ``(n, C)`` features in the first window minus those in the second.
    here, there
        ``(n, 2)`` positions in the first and in the second window, see :func:`relative`.
    degree
        Degree of the polynomials.
    """
    design = terms(here, degree) - terms(there, degree)
    with one_thread():
        gram = design.T @ design
        gram += _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12) * np.eye(len(gram))
        coefficients = np.linalg.solve(gram, design.T @ differences.astype(np.float64))
    return PositionField(degree, coefficients.astype(np.float32))


def _exponents(degree: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a) if a + b > 0]
