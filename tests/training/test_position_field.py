"""What features say of the place in a tile: learnt without flips, right with them."""

import numpy as np
import pytest
from see_data import ONE_TILE, discs, use

from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import PRESETS
from hrvol.training.position_field import POSITION_REGIONS, position_field
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.tiling import whole
from hrvol.volume.volume import open_volume


def fit(recipe, volumes):
    regions = [(volume, whole(volume.shape)) for volume in volumes]
    features = TileFeatures(load_featuriser(recipe.features), (0.0, 255.0), recipe.tiles)
    return position_field(regions, dict.fromkeys(volumes, features), recipe)


@pytest.fixture
def network(monkeypatch):
    return use(monkeypatch)


VOLUMES = [open_volume(discs(seed=seed)[0]) for seed in range(6)]
PLACES = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 2))


def test_flips_leave_the_mean_of_the_mirrored_fields(network):
    network.drift = 1.0
    one = ONE_TILE.with_(**{"cluster.position_degree": 4})
    plain = fit(one, VOLUMES[:2])
    flipped = fit(one.with_(**{"features.deep.flips": True}), VOLUMES[:2])
    mirrored = [plain.at(PLACES * flip) for flip in ((1, 1), (-1, 1), (1, -1), (-1, -1))]
    np.testing.assert_allclose(flipped.at(PLACES), np.mean(mirrored, axis=0), atol=1e-5)
    # The drift, in the last channel, is along y and odd: nothing of it is left.
    left, drift = (np.abs(field.at(PLACES)[:, -1]).mean() for field in (flipped, plain))
    assert drift > 0.3
    assert left < drift / 3


def test_turns_leave_a_field_that_is_the_same_in_all_directions(network):
    network.drift = 1.0
    degree = ONE_TILE.with_(**{"cluster.position_degree": 4, "features.deep.flips": True})
    mirrored = fit(degree, VOLUMES[:2])
    turned = fit(degree.with_(**{"features.deep.rotations": True}), VOLUMES[:2])

    def uneven(field):
        here = field.at(PLACES)
        return np.abs(field.at(PLACES[:, ::-1]) - here).mean() / np.abs(here).mean()

    assert uneven(turned) < 0.1  # learnt of few pixels, so not quite
    assert uneven(mirrored) > 3 * uneven(turned)
    np.testing.assert_allclose(turned.at(PLACES * (-1, 1)), turned.at(PLACES), atol=1e-5)


def test_few_of_many_regions_are_enough(network):
    recipe = ONE_TILE.with_(**{"cluster.position_degree": 2})
    fit(recipe, VOLUMES[:POSITION_REGIONS])
    few = len(network.seen)
    fit(recipe, VOLUMES)
    assert len(network.seen) == 2 * few


def test_nothing_is_learnt_where_nothing_is_asked_for(network):
    assert fit(ONE_TILE, VOLUMES) is None
    assert fit(PRESETS["classical"].with_(**{"cluster.position_degree": 3}), VOLUMES) is None
    assert network.seen == []
