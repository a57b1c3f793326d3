"""Predictions of trees by nvForest, on the CPU and on a GPU."""

from importlib.util import find_spec

import numpy as np
import pytest

from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.estimators import fit_classifier, probabilities
from hrvol.segment.estimators.nvforest import load_trees, predict_trees, round_thresholds_down
from hrvol.segment.estimators.on_device import device_probabilities

needs_nvforest = pytest.mark.skipif(
    find_spec("nvforest") is None,
    reason="needs nvForest (extra gpu, or alone: benchmarks/studies/nvforest.py)",
)


def drawn(classes, count=600, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 3, 7][:classes], count).astype(np.uint16)
    features = rng.normal(size=(count, 6)) + labels[:, None] * [0.5, 0, 0, 0, 0.3, 0]
    return features.astype(np.float32), labels


@needs_nvforest
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_trees_have_the_probabilities_of_scikit_learn(kind, classes):
    estimator = fit_classifier(ClassifierSpec(kind=kind, trees=80, min_samples_leaf=5), *drawn(classes), 0)
    unseen = drawn(classes, 3000, seed=1)[0]
    predicted = predict_trees(load_trees(estimator, gpu=False), unseen)
    assert predicted.dtype == np.float64
    expected = probabilities(estimator, unseen)
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-14)  # trees are summed in another order
    np.testing.assert_array_equal(predicted.astype(np.float32).argmax(axis=1), expected.argmax(axis=1))


@needs_nvforest
@pytest.mark.parametrize("layout", ["depth_first", "breadth_first", "layered"])
def test_a_layout_changes_no_bit(layout):
    forest = fit_classifier(ClassifierSpec(kind="forest", trees=70), *drawn(3), 0)
    unseen = drawn(3, 500, seed=1)[0]
    expected = predict_trees(load_trees(forest, gpu=False), unseen)
    np.testing.assert_array_equal(
        predict_trees(load_trees(forest, gpu=False, layout=layout), unseen), expected
    )


def between_neighbours():
    """Return a forest whose only threshold lies halfway between two float32 values, and these."""
    lower = np.nextafter(np.float32(4), np.float32(8))
    upper = np.nextafter(lower, np.float32(8))
    values = np.asarray([[lower], [upper]] * 20)
    forest = fit_classifier(
        ClassifierSpec(kind="forest", trees=5, min_samples_leaf=1), values, np.tile([1, 2], 20), 0
    )
    threshold = forest.estimators_[0].tree_.threshold[0]
    assert lower < threshold < upper
    assert np.float32(threshold) == upper  # so the nearest float32 separates nothing
    return forest, values


def test_thresholds_rounded_down_split_float32_values_as_before():
    forest, values = between_neighbours()
    before = forest.estimators_[0].tree_.threshold.copy()
    rounded = round_thresholds_down(forest)
    np.testing.assert_array_equal(forest.estimators_[0].tree_.threshold, before)
    thresholds = rounded.estimators_[0].tree_.threshold
    np.testing.assert_array_equal(thresholds, thresholds.astype(np.float32))
    np.testing.assert_array_equal(rounded.apply(values), forest.apply(values))
    assert len(np.unique(rounded.apply(values)[:, 0])) == 2


@needs_nvforest
def test_single_precision_reaches_the_same_leaves():
    forest, values = between_neighbours()
    predicted = predict_trees(load_trees(forest, gpu=False, precision="single"), values)
    np.testing.assert_allclose(predicted, probabilities(forest, values), atol=1e-6)
    larger = fit_classifier(ClassifierSpec(kind="forest", trees=80), *drawn(3), 0)
    unseen = drawn(3, 3000, seed=1)[0]
    predicted = predict_trees(load_trees(larger, gpu=False, precision="single"), unseen)
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(predicted, probabilities(larger, unseen), rtol=0, atol=1e-6)


@needs_nvforest
def test_torch_tensors_give_torch_tensors():
    torch = pytest.importorskip("torch", reason="nvForest alone is installed")
    forest = fit_classifier(ClassifierSpec(kind="forest", trees=20), *drawn(3), 0)
    unseen = drawn(3, 500, seed=1)[0]
    predicted = device_probabilities("forest", forest, torch.from_numpy(unseen))
    np.testing.assert_allclose(predicted.numpy(), probabilities(forest, unseen), atol=1e-14)


@needs_nvforest
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_trees_on_a_gpu_have_the_probabilities_of_scikit_learn(kind):
    torch = pytest.importorskip("torch", reason="nvForest alone is installed")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    estimator = fit_classifier(ClassifierSpec(kind=kind, trees=80, min_samples_leaf=5), *drawn(3), 0)
    unseen = drawn(3, 3000, seed=1)[0]
    predicted = device_probabilities(kind, estimator, torch.from_numpy(unseen).cuda())
    assert predicted.is_cuda
    np.testing.assert_allclose(predicted.cpu().numpy(), probabilities(estimator, unseen), rtol=0, atol=1e-6)


@needs_nvforest
def test_a_vote_averages_its_estimators():
    vote = fit_classifier(ClassifierSpec(kind="vote", trees=20), *drawn(3), 0)
    unseen = drawn(3, 500, seed=1)[0]
    predicted = device_probabilities("vote", vote, unseen)
    np.testing.assert_allclose(predicted, probabilities(vote, unseen), rtol=0, atol=1e-12)
