"""Make and fit classifiers, predict with them, and run k-means, all with scikit-learn.

The kinds of :class:`hrvol.recipe.specs.ClassifierSpec`:

===========  ==================================================================================
vote         mean of the probabilities of a forest and a logistic regression
forest       random forest, as in Trainable Weka Segmentation and the paper (section 3.3)
logistic     standardised columns, L2 logistic regression
ridge        standardised columns, ridge regression on +-1 targets; see :func:`probabilities`
mlp          standardised columns, multi-layer perceptron
boosting     histogram gradient boosting
===========  ==================================================================================

Every fit is seeded and independent of the number of threads. Forests, logistic regression and k-means can be
fitted on a GPU (:mod:`hrvol.segment.estimators.cuml`), which also returns estimators of scikit-learn.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import ThreadpoolController

from hrvol.arrays import average
from hrvol.errors import RecipeError
from hrvol.recipe.specs import MAX_BOOSTED, ClassifierKind, ClassifierSpec
from hrvol.segment.estimators.cuml import (
    fit_forest,
    fit_kmeans,
    fit_logistic,
    fits_on_gpu,
    is_gpu,
    transfers,
)
from hrvol.segment.estimators.keywords import (
    BOOSTING,
    FOREST,
    KMEANS,
    LOGISTIC,
    MLP,
    RIDGE,
    VOTERS,
    classifier_settings,
    keywords_of,
    kmeans_settings,
    voters,
)
from hrvol.segment.estimators.linear import linear_head

CHUNK = 4096
"""Pixels a thread predicts at once: their features fit its cache (measured faster than 16k and 64k)."""

_AT_ONCE = 512
"""Pixels whose features are in float64 at once, for matrix products: they fit the cache of a core."""

_LINEAR: dict[type, ClassifierKind] = {
    LogisticRegression: "logistic",
    RidgeClassifier: "ridge",
    MLPClassifier: "mlp",
}
"""Kinds of classifiers by the last step of their pipeline."""

_ROWS = 16_384  # rows whose distances to centroids are held at once

_LIMIT_LOCK = threading.RLock()

_FOREST_LOCK = threading.Lock()
"""Held while a forest is fitted: threads of two fits would lose the warning filters of the process."""


def make_classifier(spec: ClassifierSpec, n_features: int, seed: int, n_jobs: int = 1) -> Any:
    """Return an unfitted classifier of any kind but ``vote``.

    Parameters
    ----------
    spec
        Kind and settings. Only ``forest`` reads ``max_features``; only ``forest`` and ``boosting`` read
        ``trees``, ``max_depth`` and ``min_samples_leaf``. ``regularisation`` is the strength of the penalty
        (logistic: ``1 / C``, ridge: ``alpha``, mlp: a factor on ``alpha`` = 1e-4).
    n_features
        Number of columns; a larger ``max_features`` is reduced to it.
    seed
        Random seed.
    n_jobs
        Threads for fitting a forest, -1 for all cores.

    Raises
    ------
    ValueError
        The kind is ``vote``.
    """
    if spec.kind == "vote":
        raise ValueError("classifier: found kind vote, expected the kind of a single estimator")
    values = classifier_settings(spec, n_features, seed)
    if spec.kind == "forest":
        return RandomForestClassifier(**keywords_of(FOREST, values), n_jobs=n_jobs)
    if spec.kind == "boosting":
        # Early stopping would validate on pixels next to training pixels, which is no test.
        return HistGradientBoostingClassifier(**keywords_of(BOOSTING, values), early_stopping=False)
    last: Any
    if spec.kind == "logistic":
        last = LogisticRegression(**keywords_of(LOGISTIC, values), random_state=seed)
    elif spec.kind == "ridge":
        last = RidgeClassifier(**keywords_of(RIDGE, values))
    else:
        last = MLPClassifier(**keywords_of(MLP, values))
    return Pipeline([("scaler", StandardScaler()), ("classifier", last)])


def fit_classifier(
    spec: ClassifierSpec,
    features: NDArray[np.float32],
    labels: NDArray[Any],
    seed: int,
    n_jobs: int = 1,
    device: str = "cpu",
    grey: Sequence[int] = (),
) -> Any:
    """Make and fit a classifier.

    Parameters
    ----------
    spec
        Kind and settings.
    features
        ``(n, C)`` float32, finite.
    labels
        ``(n,)`` integers, at least two different values.
    seed
        Random seed.
    n_jobs
        Threads for a forest or boosting, -1 for all cores. The result does not depend on it.
    device
        ``cpu``, ``cuda`` or ``cuda:N``. A GPU fits the kinds that
        :func:`hrvol.segment.estimators.cuml.fits_on_gpu` accepts; the others are fitted on the CPU.
    grey
        Columns of grey values. Only ``spec.grey_share`` of a forest's trees use them; a logistic regression
        ignores them if the share is below 1.

    Returns
    -------
    Any
        The fitted estimator of scikit-learn; ``classes_`` of its last step are the values of ``labels`` in
        rising order. Probabilities of a fit on a GPU differ slightly from those of a fit on the CPU.

    Raises
    ------
    RecipeError
        Boosting would have more trees than a model file holds.
    MissingExtraError
        cuML is needed and not installed.
    UsageError
        The device does not exist.
    """
    if spec.kind == "vote":
        specs = [spec.model_copy(update={"kind": kind}) for kind in VOTERS]
        fitted = [fit_classifier(each, features, labels, seed, n_jobs, device, grey) for each in specs]
        return _voting_classifier(fitted, labels)
    if len(grey) and spec.grey_share < 1 and spec.kind in VOTERS:
        return _fit_hiding_grey(spec, features, labels, seed, n_jobs, device, list(grey))
    estimator = make_classifier(spec, features.shape[1], seed, n_jobs)
    if is_gpu(device) and fits_on_gpu(spec):
        values = classifier_settings(spec, features.shape[1], seed)
        if spec.kind == "forest":
            return fit_forest(estimator, values, features, labels, device).set_params(n_jobs=1)
        return fit_logistic(estimator, values, features, labels, device)
    if spec.kind == "forest":
        with _FOREST_LOCK:
            estimator.fit(features, labels)
        # Neither model files nor predictions may depend on the machine: with several jobs scikit-learn sums
        # the trees in the order in which they finish.
        return estimator.set_params(n_jobs=1)
    if spec.kind == "boosting":
        most = MAX_BOOSTED // len(np.unique(labels))
        if spec.trees > most:
            raise RecipeError(
                f"classifier.trees: found {spec.trees}, expected at most {most} with so many classes"
            )
        with _limit_threads(None if n_jobs == -1 else n_jobs):
            estimator.fit(features, labels)
        estimator._bin_mapper.n_threads = 1  # stored in the model file, though prediction ignores it
        return estimator
    with _limit_threads(1):
        if spec.kind != "mlp":
            # Solvers stall in single precision.
            return estimator.fit(features.astype(np.float64), labels)
        balanced = spec.class_weight == "balanced"
        weights = compute_sample_weight("balanced", labels) if balanced else None
        estimator.fit(features, labels, classifier__sample_weight=weights)
    # The optimiser's moments are twice the size of the network and are used in training only.
    vars(estimator[-1]).pop("_optimizer", None)
    return estimator


def _voting_classifier(fitted: Sequence[Any], labels: NDArray[Any]) -> VotingClassifier:
    """Return a fitted ``VotingClassifier`` made of fitted estimators."""
    unfitted = [(name, clone(estimator)) for name, estimator in zip(VOTERS, fitted, strict=True)]
    vote = VotingClassifier(unfitted, voting="soft")
    vote.estimators_ = list(fitted)
    vote.le_ = LabelEncoder().fit(labels)
    vote.classes_ = vote.le_.classes_
    return vote


def _fit_hiding_grey(
    spec: ClassifierSpec,
    features: NDArray[np.float32],
    labels: NDArray[Any],
    seed: int,
    n_jobs: int,
    device: str,
    grey: list[int],
) -> Any:
    """Fit a forest with grey columns hidden from some of its trees, or another estimator without them.

    Hidden columns are constant: no tree splits them, and their weight is 0.
    """
    hidden = features.copy()
    hidden[:, grey] = 0
    all_columns = {"grey_share": 1.0}
    if spec.kind != "forest":
        estimator = fit_classifier(spec.model_copy(update=all_columns), hidden, labels, seed, n_jobs, device)
        estimator[-1].coef_[:, grey] = 0  # remove rounding errors
        return estimator
    count = round(spec.trees * spec.grey_share)
    other_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    groups = (count, features, seed), (spec.trees - count, hidden, other_seed)
    forests = [
        fit_classifier(
            spec.model_copy(update=all_columns | {"trees": trees}), values, labels, group_seed, n_jobs, device
        )
        for trees, values, group_seed in groups
        if trees
    ]
    for other in forests[1:]:
        forests[0].estimators_ += other.estimators_
    return forests[0].set_params(n_estimators=spec.trees, random_state=seed)


def probabilities(estimator: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return class probabilities ``(n, K)`` float64 in order of class value.

    Matrix products are computed in float64: their last bits depend on a row's position among the others, but
    no longer after rounding to float32.

    Ridge regression has no probabilities. The softmax of its decision function (two classes: of -d and +d)
    replaces them; it ranks classes as the classifier does but is not calibrated.
    """
    if type(estimator) is VotingClassifier:
        return np.asarray(average([probabilities(member, features) for _, member in voters(estimator)]))
    if type(estimator) is RandomForestClassifier:
        return _forest_probabilities(estimator, features)
    if isinstance(estimator, Pipeline):
        return _pipeline_probabilities(estimator, features)
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(features), dtype=np.float64)
    raise TypeError(f"found a {type(estimator).__name__}, expected a classifier of a known kind")


def _pipeline_probabilities(estimator: Pipeline, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return float64 probabilities of the rows, :data:`_AT_ONCE` at a time.

    The bits of a matrix product may depend on its number of rows, so the last rows are predicted together
    with others.
    """
    head = linear_head(_LINEAR[type(estimator[-1])], estimator)
    exact = np.zeros((_AT_ONCE, features.shape[1]))
    found = []
    for start in range(0, len(features), _AT_ONCE):
        rows = features[start : start + _AT_ONCE]
        exact[: len(rows)] = rows
        found.append(head.probabilities(exact)[: len(rows)])
    return np.concatenate(found)


def _forest_probabilities(
    forest: RandomForestClassifier, features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the bits of ``forest.predict_proba`` without its check and lock per tree.

    Features are in column order: adjacent pixels are similar and read the same columns in a tree.
    """
    features = np.asfortranarray(features)
    total = np.zeros((len(features), forest.n_classes_))
    for member in forest.estimators_:
        total += member.tree_.predict(features)
    total /= len(forest.estimators_)
    return total


def kmeans(
    features: NDArray[np.float32], n_clusters: int, seed: int, device: str = "cpu"
) -> NDArray[np.float32]:
    """Return the centroids ``(n_clusters, C)`` of rows ``(n, C)``: k-means with one k-means++ start.

    The bits do not depend on the number of cores, but those of a GPU (``cuda``, ``cuda:N``) differ. With
    fewer than ``n_clusters`` distinct rows, centroids repeat.
    """
    if is_gpu(device):
        return fit_kmeans(features, n_clusters, seed, device)
    estimator = KMeans(**keywords_of(KMEANS, kmeans_settings(n_clusters, seed)))
    with _limit_threads(1), warnings.catch_warnings():  # threads would add partial sums as they finish
        warnings.simplefilter("ignore", ConvergenceWarning)  # repeated centroids, which the caller counts
        centroids: NDArray[np.float32] = estimator.fit(features).cluster_centers_
    return centroids.astype(np.float32, copy=False)


def nearest(
    centroids: NDArray[np.float32], features: NDArray[np.float32], device: str = "cpu"
) -> NDArray[np.int64]:
    """Return the number of the centroid ``(C, F)`` nearest to each row ``(n, F)``; the first of equals."""
    numbers = np.empty(len(features), np.int64)
    with transfers(device) as (to_device, from_device), _limit_threads(1):
        centroids = to_device(centroids)
        lengths = (centroids**2).sum(axis=1)
        for start in range(0, len(features), _ROWS):
            scores = 2 * (to_device(features[start : start + _ROWS]) @ centroids.T) - lengths
            numbers[start : start + _ROWS] = from_device(scores.argmax(axis=1))
    return numbers


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread, so that sums have the same bits on any number of cores."""
    with _limit_threads(1):
        yield


def is_linear(kind: ClassifierKind) -> bool:
    """Whether a classifier is a pipeline of standardisation and matrix products."""
    return kind in ("logistic", "ridge", "mlp")


@contextmanager
def prediction_threads(kind: ClassifierKind) -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread during predictions, so that their bits never vary.

    The limit applies to the process; concurrent callers wait for each other. Forests need none.
    """
    if kind == "forest":
        yield
    else:
        with _limit_threads(1):
            yield


def limit_worker_thread(kind: ClassifierKind) -> None:
    """Limit a worker thread within :func:`prediction_threads`: OpenMP's limit applies per thread."""
    if kind != "forest":
        _controller(len(sys.modules)).limit(limits=1)


@contextmanager
def _limit_threads(limit: int | None) -> Iterator[None]:
    with _LIMIT_LOCK, _controller(len(sys.modules)).limit(limits=limit):
        yield


@lru_cache(maxsize=1)
def _controller(modules: int) -> ThreadpoolController:
    """Return what sets the number of threads of the libraries that are loaded.

    Looking for them takes 7 ms, for each block; importing a module may load others.
    """
    return ThreadpoolController()
