"""Compute the membrane filter: statistics of the sums along lines through each pixel.

A one-pixel line has about 20 nonzeros in a kernel of 27 x 27, most of them in runs of adjacent pixels. The
sums of runs are shared by lines: 236 additions instead of 602.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import scipy.ndimage

from hrvol.features.filters.kernels import GREY, Array, Plane

_LINE = 19

_ANGLES = range(0, 180, 6)

_BAND_PIXELS = {"numpy": 2**16, "cupy": 2**20}
"""Pixels of a band of rows in the membrane filter, which holds 30 versions of it: few for the cache of a CPU,
many to keep a GPU busy."""


@cache
def _line_taps() -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the pixels ``(dy, dx)`` of a line through the centre of a square, for every angle.

    The lines are those of the published method: one column of a 19 x 19 kernel, rotated with cubic splines
    into a larger kernel and rounded to 0 or 1. The centre of a kernel of even side is half a pixel off.
    """
    upright = np.zeros((_LINE, _LINE))
    upright[:, _LINE // 2] = 1
    lines = []
    for angle in _ANGLES:
        kernel = np.rint(scipy.ndimage.rotate(upright, angle))
        # A convolution mirrors its kernel.
        offsets = np.array(kernel.shape) // 2 - np.argwhere(kernel)
        lines.append(tuple((int(dy), int(dx)) for dy, dx in offsets))
    return tuple(lines)


@cache
def _line_runs() -> tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]:
    """Return each line as runs of adjacent pixels, along the axis that has fewer runs.

    A line is its axis (0: down), and of each run the first pixel ``(dy, dx)`` and the number of pixels.
    """
    lines = []
    for line in _line_taps():
        along = [_runs(line, axis) for axis in (0, 1)]
        axis = int(len(along[1]) < len(along[0]))
        lines.append((axis, along[axis]))
    return tuple(lines)


def _runs(line: Sequence[tuple[int, int]], axis: int) -> tuple[tuple[int, int, int], ...]:
    """Return the runs of a line's pixels along an axis: the first pixel and the number of each."""
    runs: list[tuple[int, int, int]] = []
    for dy, dx in sorted(line, key=lambda pixel: (pixel[1 - axis], pixel[axis])):
        if runs:
            top, left, count = runs[-1]
            if (dy, dx) == ((top + count, left) if axis == 0 else (top, left + count)):
                runs[-1] = (top, left, count + 1)
                continue
        runs.append((dy, dx, 1))
    return tuple(runs)


def _line_sums(xp: Any, strip: Array, reach: int) -> Array:
    """Return the sums ``(30, Y, X)`` along the lines through the pixels of a strip padded by ``reach``.

    Sums of grey levels of an 8-bit image are exact in any order.
    """
    height, width = (side - 2 * reach for side in strip.shape)
    of_runs = {(axis, 1): strip for axis in (0, 1)}
    needed = {(axis, count) for axis, runs in _line_runs() for *_, count in runs}
    for axis in (0, 1):
        total = strip
        for count in range(2, max(n for along, n in needed if along == axis) + 1):
            side = strip.shape[axis] - count + 1
            other = (slice(None),) * axis
            total = total[(*other, slice(side))] + strip[(*other, slice(count - 1, None))]
            if (axis, count) in needed:
                of_runs[axis, count] = total
    sums = xp.empty((len(_line_runs()), height, width), dtype=strip.dtype)
    for target, (axis, runs) in zip(sums, _line_runs(), strict=True):
        for number, (dy, dx, count) in enumerate(runs):
            top, left = reach + dy, reach + dx
            values = of_runs[axis, count][top : top + height, left : left + width]
            if number:
                target += values
            else:
                target[...] = values
    return sums


def line_reach() -> int:
    """Return the reach in pixels of the lines of the membrane filter along an axis."""
    return max(abs(step) for line in _line_taps() for offset in line for step in offset)


def membrane(plane: Plane) -> Array:
    """Return mean, maximum, minimum, sum, deviation and median of the sums along 30 lines; ``(6, Y, X)``."""
    xp, reach, lines = plane.xp, line_reach(), len(_ANGLES)
    height, width = plane.image.shape
    padded = plane.padded(plane.levels, reach)
    out = xp.empty((6, height, width), dtype=xp.float32)
    band = max(1, _BAND_PIXELS[xp.__name__] // width)
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        strip = padded[rows.start : rows.stop + 2 * reach]
        sums = _line_sums(xp, strip, reach)
        middle = lines // 2
        smallest, lower, upper, largest = _ranked(xp, sums, (0, middle - 1, middle, lines - 1))
        medians = (lower + upper) / 2
        everything = xp.sum(sums, axis=0)
        results = (
            everything / lines,
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
    """Return the steps of Batcher's odd-even merge sort that determine some ranks.

    A step compares positions ``a < b``; its flags tell whether the smaller value (at ``a``) and the larger
    one are needed later.
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

    Each step compares whole images. This is slightly faster than sorting each pixel on a CPU, and much faster
    with CuPy, which sorts pairs of pixel index and value.
    """
    values = list(images)
    for a, b, smaller, larger in _sorting_network(len(images), ranks):
        low = xp.minimum(values[a], values[b]) if smaller else values[a]
        values[b] = xp.maximum(values[a], values[b]) if larger else values[b]
        values[a] = low
    return tuple(values[rank] for rank in ranks)
