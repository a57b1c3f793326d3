"""The machinery of the benchmarks, on a small synthetic stack with a featuriser that needs no network."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.data import Dense, Stroked, load_dense
from benchmarks.quality.contest import KINDS, PRODUCT, Contest, Entry
from benchmarks.quality.dense import measure_dense
from benchmarks.quality.sampling import plane_stripes, samples_of
from benchmarks.quality.sparse import label_image, leave_one_out
from benchmarks.quality.strokes import draw
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.training.train import train_model
from hrvol.volume.volume import open_volume

RECIPE = Recipe.from_dict({"tiles": {"core": 64, "overlap": 16}})
FOREST = ClassifierSpec(kind="forest", trees=8)


class Blurs:
    """Two blurs stand in for the network, two gradients for the filters; tiled and untiled agree."""

    channels = ("a", "b", "c", "d")
    groups = {"deep": slice(0, 2), "classical": slice(2, 4)}  # noqa: RUF012
    grey = (3,)
    seen = 0

    def __call__(self, image):
        self.seen += 1
        deep = [ndimage.gaussian_filter(image, sigma, truncate=3) for sigma in (1, 3)]
        classical = [ndimage.gaussian_gradient_magnitude(image, sigma, truncate=3) for sigma in (1, 3)]
        return torch.from_numpy(np.stack([*deep, *classical]))


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    truth = (ndimage.gaussian_filter(rng.normal(size=(4, 100, 110)), (0, 6, 6)) > 0).astype(np.uint8) + 1
    images = np.clip(60 * truth + rng.normal(0, 12, truth.shape), 0, 255).astype(np.uint8)
    return Dense("stack", images, truth, (0, 1), (2, 3), ("low", "high"))


@pytest.fixture(scope="module")
def strokes(stack):
    drawn = {}
    for seed in (0, 1):
        lines = np.zeros_like(stack.truth)
        lines[:2, 3 + 2 * seed :: 20, 10:90] = stack.truth[:2, 3 + 2 * seed :: 20, 10:90]
        drawn[seed] = lines
    return drawn


def test_every_test_pixel_is_counted_once_and_each_tile_featurised_once(stack, strokes):
    blurs = Blurs()
    result = measure_dense(stack, strokes, blurs, {"forest": FOREST}, recipe=RECIPE, log=lambda _: None)
    assert blurs.seen == 16  # 2 training and 2 test planes of 4 tiles, for 2 drawings and 4 entries
    assert {entry.features for entry in result.confusions} == {*KINDS, PRODUCT}
    expected = np.bincount(stack.truth[2:].ravel(), minlength=3)
    for by_seed in result.confusions.values():
        assert list(by_seed) == [0, 1]
        for confusion in by_seed.values():
            np.testing.assert_array_equal(confusion.matrix.sum(axis=1), expected)
    deep, classical = (
        result.confusions[Entry("balanced", kind, "forest")][0].to_dict()["miou"]
        for kind in ("deep", "classical")
    )
    assert deep > 0.9  # grey value tells the classes apart, gradients do not
    assert classical < 0.7


def test_entries_are_what_the_product_predicts(stack, strokes):
    """The hybrid entry equals a classifier trained by the package's own steps on the same pixels."""
    samples = samples_of(stack.images, strokes, Blurs(), recipe=RECIPE)[1]
    contest = Contest.fit(samples, Blurs.groups, FOREST, grey=Blurs.grey, seed=1)
    found = contest.predict(samples.features)
    for kind, combine in (("hybrid", "concatenate"), (PRODUCT, "product")):
        whole = PixelClassifier.fit(
            samples, FOREST, combine=combine, groups=Blurs.groups, grey=Blurs.grey, seed=1
        )
        np.testing.assert_array_equal(found[kind], whole.predict(samples.features))


def test_samples_are_those_of_training(stack, strokes):
    """With classical features, the same pixels and features as ``train_model`` takes."""
    from hrvol.features.featuriser import load_featuriser

    recipe = RECIPE.with_(
        **{"features.kind": "classical", "features.classical.sigmas": [1, 2], "classifier.trees": 5}
    )
    recipe = recipe.with_(**{"classifier.samples_per_class": 300, "seed": 1})
    featuriser = load_featuriser(recipe.features)
    samples = samples_of(stack.images, strokes, featuriser, recipe=recipe)[1]
    model = train_model([(stack.images, strokes[1])], recipe=recipe)
    ours = PixelClassifier.fit(samples, recipe.classifier, seed=1)
    np.testing.assert_array_equal(
        ours.predict_proba(samples.features), model.classifier.predict_proba(samples.features)
    )
    assert samples.counts() == {1: 300, 2: 300}


@pytest.mark.parametrize("step", [1, 3])
def test_stripes_cover_the_thinned_plane_once(stack, step):
    class Grey:
        channels = ("grey",)

        def __call__(self, image):
            return torch.from_numpy(image[None])

    seen = np.zeros((100, 110), int)[::step, ::step]
    for place, features in plane_stripes(open_volume(stack.images), 3, Grey(), recipe=RECIPE, step=step):
        seen[place] += 1
        expected = stack.images[3, ::step, ::step][place].astype(np.float32) / 255
        np.testing.assert_allclose(features[..., 0], expected, atol=1e-6)
    assert (seen == 1).all()


def test_leave_one_out_does_not_train_on_the_image_left_out(stack, strokes):
    drawn = strokes[0].copy()
    drawn[2] = 3 - np.where(strokes[0][0] > 0, stack.truth[2], 0)  # all wrong on image 2
    drawn[2][strokes[0][0] == 0] = 0
    data = Stroked("some", stack.images[:3], drawn[:3], stack.classes, {})
    found = leave_one_out(data, Blurs(), {"forest": FOREST}, recipe=RECIPE, log=lambda _: None)
    scores = [c.to_dict()["accuracy"] for c in found[Entry("balanced", "deep", "forest")]]
    assert len(scores) == 3
    assert scores[2] < 0.1
    assert [int(c.matrix.sum()) for c in found[Entry("balanced", "deep", "forest")]] == [
        int((plane > 0).sum()) for plane in drawn[:3]
    ]


def test_label_image_gives_one_whole_map_for_each_seed(stack, strokes):
    data = Stroked("one", stack.images[:1], strokes[0][:1], stack.classes, {})
    found = label_image(data, Blurs(), {"forest": FOREST}, seeds=[0, 1], recipe=RECIPE, log=lambda _: None)
    maps = found[Entry("balanced", "deep", "forest")]
    assert len(maps) == 2
    assert (maps[0] > 0).all()
    assert (maps[0] == stack.truth[0]).mean() > 0.9


@pytest.mark.data
def test_shared_data(data_dir):
    data = load_dense("super1")
    assert (len(data.train), len(data.test), data.truth.max()) == (10, 4, 3)
    drawn = draw(data, 0)
    assert (drawn == draw(data, 0)).all()
    assert not drawn[list(data.test)].any()
    assert (drawn[drawn > 0] == data.truth[drawn > 0]).all()
