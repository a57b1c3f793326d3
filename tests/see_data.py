"""A network simple enough to know its answers, a recipe for it, and pictures of discs."""

import numpy as np
import torch
import torch.nn.functional as F

from hrvol.features import featuriser
from hrvol.features.deep.backbone import Tokens
from hrvol.recipe.recipe import Recipe


class Looker:
    """Tokens are mean, contrast and slopes of a patch; attention, of two heads, is what is bright."""

    patch, channels, heads, sha256 = 14, 5, 2, None
    device = torch.device("cpu")

    def __init__(self):
        self.seen = []
        self.drift = 0.0  # how much tokens say of their row in the window

    def block_numbers(self, block):
        return (1,)

    def tokens(self, images, *, stride, blocks, attention, head_map, positions):
        self.seen.append(tuple(images.shape[-2:]))
        pool = lambda values: F.avg_pool2d(values, self.patch, stride or self.patch)  # noqa: E731
        mean = pool(images)
        spread = (pool(images**2) - mean**2).clamp(min=0).sqrt()
        slopes = [
            pool(F.pad(images.diff(dim=axis).abs(), pad)) for axis, pad in ((2, (0, 0, 0, 1)), (3, (0, 1)))
        ]
        rows = torch.linspace(-1, 1, mean.shape[2])[:, None]
        features = torch.cat([mean - 0.4, 2 * spread, *slopes, 0.1 + self.drift * rows + 0 * mean], dim=1)
        paid = torch.cat([mean / mean.mean(), mean**2 / (mean**2).mean()], dim=1)
        return Tokens(features, paid if attention else None, None)


def use(monkeypatch):
    """Make every featuriser use this network; return it."""
    network = Looker()
    monkeypatch.setattr(featuriser, "load_backbone", lambda *arguments, **options: network)
    monkeypatch.setattr(featuriser, "_LOADED", {})
    return network


RECIPE = Recipe.from_dict(
    {
        "features": {"kind": "deep", "deep": {"offsets": 2, "block": 1, "flips": False}},
        "cluster": {"clusters": 6, "samples": 2000, "sample_tiles": 4},
        "tiles": {"core": 64, "overlap": 21, "planes": 1},
    }
)
ONE_TILE = RECIPE.with_(**{"tiles.core": 448, "tiles.overlap": 35})
DISCS = ((40, 45, 24), (95, 120, 18))
"""Centre y, x and radius."""


def discs(places=DISCS, shape=(130, 170), seed=0):
    """Bright discs on dark, rough ground: uint8 image, and where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    inside = np.zeros(shape, bool)
    for cy, cx, radius in places:
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    noise = np.where(inside, rng.normal(0, 4, shape), rng.normal(0, 14, shape))
    return np.clip(np.where(inside, 205, 60) + noise, 0, 255).astype(np.uint8), inside
