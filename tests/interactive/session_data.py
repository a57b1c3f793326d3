"""Strokes in memory, and a small volume to draw on."""

import numpy as np
import zarr

from hrvol.classes import default_classes
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe

SHAPE = (4, 100, 130)

TILES = {"core": 64, "overlap": 12, "blend": 4, "planes": 2, "across": 2}

CLASSICAL = Recipe.from_dict(
    {
        "features": {"kind": "classical", "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]}},
        "classifier": {"trees": 10, "samples_per_class": 300},
        "tiles": TILES,
    }
)

HYBRID = Recipe.from_dict(
    {
        "features": {
            "kind": "hybrid",
            "deep": {"block": 1, "offsets": 1, "flips": True},
            "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]},
        },
        "classifier": {"trees": 10, "samples_per_class": 300},
        "tiles": TILES,
    }
)


class ReadDrawing(ArrayDrawing):
    """Strokes in memory that record which planes are read."""

    def __init__(self, labels, classes=()):
        super().__init__(labels, classes)
        self.reads = []

    def points(self, planes=None):
        self.reads.append(None if planes is None else tuple(planes))
        return super().points(planes)


def phantom():
    made = make_phantom(SHAPE, seed=3)
    return made.image, np.minimum(made.labels, 3)


def strokes_of(truth, planes=(0, 2)):
    return draw_strokes(truth, planes, strokes=2, length=25, seed=1)


def classes():
    return default_classes((1, 2, 3), ("pore", "binder", "particle"))


def damaged(path):
    """Write the volume of the phantom, of which plane 0 cannot be read."""
    array = zarr.create_array(path, data=phantom()[0], chunks=(1, *SHAPE[1:]))
    (path / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    assert array.shape == SHAPE
    return path
