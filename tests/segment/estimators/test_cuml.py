"""Fits on a GPU, skipped without one; and, on any machine, the arguments passed to cuML.

Bounds on scores come from scikit-learn itself: with other seeds, or columns rounded to 128 quantiles, scores
change by up to 0.02, probabilities by 0.04 on average, and k-means by 2 %.
"""

import importlib.util
import inspect

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from hrvol.classes import default_classes
from hrvol.errors import MissingExtraError, UsageError
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators import cuml, keywords
from hrvol.segment.estimators.estimators import (
    fit_classifier,
    kmeans,
    make_classifier,
    nearest,
    probabilities,
)
from hrvol.segment.estimators.validate import check_fitted
from hrvol.segment.model.model import Model, model_bytes, read_model
from hrvol.segment.pixel_classifier import Member, PixelClassifier

COLUMNS = 58  # of the classical features: of 58, cuML's own arithmetic makes 14 of 15


def _data(n=1500, seed=0, rare=1.0):
    rng = np.random.default_rng(seed)
    share = np.array([1, 1, rare]) / (2 + rare)
    labels = rng.choice(np.array([1, 3, 4], np.uint16), n, p=share)
    features = rng.normal(size=(n, COLUMNS))
    features[:, :6] += 1.2 * np.array([1, 3, 4]).searchsorted(labels)[:, None] * [1, -1, 0.5, 1, -1, 0.5]
    features[:, 7] = 0.1  # constant
    features[:, 8] *= 1e4
    return features.astype(np.float32), labels


def _blobs(n=4000, scale=1.0):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 24)) * 3
    truth = rng.integers(0, 12, n)
    return ((centres[truth] + rng.normal(size=(n, 24))) * scale).astype(np.float32)


# On any machine


@pytest.mark.parametrize(
    ("table", "estimator"),
    [
        (keywords.FOREST, RandomForestClassifier),
        (keywords.LOGISTIC, LogisticRegression),
        (keywords.RIDGE, RidgeClassifier),
        (keywords.MLP, MLPClassifier),
        (keywords.BOOSTING, HistGradientBoostingClassifier),
        (keywords.KMEANS, KMeans),
    ],
)
def test_the_tables_of_keywords_bind_to_scikit_learn(table, estimator):
    signature = inspect.signature(estimator)
    signature.bind(**table)
    with pytest.raises(TypeError):
        signature.bind(**table, n_trees=3)
    values = keywords.classifier_settings(ClassifierSpec(), 5, 0) | keywords.kmeans_settings(3, 0)
    assert set(table.values()) <= set(values)


@pytest.mark.parametrize(
    ("device", "yes"), [("cpu", False), ("cuda", True), ("cuda:0", True), ("cuda:12", True)]
)
def test_gpus_are_recognised_by_name(device, yes):
    assert cuml.is_gpu(device) is yes


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cuda0", "cuda:-1", "auto", "CUDA"])
def test_other_device_names_are_refused(device):
    with pytest.raises(UsageError, match="expected cpu, cuda or cuda:N"):
        fit_classifier(ClassifierSpec(kind="forest", trees=2), *_data(30), 0, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    "fit",
    [
        lambda: fit_classifier(ClassifierSpec(kind="forest", trees=2), *_data(30), 0, device="cuda"),
        lambda: fit_classifier(
            ClassifierSpec(kind="logistic", class_weight=None), *_data(30), 0, device="cuda:0"
        ),
        lambda: kmeans(_blobs(60), 3, 0, device="cuda"),
        lambda: nearest(_blobs(3), _blobs(60), device="cuda"),
    ],
)
def test_without_a_gpu_or_its_packages_nothing_is_fitted_on_the_cpu_instead(fit):
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(MissingExtraError, match=r"found no cupy.*pip install 'hrvol\[gpu\]'"):
            fit()
    else:
        with pytest.raises(UsageError, match="found 0 GPUs"):
            fit()


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp", "boosting"])
def test_other_kinds_are_fitted_on_the_cpu_with_the_same_bits(kind):
    spec = ClassifierSpec(kind=kind, trees=3, hidden=(4,), max_iter=20)
    features, labels = _data(120)
    features = np.ascontiguousarray(features[:, :4])
    here, there = (
        probabilities(fit_classifier(spec, features, labels, 0, device=device), features)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("given", ["sqrt", "log2", None, 1, 2, 15, 57, 58, 0.01, 0.37, 1.0])
def test_cuml_tries_as_many_columns_per_split_as_scikit_learn(given):
    features, labels = _data(100)
    spec = ClassifierSpec(kind="forest", trees=1, max_features=given)
    expected = fit_classifier(spec, features, labels, 0).estimators_[0].max_features_
    share = cuml.candidate_share(keywords.classifier_settings(spec, COLUMNS, 0)["max_features"], COLUMNS)
    assert 0 < share <= 1
    assert max(1, int(np.float32(share) * np.float32(COLUMNS))) == expected  # cuML's arithmetic


def test_every_count_of_columns_survives_single_precision():
    lost = 0
    for columns in range(1, 500):
        counts = np.arange(1, columns + 1)
        shares = np.array([cuml.candidate_share(int(count), columns) for count in counts], np.float32)
        np.testing.assert_array_equal((shares * np.float32(columns)).astype(int), counts)
        direct = (counts / columns).astype(np.float32) * np.float32(columns)
        lost += int((direct.astype(int) < counts).sum())
    assert lost > 1000  # the counts that cuML would reduce


def test_rows_that_do_not_fit_on_a_gpu_come_in_batches():
    assert cuml.buffer_rows(1000, 100, free=200_000) == 0
    assert cuml.buffer_rows(1001, 100, free=200_000) == 1000
    assert cuml.buffer_rows(5, 100, free=0) == 1


@pytest.mark.parametrize("rows", [7, 1000, 100_000])
def test_the_mean_variance_is_that_of_the_columns(rows, monkeypatch):
    monkeypatch.setattr(cuml, "_ROWS", rows)
    features = (np.random.default_rng(0).normal(size=(1000, 5)) * [1, 2, 3, 0, 0.1] + 1e3).astype(np.float32)
    assert cuml.mean_variance(features) == pytest.approx(
        features.astype(np.float64).var(axis=0).mean(), rel=1e-9
    )


# On a GPU


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    pytest.importorskip("cuml", reason="cuML is not installed: pip install 'hrvol[gpu]'")
    return "cuda"


def _scores(estimator, features, truth):
    labels = estimator.classes_[probabilities(estimator, features).argmax(axis=1)]
    return (labels == truth).mean(), np.mean(
        [(labels[truth == value] == value).mean() for value in (1, 3, 4)]
    )


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["forest", "logistic"])
@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_a_fit_on_a_gpu_is_as_good_as_one_of_scikit_learn(kind, class_weight, cuda):
    spec = ClassifierSpec(kind=kind, trees=100, class_weight=class_weight)
    features, labels = _data(rare=0.2)
    unseen, truth = _data(4000, seed=1, rare=0.2)
    here, there = (fit_classifier(spec, features, labels, 0, device=device) for device in ("cpu", cuda))
    np.testing.assert_allclose(_scores(there, unseen, truth), _scores(here, unseen, truth), atol=0.04)
    difference = np.abs(probabilities(there, unseen) - probabilities(here, unseen)).mean()
    assert difference < (0.06 if kind == "forest" else 0.005)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_fits_are_of_scikit_learn_and_can_be_saved_and_loaded(kind, cuda):
    spec = ClassifierSpec(kind=kind, trees=20, class_weight=None)
    features, labels = _data()
    fitted = fit_classifier(spec, features, labels, 0, device=cuda)
    expected = make_classifier(spec, COLUMNS, 0)
    assert type(fitted) is type(expected)
    for step, unfitted in zip(_steps(fitted), _steps(expected), strict=True):
        assert type(step) is type(unfitted)
        assert step.get_params() == unfitted.get_params()
    classifier = PixelClassifier(spec, (1, 3, 4), COLUMNS, (Member("all", slice(0, COLUMNS), fitted),))
    channels = tuple(f"c{i}" for i in range(COLUMNS))
    model = Model(Recipe(classifier=spec), default_classes([1, 3, 4]), (0.0, 1.0), classifier, None, channels)
    read = read_model(model_bytes(model), "model")
    np.testing.assert_array_equal(read.classifier.predict_proba(features), classifier.predict_proba(features))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_two_classes_have_two_columns(kind, cuda):
    features, labels = _data()
    features, labels = features[labels != 3], labels[labels != 3]
    fitted = fit_classifier(
        ClassifierSpec(kind=kind, trees=20, class_weight=None), features, labels, 0, device=cuda
    )
    check_fitted(fitted, kind, COLUMNS, (1, 4))
    predicted = np.array([1, 4])[probabilities(fitted, features).argmax(axis=1)]
    assert (predicted == labels).mean() > 0.9


@pytest.mark.gpu
def test_a_forest_depends_on_its_seed(cuda):
    features, labels = _data()
    spec = ClassifierSpec(kind="forest", trees=20, class_weight=None)
    one, again, other = (
        probabilities(fit_classifier(spec, features, labels, seed, device=cuda), features)
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_features_may_be_of_numpy_cupy_or_torch(kind, cuda):
    cupy = pytest.importorskip("cupy")
    features, labels = _data()
    spec = ClassifierSpec(kind=kind, trees=20, class_weight=None)
    host, *others = (
        probabilities(fit_classifier(spec, given, labels, 0, device=cuda), features)
        for given in (features, cupy.asarray(features), torch.from_numpy(features).to(cuda))
    )
    for other in others:
        np.testing.assert_allclose(other, host, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_kmeans_of_a_gpu_is_as_tight_as_that_of_scikit_learn(scale, cuda):
    features = _blobs(scale=scale)

    def spread(device):
        centroids = kmeans(features, 40, 0, device=device)
        assert centroids.dtype == np.float32
        assert centroids.shape == (40, 24)
        return ((features - centroids[nearest(centroids, features)]) ** 2).sum(axis=1).mean()

    assert spread(cuda) < 1.03 * spread("cpu")


@pytest.mark.gpu
def test_kmeans_depends_on_its_seed(cuda):
    features = _blobs()
    one, again, other = (kmeans(features, 30, seed, device=cuda) for seed in (0, 0, 1))
    np.testing.assert_allclose(one, again, rtol=1e-3, atol=1e-3)
    assert not np.allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_kmeans_in_batches_is_as_tight(cuda, monkeypatch):
    features = _blobs()
    whole = kmeans(features, 40, 0, device=cuda)
    monkeypatch.setattr(cuml, "buffer_rows", lambda rows, row_bytes, free: 500)
    batches = kmeans(features, 40, 0, device=cuda)
    tightness = [((features - mu[nearest(mu, features)]) ** 2).sum(axis=1).mean() for mu in (whole, batches)]
    assert tightness[1] < 1.05 * tightness[0]


@pytest.mark.gpu
def test_the_nearest_centroid_is_the_same_on_a_gpu(cuda):
    cupy = pytest.importorskip("cupy")
    features, centroids = _blobs(), _blobs(40)
    here = nearest(centroids, features)
    for given in (features, cupy.asarray(features), torch.from_numpy(features).to(cuda)):
        there = nearest(centroids, given, device=cuda)
        assert isinstance(there, np.ndarray)
        assert there.dtype == np.int64
        assert (there == here).mean() > 0.999  # rounding decides between two at the same distance


@pytest.mark.gpu
def test_the_scaler_is_that_of_the_cpu(cuda):
    features, labels = _data()
    spec = ClassifierSpec(kind="logistic", class_weight=None)
    here, there = (fit_classifier(spec, features, labels, 0, device=device)[0] for device in ("cpu", cuda))
    assert isinstance(there, StandardScaler)
    np.testing.assert_array_equal(there.scale_, here.scale_)
    np.testing.assert_array_equal(there.mean_, here.mean_)


def _steps(estimator):
    return list(estimator) if isinstance(estimator, Pipeline) else [estimator]
