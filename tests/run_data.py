"""A small volume of two textures, its truth, strokes, and a recipe quick enough for tests."""

import numpy as np

from hrvol.recipe.recipe import Recipe

SHAPE = (5, 150, 130)


def make_volume(seed=0, shape=SHAPE):
    """Discs of bright, coarse noise (2) in dark, fine noise (1); uint8."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    truth = np.ones(shape, np.uint8)
    for _ in range(6):
        cy, cx, r = rng.uniform(0, shape[1]), rng.uniform(0, shape[2]), rng.uniform(12, 25)
        truth[(y - cy) ** 2 + (x - cx) ** 2 + (3 * (z - shape[0] / 2)) ** 2 < r**2] = 2
    image = np.where(truth == 2, 150, 90) + rng.normal(0, 20, shape)
    return np.clip(image, 0, 255).astype(np.uint8), truth


def draw(truth, planes=(0, 3)):
    """Vertical lines every 11 pixels on some planes."""
    strokes = np.zeros_like(truth)
    for z in planes:
        strokes[z, :, 5::11] = truth[z, :, 5::11]
    return strokes


QUICK = Recipe.from_dict(
    {
        "features": {"kind": "classical", "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]}},
        "classifier": {"trees": 10, "samples_per_class": 500},
        "tiles": {"core": 64, "overlap": 12, "planes": 2},
    }
)
