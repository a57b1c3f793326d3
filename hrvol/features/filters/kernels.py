"""The filters of :mod:`hrvol.features.filters.bank`, each from one image to arrays of its size.

All are local: a pixel's value depends on pixels up to a reach that is known beforehand, and is computed in
an order that does not depend on where the pixel lies.

Sums over discs and lines are sums of shifted copies. A disc of radius r then costs 4r additions instead of
the 3 r^2 of a footprint, and a one-pixel line has some 20 nonzeros in a kernel of 27 x 27.

Only functions that NumPy / scipy.ndimage and CuPy / cupyx.scipy.ndimage have in common are used on images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.ndimage

Array = Any
"""A :class:`numpy.ndarray` or a :class:`cupy.ndarray`."""

GREY = 255
"""Grey levels per unit. Work that is exact on integers is done in grey levels: k/255 is rounded, and in an
8-bit image its second differences would be noise about zero where the image has none."""

_TRUNCATE = 4.0
"""Gaussians reach this many standard deviations."""

BLUR = 0.4
"""Standard deviation of ImageJ's Gaussian blur per unit of its radius, which is what Weka calls sigma."""

_LINE = 19

_ANGLES = range(0, 180, 6)

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

_BAND_PIXELS = {"numpy": 2**16, "cupy": 2**20}
"""The membrane filter works on bands of rows of about so many pixels, of which it holds 30 versions: few for
the cache of a CPU, many for a GPU, which would wait for the next step."""


@dataclass(frozen=True)
class Plane:
    """One image ``(Y, X)`` in [0, 1], the modules its arrays belong to, and what filters share."""

    xp: Any
    ndi: Any
    image: Array

    @cached_property
    def levels(self) -> Array:
        """The image in grey levels 0..255, float32; whole numbers if it came from 8 bits."""
        return self.image * GREY

    @cached_property
    def bytes(self) -> Array:
        """The image rounded to 256 grey levels, uint8."""
        return self.xp.rint(self.xp.clip(self.levels, 0, GREY)).astype(self.xp.uint8)

    @cached_property
    def _blurred(self) -> dict[float, Array]:
        return {}

    def gaussian(self, sigma: float) -> Array:
        """Return the blurred image, computed once per scale."""
        if sigma not in self._blurred:
            self._blurred[sigma] = self.smooth(self.image, BLUR * sigma)
        return self._blurred[sigma]

    def smooth(self, image: Array, sigma: float) -> Array:
        """Return ``image`` filtered with a Gaussian of standard deviation ``sigma``."""
        return self.ndi.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATE)

    def padded(self, image: Array, width: int) -> Array:
        """Return ``image`` continued by its mirror image on all sides, however small it is."""
        return self.xp.pad(image, width, mode="symmetric")


def gaussian_reach(sigma: float) -> int:
    """Return how far a Gaussian of standard deviation ``sigma`` reaches, in pixels."""
    return int(_TRUNCATE * sigma + 0.5)


def sobel(plane: Plane, image: Array) -> Array:
    """Root mean square of the two Sobel derivatives (per pixel)."""
    down, across = (plane.ndi.sobel(image, axis=axis, mode="reflect") / 8 for axis in (0, 1))
    return plane.xp.sqrt((down * down + across * across) / 2)


def _gradient(plane: Plane, image: Array, axis: int) -> Array:
    """Central differences, one-sided at the border; zero along an axis of one pixel."""
    if image.shape[axis] == 1:
        return plane.xp.zeros_like(image)
    return plane.xp.gradient(image, axis=axis)


def _symmetric_eigenvalues(plane: Plane, a: Array, b: Array, d: Array) -> tuple[Array, Array]:
    """Eigenvalues of [[a, b], [b, d]] at every pixel, larger first."""
    middle, spread = (a + d) / 2, (a - d) / 2
    radius = plane.xp.sqrt(spread * spread + b * b)
    return middle + radius, middle - radius


def hessian(plane: Plane, image: Array) -> tuple[Array, ...]:
    """Module, trace, determinant and eigenvalues of the matrix of second differences."""
    down, across = _gradient(plane, image, 0), _gradient(plane, image, 1)
    a, b, d = _gradient(plane, down, 0), _gradient(plane, down, 1), _gradient(plane, across, 1)
    module = plane.xp.sqrt(a * a + b * b + d * d)
    return module, a + d, a * d - b * b, *_symmetric_eigenvalues(plane, a, b, d)


def structure(plane: Plane, sigma: float) -> tuple[Array, Array]:
    """Eigenvalues of the structure tensor, whose products of derivatives are averaged over ``sigma``."""
    down, across = (plane.ndi.sobel(plane.image, axis=axis, mode="nearest") / 8 for axis in (0, 1))
    a, b, d = (plane.smooth(product, sigma) for product in (down * down, down * across, across * across))
    larger, smaller = _symmetric_eigenvalues(plane, a, b, d)
    # The tensor is positive semi-definite; rounding may say otherwise.
    return larger, plane.xp.maximum(smaller, 0)


def derivatives(plane: Plane, sigma: float) -> Iterator[Array]:
    """Derivatives of order 2..5 along both axes of the image blurred by ``sigma``, times sigma^(2 order).

    Without that factor they would fall as sigma^-10. The kernels are Hermite polynomials times a Gaussian
    of x / sigma, which contain it, so that no small or large number appears on the way.
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

    Rows of growing half-width are built from one another, and each is used for the rows of the disc that
    have its width.

    Parameters
    ----------
    padded
        ``(Y + 2 radius, X + 2 radius)``.
    radius
        In pixels; a pixel at exactly this distance belongs to the disc.
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
            part = rows[radius + dy : radius + dy + height]
            if dy:
                part = combine(rows[radius - dy : radius - dy + height], part)
            total = part if total is None else combine(total, part)
    return total


def mean(plane: Plane, sigma: float) -> Array:
    """Mean within the disc."""
    radius = disc_radius(sigma)
    total = _over_disc(plane.padded(plane.levels, radius), radius, plane.xp.add)
    return total / (GREY * disc_area(radius))


def extreme(plane: Plane, sigma: float, combine: Callable[[Array, Array], Array]) -> Array:
    """Minimum or maximum within the disc, whichever ``combine`` takes of two arrays."""
    radius = disc_radius(sigma)
    return _over_disc(plane.padded(plane.image, radius), radius, combine)


def _counts(plane: Plane, condition: Array, radius: int) -> Array:
    """How many pixels of the disc meet a condition, given padded; uint16 (a disc of radius 64 has 12 853)."""
    return _over_disc(condition.astype(plane.xp.uint16), radius, plane.xp.add)


def median(plane: Plane, sigma: float) -> Array:
    """Median of the image rounded to 256 grey levels: the number of levels that less than half reach."""
    radius = disc_radius(sigma)
    half = disc_area(radius) // 2
    padded = plane.padded(plane.bytes, radius)
    lowest, highest = int(plane.bytes.min()), int(plane.bytes.max())
    level = plane.xp.full(plane.image.shape, lowest, dtype=plane.xp.float32)
    for grey in range(lowest, highest):
        level += _counts(plane, padded <= grey, radius) <= half
    return level / GREY


def entropy(plane: Plane, sigma: float) -> Iterator[Array]:
    """Shannon entropy, in bits, of the histogram within the disc, with 32, 64 and 128 bins."""
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
    """The eight pixels at the distance ``sigma``, rounded, along rows, columns and diagonals."""
    distance = neighbour_distance(sigma)
    padded = plane.padded(plane.image, distance)
    for direction in NEIGHBOURS.values():
        yield _shifted(padded, distance, *(distance * step for step in direction))


def neighbour_distance(sigma: float) -> int:
    """Return the distance in whole pixels at which neighbours of scale ``sigma`` are taken."""
    return max(1, round(sigma))


def _shifted(padded: Array, width: int, dy: int, dx: int) -> Array:
    """Return, at every pixel of an image padded by ``width``, the pixel ``(dy, dx)`` away."""
    rows, columns = padded.shape
    return padded[width + dy : rows - width + dy, width + dx : columns - width + dx]


@cache
def _line_taps() -> tuple[tuple[tuple[int, int], ...], ...]:
    """Pixels ``(dy, dx)`` that a line through the middle of a square covers, for every angle.

    The lines are those of the published method: one column of a 19 x 19 kernel, turned by cubic splines
    into a larger kernel and rounded to 0 or 1. A kernel of even side has its centre half a pixel off.
    """
    upright = np.zeros((_LINE, _LINE))
    upright[:, _LINE // 2] = 1
    lines = []
    for angle in _ANGLES:
        kernel = np.rint(scipy.ndimage.rotate(upright, angle))
        # A convolution sees its kernel from the other side.
        offsets = np.array(kernel.shape) // 2 - np.argwhere(kernel)
        lines.append(tuple((int(dy), int(dx)) for dy, dx in offsets))
    return tuple(lines)


def line_reach() -> int:
    """Return how far the lines of the membrane filter reach along an axis, in pixels."""
    return max(abs(step) for line in _line_taps() for offset in line for step in offset)


def membrane(plane: Plane) -> Array:
    """Mean, maximum, minimum, sum, deviation and median of the sums along 30 lines; ``(6, Y, X)``."""
    xp, reach, lines = plane.xp, line_reach(), _line_taps()
    height, width = plane.image.shape
    padded = plane.padded(plane.levels, reach)
    out = xp.empty((6, height, width), dtype=xp.float32)
    band = max(1, _BAND_PIXELS[xp.__name__] // width)
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        window = padded[rows.start : rows.stop + 2 * reach]
        sums = xp.zeros((len(lines), rows.stop - rows.start, width), dtype=xp.float32)
        for total, line in zip(sums, lines, strict=True):
            for dy, dx in line:
                total += _shifted(window, reach, dy, dx)
        middle = len(lines) // 2
        smallest, lower, upper, largest = _ranked(xp, sums, (0, middle - 1, middle, len(lines) - 1))
        medians = (lower + upper) / 2
        everything = xp.sum(sums, axis=0)
        results = (
            everything / len(lines),
            largest,
            smallest,
            everything,
            xp.std(sums, axis=0),
            medians,
        )
        for channel, result in zip(out, results, strict=True):
            channel[rows] = result / GREY
    return out


@cache
def _sorting_network(count: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return the steps of Batcher's odd-even merge sort that some ranks depend on.

    Each compares places ``a < b``, and says whether the smaller value, at ``a``, is needed, and the larger.
    """
    steps = []
    run = 1
    while run < count:
        apart = run
        while apart:
            for start in range(apart % run, count - apart, 2 * apart):
                for a in range(start, min(start + apart, count - apart)):
                    if a // (2 * run) == (a + apart) // (2 * run):
                        steps.append((a, a + apart))
            apart //= 2
        run *= 2
    needed, kept = set(ranks), []
    for a, b in reversed(steps):
        if a in needed or b in needed:
            kept.append((a, b, a in needed, b in needed))
            needed |= {a, b}
    return tuple(reversed(kept))


def _ranked(xp: Any, images: Array, ranks: tuple[int, ...]) -> tuple[Array, ...]:
    """Return, at every pixel, the values of some ranks (0: the smallest) among images ``(n, Y, X)``.

    Whole images are compared at each step. On a CPU that takes somewhat less time than to sort at every
    pixel; CuPy sorts pairs of a pixel's number and its value, many times as much work.
    """
    values = list(images)
    for a, b, smaller, larger in _sorting_network(len(images), ranks):
        low = xp.minimum(values[a], values[b]) if smaller else values[a]
        values[b] = xp.maximum(values[a], values[b]) if larger else values[b]
        values[a] = low
    return tuple(values[rank] for rank in ranks)


def bilateral(plane: Plane) -> Iterator[Array]:
    """Mean of the pixels within 5 and 10 px whose grey level differs by no more than 50 and 100."""
    xp, reach = plane.xp, max(BILATERAL_RADII)
    padded = plane.padded(plane.levels, reach)
    # The deviation from the middle pixel is summed: it stays small, and is zero in a flat image.
    sums = [xp.zeros_like(plane.levels) for _ in BILATERAL_RANGES]
    counts = [xp.zeros_like(plane.levels) for _ in BILATERAL_RANGES]
    inner = -1
    for radius in BILATERAL_RADII:
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if not inner < dy * dy + dx * dx <= radius * radius:
                    continue
                deviation = _shifted(padded, reach, dy, dx) - plane.levels
                distance = xp.abs(deviation)
                for total, count, limit in zip(sums, counts, BILATERAL_RANGES, strict=True):
                    near = distance <= limit
                    total += deviation * near
                    count += near
        for total, count in zip(sums, counts, strict=True):
            yield (plane.levels + total / count) / GREY
        inner = radius * radius
