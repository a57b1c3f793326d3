"""Change crops at random, so that a student does not depend on orientation, brightness or noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hrvol.distil.examples import Crop

GAMMA, CONTRAST, BRIGHTNESS, NOISE = 0.35, 0.3, 0.12, 0.05
"""Largest changes: of the logarithms of gamma and contrast, of brightness, and of the noise's deviation."""


def augmented(crop: Crop, rng: np.random.Generator, strength: float) -> Crop:
    """Return a crop turned and mirrored, with changed grey values.

    Parameters
    ----------
    crop
        The crop.
    rng
        Source of random numbers.
    strength
        Factor on the changes of grey values; 0: none.
    """
    turns = int(rng.integers(4))
    mirrored = tuple(axis for axis in (-1, -3) if rng.random() < 0.5)

    def turned(values: NDArray[Any]) -> NDArray[Any]:
        values = np.rot90(values, turns, (-2, -1))
        return np.flip(values, mirrored) if mirrored else values

    grey = np.ascontiguousarray(turned(crop.grey), np.float32)
    return replace(
        crop,
        grey=_changed(grey, rng, strength) if strength else grey,
        target=np.ascontiguousarray(turned(crop.target)),
        labelled=np.ascontiguousarray(turned(crop.labelled)),
    )


def _changed(grey: NDArray[np.float32], rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    if rng.random() < 0.8:
        grey = np.clip(grey, 0, 1) ** np.float32(np.exp(rng.uniform(-GAMMA, GAMMA) * strength))
        factor = np.exp(rng.uniform(-CONTRAST, CONTRAST) * strength)
        grey = (grey - 0.5) * factor + 0.5 + rng.uniform(-BRIGHTNESS, BRIGHTNESS) * strength
    if rng.random() < 0.5:
        deviation = rng.uniform(0, NOISE) * strength
        grey = grey + deviation * rng.standard_normal(grey.shape, np.float32)
    if rng.random() < 0.2:
        sigma = rng.uniform(0.3, 1.0)
        grey = gaussian_filter(grey, (0, sigma, sigma))
    return grey.astype(np.float32, copy=False)
