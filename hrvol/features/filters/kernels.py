"""Implement the filters of :mod:`hrvol.features.filters.bank`, each from one image to arrays of its size.

All filters are local: the value of a pixel depends on pixels up to a fixed reach, and the order of its
computation does not depend on its position.

Sums over discs are sums of shifted copies: a disc of radius r costs 4r additions instead of 3 r^2 with a
footprint.

Images are processed only with functions that both NumPy / SciPy and CuPy have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = Any
"""A :class:`numpy.ndarray` or a :class:`cupy.ndarray`."""

GREY = 255
"""Grey levels per unit. Computations that are exact on integers use grey levels: k/255 is rounded, and the
second differences of an 8-bit image would be noise about zero."""

_TRUNCATE = 4.0
"""Reach of Gaussians in standard deviations."""

BLUR = 0.4
"""Standard deviation of ImageJ's Gaussian blur per unit of its radius, which Weka calls sigma."""

BILATERAL_RADII = (5, 10)

BILATERAL_RANGES = (50, 100)

DERIVATIVE_ORDERS = (2, 3, 4, 5)

NEIGHBOURS = {
    "up_left": (-1, -1),
    "up": (-1, 0),
    "up_right": (-1, 1),
    "left": (0, -1),
    "right": (0, 1),
    "down_left": (1, -1),
    "down": (1, 0),
    "down_right": (1, 1),
}


@dataclass(frozen=True)
class Plane:
    """One image ``(Y, X)`` in [0, 1], the modules of its array library, and results that filters share."""

    xp: Any
    ndi: Any
    image: Array

    @cached_property
    def levels(self) -> Array:
        """The image in grey levels 0..255, float32; integers if it was an 8-bit image."""
        return self.image * GREY

    @cached_property
    def bytes(self) -> Array:
        """The image rounded to 256 grey levels, uint8."""
        return self.xp.rint(self.xp.clip(self.levels, 0, GREY)).astype(self.xp.uint8)

    @cached_property
    def _blurred(self) -> dict[float, Array]:
        return {}

    def gaussian(self, sigma: float) -> Array:
        """Return the blurred image; it is computed once per scale."""
        if sigma not in self._blurred:
            self._blurred[sigma] = self.smooth(self.image, BLUR * sigma)
        return self._blurred[sigma]

    def smooth(self, image: Array, sigma: float) -> Array:
        """Return ``image`` filtered with a Gaussian of standard deviation ``sigma``."""
        return self.ndi.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATE)

    def padded(self, image: Array, width: int) -> Array:
        """Return ``image`` padded by its mirror image on all sides."""
        return self.xp.pad(image, width, mode="symmetric")


def gaussian_reach(sigma: float) -> int:
    """Return the reach in pixels of a Gaussian of standard deviation ``sigma``."""
    return int(_TRUNCATE * sigma + 0.5)


def sobel(plane: Plane, image: Array) -> Array:
    """Return the root mean square of the two Sobel derivatives (per pixel)."""
    down, across = (plane.ndi.sobel(image, axis=axis, mode="reflect") / 8 for axis in (0, 1))
    return plane.xp.sqrt((down * down + across * across) / 2)


def _gradient(plane: Plane, image: Array, axis: int) -> Array:
    """Return central differences, one-sided at the border; zero along an axis of one pixel."""
    if image.shape[axis] == 1:
        return plane.xp.zeros_like(image)
    return plane.xp.gradient(image, axis=axis)


def _symmetric_eigenvalues(plane: Plane, a: Array, b: Array, d: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of [[a, b], [b, d]] at every pixel, the larger one first."""
    middle, spread = (a + d) / 2, (a - d) / 2
    radius = plane.xp.sqrt(spread * spread + b * b)
    return middle + radius, middle - radius


def hessian(plane: Plane, image: Array) -> tuple[Array, ...]:
    """Return module, trace, determinant and eigenvalues of the matrix of second differences."""
    down, across = _gradient(plane, image, 0), _gradient(plane, image, 1)
    a, b, d = _gradient(plane, down, 0), _gradient(plane, down, 1), _gradient(plane, across, 1)
    module = plane.xp.sqrt(a * a + b * b + d * d)
    return module, a + d, a * d - b * b, *_symmetric_eigenvalues(plane, a, b, d)


def structure(plane: Plane, sigma: float) -> tuple[Array, Array]:
    """Return the eigenvalues of the structure tensor, smoothed with ``sigma``."""
    down, across = (plane.ndi.sobel(plane.image, axis=axis, mode="nearest") / 8 for axis in (0, 1))
    a, b, d = (plane.smooth(product, sigma) for product in (down * down, down * across, across * across))
    larger, smaller = _symmetric_eigenvalues(plane, a, b, d)
    # The tensor is positive semi-definite; rounding errors may make an eigenvalue negative.
    return larger, plane.xp.maximum(smaller, 0)


def derivatives(plane: Plane, sigma: float) -> Iterator[Array]:
    """Yield derivatives of order 2..5 along both axes, blurred by ``sigma`` and times sigma^(2 order).

    The factor keeps them from falling as sigma^-10. The kernels are Hermite polynomials times a Gaussian of
    x / sigma, which include the factor, so that no very small or large numbers occur.
    """
    reach = gaussian_reach(sigma)
    x = np.arange(-reach, reach + 1) / sigma
    bell = np.exp(-x * x / 2)
    bell /= bell.sum()
    for order in DERIVATIVE_ORDERS:
        weights = plane.xp.asarray(np.polynomial.hermite_e.hermeval(x, [0] * order + [1]) * bell)
        result = plane.image
        for axis in (0, 1):
            result = plane.ndi.correlate1d(result, weights, axis=axis, mode="nearest")
        yield result


def disc_radius(sigma: float) -> int:
    """Return the radius in whole pixels of the disc of scale ``sigma``."""
    return math.ceil(sigma)


def disc_area(radius: int) -> int:
    """Return the number of pixels in a disc; always odd."""
    return sum(2 * math.isqrt(radius * radius - dy * dy) + 1 for dy in range(-radius, radius + 1))


def _over_disc(padded: Array, radius: int, combine: Callable[[Array, Array], Array]) -> Array:
    """Combine the pixels within ``radius`` of every pixel.

    Rows of increasing width are built from one another, and each is used for the rows of the disc of that
    width.

    Parameters
    ----------
    padded
        ``(Y + 2 radius, X + 2 radius)``.
    radius
        In pixels; pixels at exactly this distance are part of the disc.
    combine
        A commutative ufunc: add, minimum or maximum.

    Returns
    -------
    Array
        ``(Y, X)``, dtype of ``padded``.
    """
    height, width = (side - 2 * radius for side in padded.shape)
    rows = padded[:, radius : radius + width]
    total = None
    for half in range(radius + 1):
        if half:
            left = padded[:, radius - half : radius - half + width]
            right = padded[:, radius + half : radius + half + width]
            rows = combine(rows, combine(left, right))
        for dy in range(radius + 1):
            if math.isqrt(radius * radius - dy * dy) != half:
                continue
            row = rows[radius + dy : radius + dy + height]
            if dy:
                row = combine(rows[radius - dy : radius - dy + height], row)
            total = row if total is None else combine(total, row)
    return total


def mean(plane: Plane, sigma: float) -> Array:
    """Return the mean within the disc."""
    radius = disc_radius(sigma)
    total = _over_disc(plane.padded(plane.levels, radius), radius, plane.xp.add)
    return total / (GREY * disc_area(radius))


def extreme(plane: Plane, sigma: float, combine: Callable[[Array, Array], Array]) -> Array:
    """Return the minimum or maximum within the disc; ``combine`` is that ufunc."""
    radius = disc_radius(sigma)
    return _over_disc(plane.padded(plane.image, radius), radius, combine)


def _counts(plane: Plane, condition: Array, radius: int) -> Array:
    """Count the pixels of the disc that meet a padded condition; uint16, as radius 64 has 12 853 pixels."""
    return _over_disc(condition.astype(plane.xp.uint16), radius, plane.xp.add)


def median(plane: Plane, sigma: float) -> Array:
    """Return the median of the image rounded to 256 grey levels, counted level by level."""
    radius = disc_radius(sigma)
    half = disc_area(radius) // 2
    padded = plane.padded(plane.bytes, radius)
    lowest, highest = int(plane.bytes.min()), int(plane.bytes.max())
    level = plane.xp.full(plane.image.shape, lowest, dtype=plane.xp.float32)
    for grey in range(lowest, highest):
        level += _counts(plane, padded <= grey, radius) <= half
    return level / GREY


def entropy(plane: Plane, sigma: float) -> Iterator[Array]:
    """Yield the Shannon entropy in bits of the histogram within the disc, with 32, 64 and 128 bins."""
    xp, radius = plane.xp, disc_radius(sigma)
    area = disc_area(radius)
    share = xp.arange(1, area + 1, dtype=xp.float32) / area
    surprise = xp.concatenate([xp.zeros(1, xp.float32), -share * xp.log2(share)])
    padded = plane.padded(plane.bytes // 2, radius)
    bits = xp.zeros((3, *plane.image.shape), dtype=xp.float32)
    for start in range(0, 128, 4):
        fine = [_counts(plane, padded == start + bin_, radius) for bin_ in range(4)]
        middle = [fine[0] + fine[1], fine[2] + fine[3]]
        for total, bins in zip(bits, ([middle[0] + middle[1]], middle, fine), strict=True):
            for count in bins:
                total += surprise[count]
    yield from bits


def neighbours(plane: Plane, sigma: float) -> Iterator[Array]:
    """Yield the eight pixels at the rounded distance ``sigma`` along rows, columns and diagonals."""
    distance = neighbour_distance(sigma)
    padded = plane.padded(plane.image, distance)
    for direction in NEIGHBOURS.values():
        yield shifted(padded, distance, *(distance * step for step in direction))


def neighbour_distance(sigma: float) -> int:
    """Return the distance in whole pixels of the neighbours of scale ``sigma``."""
    return max(1, round(sigma))


def shifted(padded: Array, width: int, dy: int, dx: int) -> Array:
    """Return, at every pixel of an image padded by ``width``, the pixel ``(dy, dx)`` away."""
    rows, columns = padded.shape
    return padded[width + dy : rows - width + dy, width + dx : columns - width + dx]


def bilateral(plane: Plane) -> Iterator[Array]:
    """Yield the mean of the pixels within 5 and 10 px whose grey level differs by at most 50 and 100."""
    xp, reach = plane.xp, max(BILATERAL_RADII)
    padded = plane.padded(plane.levels, reach)
    # Deviations from the central pixel are summed: they are small, and zero in a flat image.
    sums = [xp.zeros_like(plane.levels) for _ in BILATERAL_RANGES]
    counts = [xp.zeros_like(plane.levels) for _ in BILATERAL_RANGES]
    inner = -1
    for radius in BILATERAL_RADII:
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if not inner < dy * dy + dx * dx <= radius * radius:
                    continue
                deviation = shifted(padded, reach, dy, dx) - plane.levels
                distance = xp.abs(deviation)
                for total, count, limit in zip(sums, counts, BILATERAL_RANGES, strict=True):
                    near = distance <= limit
                    total += deviation * near
                    count += near
        for total, count in zip(sums, counts, strict=True):
            yield (plane.levels + total / count) / GREY
        inner = radius * radius
