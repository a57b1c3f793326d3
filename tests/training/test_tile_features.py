"""Features of a tile: from its window in [0, 1], reflected where that reaches beyond the plane."""

import numpy as np
import pytest
from run_data import QUICK

from hrvol.features.weights.source import WeightsSource
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.grid.tiling import Tile
from hrvol.volume.volume import open_volume

PLANES = np.random.default_rng(0).integers(0, 200, (3, 40, 50)).astype(np.uint16)
VOLUME = open_volume(PLANES)
WINDOW = (0.0, 200.0)


@pytest.mark.parametrize(
    ("window", "beyond"),
    [
        ((4, 30, 10, 50), ((0, 0), (0, 0))),
        ((-6, 20, 0, 50), ((6, 0), (0, 0))),
        ((-3, 45, -7, 60), ((3, 5), (7, 10))),
    ],
)
def test_a_tile_is_reflected_beyond_the_plane(window, beyond):
    features = TileFeatures(load_features(QUICK.features, "cpu", WeightsSource()), WINDOW, QUICK.tiles)
    tile = Tile((10, 12, 20, 22), window, 0, 0)
    y0, y1, x0, x1 = window
    inside = PLANES[1, max(y0, 0) : y1, max(x0, 0) : x1].astype(np.float32) / np.float32(200)
    expected = np.pad(inside, beyond, mode="reflect")
    image = features.image(VOLUME, 1, tile)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, expected)
    values = features.of(VOLUME, 1, tile)
    assert values.shape == (len(features.featuriser.channels), y1 - y0, x1 - x0)
    np.testing.assert_array_equal(values, features.featuriser(expected))
