"""Decide whether a student should see neighbouring planes, by how much planes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrvol.segment.student.spec import Dimensions
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.volume import Volume

Wish = Literal["auto", "on", "off"]

NEAR = 2.0
"""Neighbouring planes that differ no more than pixels so far apart are seen as a volume."""

FAR = 4.0
"""Neighbouring planes that differ more than pixels so far apart are seen as single planes."""

FEWEST = 24
"""Fewest planes of a volume that is seen as one."""

_PLACES, _PLANES, _SIDE = 16, 5, 192


def apparent_spacing(volume: Volume, seed: int, region: Box | None = None) -> float:
    """Return how far apart neighbouring planes look, in pixels.

    Grey values of neighbouring planes are compared: their mean squared difference is that of pixels of one
    plane at the distance returned (the variograms along z and in the plane are equal there). So serial
    sections that jump are recognised whatever the metadata are.

    Returns
    -------
    float
        At least 0; about 1 for cubic voxels, 32 at most; infinity for a single plane.
    """
    region = whole(volume.shape) if region is None else region
    depth = region[0].stop - region[0].start
    if depth < 2:
        return float("inf")
    rng = np.random.default_rng([seed, 5])
    across: list[float] = []
    within: list[NDArray[np.float64]] = []
    for _ in range(_PLACES):
        spans = []
        for span, side in zip(region, (_PLANES, _SIDE, _SIDE), strict=True):
            length = min(side, span.stop - span.start)
            start = int(rng.integers(span.start, span.stop - length + 1))
            spans.append(slice(start, start + length))
        values = volume.read((spans[0], spans[1], spans[2])).astype(np.float64)
        across.append(float(np.square(np.diff(values, axis=0)).mean()))
        within.append(_variogram(values))
    curve = np.maximum.accumulate(np.mean(within, axis=0))
    found = float(np.mean(across))
    if found <= 0:
        return 0.0
    distances = np.arange(len(curve), dtype=np.float64)
    return float(np.interp(found, curve, distances))


def dimensions_of(wish: Wish, spacing: float, shape: Sequence[int]) -> tuple[Dimensions, tuple[int, ...]]:
    """Return what a student should see, and the axes of the planes that its teacher labels.

    Parameters
    ----------
    wish
        ``auto``: by the spacing; ``on``: never single planes; ``off``: always.
    spacing
        Of :func:`apparent_spacing`.
    shape
        Of the volume, (z, y, x).
    """
    if wish == "off" or (wish == "auto" and (spacing > FAR or shape[0] < FEWEST)):
        return "planes", (0,)
    if spacing <= NEAR and shape[0] >= FEWEST:
        return "volume", (0, 1, 2)
    return "mixed", (0,)


def _variogram(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean squared difference of pixels of a plane at distances 0, 1, 2, ... along y and x."""
    longest = min(32, min(values.shape[1:]) - 1)
    curve = [0.0]
    for distance in range(1, longest + 1):
        along_y = np.square(values[:, distance:] - values[:, :-distance]).mean()
        along_x = np.square(values[:, :, distance:] - values[:, :, :-distance]).mean()
        curve.append(float(along_y + along_x) / 2)
    # The same length for each place: planes narrower than 33 pixels are all of one width.
    return np.array(curve)
