"""The one door to scikit-learn: classifiers made, fitted and asked by kind; and k-means.

Six kinds, named in :class:`hrvol.recipe.recipe.ClassifierSpec`:

===========  ==================================================================================
vote         mean of the probabilities of a forest and a logistic regression
forest       random forest, as in Trainable Weka Segmentation and the paper (section 3.3)
logistic     standardised columns, L2 logistic regression
ridge        standardised columns, ridge regression on +-1 targets; see :func:`probabilities`
mlp          standardised columns, multi-layer perceptron
boosting     histogram gradient boosting
===========  ==================================================================================

Everything is seeded, and a fit does not depend on the number of threads. Forests, logistic regression and
k-means can be fitted on a GPU instead (:mod:`hrvol.segment.estimators.cuml`); what comes back is
scikit-learn's all the same.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from hrvol.arrays import average
from hrvol.recipe.specs import ClassifierKind, ClassifierSpec
from hrvol.segment.estimators import cuml as gpu
from hrvol.segment.estimators.keywords import (
    BOOSTING,
    FOREST,
    KMEANS,
    LOGISTIC,
    MLP,
    RIDGE,
    VOTERS,
    kmeans_settings,
    named,
    settings,
    voters,
)

CHUNK = 4096
"""Pixels a thread predicts at a time: their features stay in its cache (measured faster than 16k and 64k)."""

_ROWS = 16_384  # rows whose distances to centroids are held at once

_one_limit_at_a_time = threading.RLock()


def make_classifier(spec: ClassifierSpec, n_features: int, seed: int, n_jobs: int = 1) -> Any:
    """Return an unfitted classifier of any kind but ``vote``.

    Parameters
    ----------
    spec
        Kind and settings. A kind ignores what it does not know: only ``forest`` reads ``max_features``;
        ``trees``, ``max_depth`` and ``min_samples_leaf`` are for ``forest`` and ``boosting``;
        ``regularisation`` is the strength of the penalty (logistic: ``1 / C``, ridge: ``alpha``, mlp: a
        factor on ``alpha`` = 1e-4).
    n_features
        Number of columns; a larger ``max_features`` means all of them.
    seed
        Random seed.
    n_jobs
        Threads the fit of a forest may use, -1 for all cores.

    Raises
    ------
    RecipeError
        ``max_features`` is not above 0.
    ValueError
        The kind is ``vote``.
    """
    if spec.kind == "vote":
        raise ValueError("found kind vote, expected one of those that vote")
    values = settings(spec, n_features, seed)
    if spec.kind == "forest":
        return RandomForestClassifier(**named(FOREST, values), n_jobs=n_jobs)
    if spec.kind == "boosting":
        # Early stopping would hold back pixels next to training pixels, and so tell nothing.
        return HistGradientBoostingClassifier(**named(BOOSTING, values), early_stopping=False)
    last: Any
    if spec.kind == "logistic":
        last = LogisticRegression(**named(LOGISTIC, values), random_state=seed)
    elif spec.kind == "ridge":
        last = RidgeClassifier(**named(RIDGE, values))
    else:
        last = MLPClassifier(**named(MLP, values))
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
        Threads a forest or boosting may use, -1 for all cores. The result does not depend on it.
    device
        ``cpu``, or ``cuda`` or ``cuda:N``: a GPU, for what :func:`hrvol.segment.estimators.cuml.fits_there`
        says. The others are fitted on the CPU all the same.
    grey
        Columns of grey values, which only ``spec.grey_share`` of a forest's trees look at, and a logistic
        regression does not if that is below 1.

    Returns
    -------
    Any
        The fitted estimator, of scikit-learn; ``classes_`` of its last step are the values of ``labels`` in
        rising order. A fit on a GPU differs in its bits, and by a little in its answers.

    Raises
    ------
    MissingExtraError
        cuML is needed and not installed.
    UsageError
        There is no such device.
    """
    if spec.kind == "vote":
        parts = [spec.model_copy(update={"kind": kind}) for kind in VOTERS]
        fitted = [fit_classifier(part, features, labels, seed, n_jobs, device, grey) for part in parts]
        return _vote_of(fitted, labels)
    if len(grey) and spec.grey_share < 1 and spec.kind in VOTERS:
        return _fit_covered(spec, features, labels, seed, n_jobs, device, list(grey))
    estimator = make_classifier(spec, features.shape[1], seed, n_jobs)
    if gpu.on_gpu(device) and gpu.fits_there(spec):
        values = settings(spec, features.shape[1], seed)
        if spec.kind == "forest":
            return gpu.fit_forest(estimator, values, features, labels, device).set_params(n_jobs=1)
        return gpu.fit_logistic(estimator, values, features, labels, device)
    if spec.kind == "forest":
        estimator.fit(features, labels)
        # Stored models must not depend on the machine they were trained on. Nor may prediction: with several
        # jobs scikit-learn adds up the trees in the order in which they finish.
        return estimator.set_params(n_jobs=1)
    if spec.kind == "boosting":
        with _threads(None if n_jobs == -1 else n_jobs):
            estimator.fit(features, labels)
        estimator._bin_mapper.n_threads = 1  # kept in the file, though prediction asks anew
        return estimator
    with _threads(1):
        if spec.kind != "mlp":
            # Solvers stall in single precision.
            return estimator.fit(features.astype(np.float64), labels)
        balanced = spec.class_weight == "balanced"
        weights = compute_sample_weight("balanced", labels) if balanced else None
        estimator.fit(features, labels, classifier__sample_weight=weights)
    # The optimiser's moments are twice the size of the network and serve training only.
    vars(estimator[-1]).pop("_optimizer", None)
    return estimator


def _vote_of(fitted: Sequence[Any], labels: NDArray[Any]) -> VotingClassifier:
    """Return the vote of fitted estimators, as scikit-learn has it after a fit."""
    unfitted = [(name, clone(part)) for name, part in zip(VOTERS, fitted, strict=True)]
    vote = VotingClassifier(unfitted, voting="soft")
    vote.estimators_ = list(fitted)
    vote.le_ = LabelEncoder().fit(labels)
    vote.classes_ = vote.le_.classes_
    return vote


def _fit_covered(
    spec: ClassifierSpec,
    features: NDArray[np.float32],
    labels: NDArray[Any],
    seed: int,
    n_jobs: int,
    device: str,
    grey: list[int],
) -> Any:
    """Fit a forest some of whose trees do not look at some columns, or another estimator that does not.

    The columns are constant for these: no tree splits such a column, and its weight is 0.
    """
    covered = features.copy()
    covered[:, grey] = 0
    seeing = {"grey_share": 1.0}
    if spec.kind != "forest":
        estimator = fit_classifier(spec.model_copy(update=seeing), covered, labels, seed, n_jobs, device)
        estimator[-1].coef_[:, grey] = 0  # nothing but rounding may have been there
        return estimator
    count = round(spec.trees * spec.grey_share)
    other_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    shares = (count, features, seed), (spec.trees - count, covered, other_seed)
    forests = [
        fit_classifier(
            spec.model_copy(update=seeing | {"trees": trees}), shown, labels, its_seed, n_jobs, device
        )
        for trees, shown, its_seed in shares
        if trees
    ]
    for other in forests[1:]:
        forests[0].estimators_ += other.estimators_
    return forests[0].set_params(n_estimators=spec.trees, random_state=seed)


def probabilities(estimator: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return class probabilities ``(n, K)`` in order of class value, float64.

    Matrix products are worked out in float64, because their last bits depend on where a row stands among the
    others: rounded to float32 afterwards, they do not.

    Ridge regression knows no probabilities: its are the softmax of the decision function, which ranks classes
    as the classifier does but is not calibrated (two classes: of -d and +d).
    """
    if type(estimator) is VotingClassifier:
        return np.asarray(average([probabilities(part, features) for _, part in voters(estimator)]))
    if type(estimator) is RandomForestClassifier:
        return _forest_probabilities(estimator, features)
    if isinstance(estimator, Pipeline):  # the kinds that are `linear`
        return _products(estimator, features)[: len(features)]
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(features), dtype=np.float64)
    raise TypeError(f"found a {type(estimator).__name__}, expected a classifier of a known kind")


def _products(estimator: Pipeline, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of at least so many rows, in float64.

    The bits of a matrix product may depend on its number of rows: it is never less than :data:`CHUNK`.
    """
    rows, columns = features.shape
    exact = np.zeros((max(rows, CHUNK), columns))
    exact[:rows] = features
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(exact), dtype=np.float64)
    scores = np.asarray(estimator.decision_function(exact), dtype=np.float64)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    return np.asarray(softmax(scores, axis=1), dtype=np.float64)


def _forest_probabilities(
    forest: RandomForestClassifier, features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the very bits of ``forest.predict_proba``, sooner: it checks and locks anew for each tree.

    Column by column in memory: pixels side by side are alike, so they ask a tree for the same columns.
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
    """Return the centroids ``(n_clusters, C)`` that k-means finds in ``(n, C)``, one start with k-means++.

    The same bits on any number of cores; on a GPU (``cuda`` or ``cuda:N``) other ones. Where fewer than
    ``n_clusters`` rows differ, centroids repeat.
    """
    if gpu.on_gpu(device):
        return gpu.fit_kmeans(features, n_clusters, seed, device)
    estimator = KMeans(**named(KMEANS, kmeans_settings(n_clusters, seed)))
    with _threads(1), warnings.catch_warnings():  # threads add up their parts in the order they finish
        warnings.simplefilter("ignore", ConvergenceWarning)  # of repeated centroids; the caller counts
        centroids: NDArray[np.float32] = estimator.fit(features).cluster_centers_
    return centroids.astype(np.float32, copy=False)


def nearest(
    centroids: NDArray[np.float32], features: NDArray[np.float32], device: str = "cpu"
) -> NDArray[np.int64]:
    """Return the number of the centroid ``(C, F)`` nearest to each row ``(n, F)``, or the first."""
    found = np.empty(len(features), np.int64)
    with gpu.transfers(device) as (there, back), _threads(1):
        centroids = there(centroids)
        lengths = (centroids**2).sum(axis=1)
        for start in range(0, len(features), _ROWS):
            scores = 2 * (there(features[start : start + _ROWS]) @ centroids.T) - lengths
            found[start : start + _ROWS] = back(scores.argmax(axis=1))
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread, so that sums have the same bits on any number of cores."""
    with _threads(1):
        yield


def linear(kind: ClassifierKind) -> bool:
    """Whether a classifier is a pipeline of matrix products."""
    return kind in ("logistic", "ridge", "mlp")


@contextmanager
def prediction_threads(kind: ClassifierKind) -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread while predictions run, so that their bits never vary.

    The limit belongs to the process; concurrent holders of it wait for each other. Forests need none.
    """
    if kind == "forest":
        yield
    else:
        with _threads(1):
            yield


def hold_threads(kind: ClassifierKind) -> None:
    """Start a thread that predicts within :func:`prediction_threads`: OpenMP's limit is each thread's own."""
    if kind != "forest":
        threadpool_limits(1)


@contextmanager
def _threads(limit: int | None) -> Iterator[None]:
    with _one_limit_at_a_time, threadpool_limits(limit):
        yield
