"""Taking off features what they say about the place in the window instead of about the pixel.

More than half of the variance of a transformer's tokens tells where in the window they are. Left in,
clusters are places, and neighbouring tiles disagree. Here it is a smooth *position field* over the window, a
sum of Legendre polynomials, fitted to pixels that two windows show at different places: the pixel is the
same, so what differs is the field. What the windows show does not matter, as it would for a mean over tiles.

The field is subtracted. Scores of clusters ``2 mu.(F - M(p)) - |mu|^2`` stay linear, so tokens are still
mapped before they are spread; ``2 mu.M(p)`` is a small map of its own (:meth:`PositionField.mapped`).

All products run on one thread: how many cores there are must not change a bit of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from hrvol.segment.estimators.estimators import one_thread

_RIDGE = 1e-4  # of the mean square of a term: keeps terms finite that no pair tells apart


@dataclass(frozen=True, eq=False)
class PositionField:
    """What features say about the place in the window.

    Attributes
    ----------
    degree
        Of the polynomials: terms ``P_a(y) P_b(x)`` with ``0 < a + b <= degree``. None is constant, so the
        mean of the field over the window is 0.
    coefficients
        ``(T, C)`` float32, of these terms.
    """

    degree: int
    coefficients: NDArray[np.float32]

    def at(self, places: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the field ``(n, C)`` at places ``(n, 2)``, see :func:`relative`."""
        with one_thread():
            values: NDArray[np.float32] = terms(places, self.degree).astype(np.float32) @ self.coefficients
        return values

    def mapped(
        self, weight: NDArray[np.float32], rows: slice, columns: slice, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return a linear map of the field over a part of a window.

        Parameters
        ----------
        weight
            ``(K, C)``.
        rows, columns
            Which pixels of the window.
        shape
            Of the window, (y, x).

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
            short = self.coefficients @ weight.T
            for (a, b), values in zip(_powers(self.degree), short, strict=True):
                cube[a, b] = values
            # Separable: first along x, for every power of y.
            along = np.tensordot(x, cube, axes=(1, 1))
            found: NDArray[np.float32] = np.tensordot(y, along, axes=(1, 1)).astype(np.float32)
        return found


def relative(pixels: NDArray[np.integer], side: int) -> NDArray[np.float64]:
    """Return where pixels lie along an axis of a window: -1 at its low border, 1 at its high one."""
    return np.asarray((2 * pixels + 1) / side - 1, np.float64)


def n_terms(degree: int) -> int:
    """Return the number of terms of a degree."""
    return len(_powers(degree))


def terms(places: NDArray[np.floating], degree: int) -> NDArray[np.float64]:
    """Return the polynomials ``(n, T)`` at places ``(n, 2)`` (y, x) in -1..1."""
    y, x = (legendre.legvander(places[:, axis].astype(np.float64), degree) for axis in (0, 1))
    return np.stack([y[:, a] * x[:, b] for a, b in _powers(degree)], axis=1)


def fit_field(
    differences: NDArray[np.float32],
    here: NDArray[np.floating],
    there: NDArray[np.floating],
    degree: int,
) -> PositionField:
    """Fit the field to pixels that two windows show at different places.

    Parameters
    ----------
    differences
        ``(n, C)`` features in the first window minus those in the second.
    here, there
        ``(n, 2)`` places in the first and in the second window, see :func:`relative`.
    degree
        Of the polynomials.
    """
    apart = terms(here, degree) - terms(there, degree)
    with one_thread():
        gram = apart.T @ apart
        gram += _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12) * np.eye(len(gram))
        found = np.linalg.solve(gram, apart.T @ differences.astype(np.float64))
    return PositionField(degree, found.astype(np.float32))


def _powers(degree: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a) if a + b > 0]
