"""However a plane is cut, a local featuriser gives the same labels."""

from dataclasses import replace

import numpy as np
import pytest

from hrvol.errors import RecipeError
from hrvol.features.filters.bank import halo
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassicalSpec, ClassifierSpec, FeatureSpec, TileSpec
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model
from hrvol.volume.volume import open_labels

RECIPE = Recipe(
    features=FeatureSpec(kind="classical", classical=ClassicalSpec(sigmas=(1, 2, 4, 8, 16))),
    classifier=ClassifierSpec(trees=10, samples_per_class=500),
    tiles=TileSpec(core=448),
)


@pytest.fixture(scope="module")
def untiled(tmp_path_factory):
    phantom = make_phantom((2, 150, 170), seed=3)
    strokes = draw_strokes(phantom.labels, (0,), strokes=3)
    model = train_model([(phantom.image, strokes)], recipe=RECIPE)
    out = tmp_path_factory.mktemp("untiled") / "out.ome.zarr"
    report = segment_volume(phantom.image, out, model, probabilities=True)
    assert report.blocks == 1
    return phantom.image, model, open_labels(out).read()


@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("overlap", [28, 35])
def test_tiled_equals_untiled(untiled, tmp_path, across, overlap):
    image, model, expected = untiled
    assert halo(RECIPE.features.classical) <= overlap
    tiles = TileSpec(core=80, overlap=overlap, blend=overlap - 28, planes=1, across=across)
    cut = replace(model, recipe=model.recipe.model_copy(update={"tiles": tiles}))
    report = segment_volume(image, tmp_path / "out.ome.zarr", cut)
    assert report.blocks > 1
    found = open_labels(tmp_path / "out.ome.zarr").read()
    np.testing.assert_array_equal(found, expected)


def test_too_little_context_would_be_noticed(untiled, tmp_path):
    image, model, expected = untiled
    tiles = TileSpec(core=80, overlap=4, planes=1)
    cut = replace(model, recipe=model.recipe.model_copy(update={"tiles": tiles}))
    segment_volume(image, tmp_path / "out.ome.zarr", cut)
    assert (open_labels(tmp_path / "out.ome.zarr").read() != expected).any()


def test_filters_that_reach_beyond_the_context_are_refused():
    image = np.zeros((600, 20), np.uint8)
    strokes = np.zeros_like(image)
    strokes[:2], strokes[-2:] = 1, 2
    wide = RECIPE.with_(**{"features.classical.filters": ["structure"]})
    with pytest.raises(RecipeError, match=r"filters reach \d+ px, found an overlap of 35 px"):
        train_model([(image, strokes)], recipe=wide)
