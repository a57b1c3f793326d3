"""Map settings of a recipe to keyword arguments of estimators.

One table per kind maps a keyword to the name of its value in :func:`classifier_settings`. cuML uses the names
of scikit-learn, so :data:`FOREST`, :data:`LOGISTIC` and :data:`KMEANS` serve both libraries; keywords of only
one library are written where its estimator is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hrvol.recipe.specs import ClassifierKind, ClassifierSpec

FOREST = {
    "n_estimators": "trees",
    "max_features": "max_features",
    "max_depth": "max_depth",
    "min_samples_leaf": "min_samples_leaf",
    "class_weight": "class_weight",
    "random_state": "seed",
}

LOGISTIC = {"C": "inverse_regularisation", "class_weight": "class_weight", "max_iter": "max_iter"}

KMEANS = {"n_clusters": "clusters", "n_init": "starts", "random_state": "seed"}

RIDGE = {"alpha": "regularisation", "class_weight": "class_weight", "random_state": "seed"}

MLP = {
    "hidden_layer_sizes": "hidden",
    "alpha": "weight_decay",
    "max_iter": "max_iter",
    "random_state": "seed",
}

BOOSTING = {
    "max_iter": "trees",
    "learning_rate": "learning_rate",
    "max_depth": "max_depth",
    "min_samples_leaf": "min_samples_leaf",
    "class_weight": "class_weight",
    "random_state": "seed",
}

VOTERS: tuple[ClassifierKind, ...] = ("forest", "logistic")
"""Kinds whose class probabilities a vote averages."""

_MLP_ALPHA = 1e-4  # scikit-learn's default; `regularisation` scales it

_LOGISTIC_PENALTY = 100.0  # for recipes without one: benchmarks/studies/classifiers.md


def classifier_settings(spec: ClassifierSpec, n_features: int, seed: int) -> dict[str, Any]:
    """Return the values of a classifier's table: fields of the spec, the seed, and values derived from them.

    Parameters
    ----------
    spec
        Kind and settings.
    n_features
        Number of columns; a larger ``max_features`` is reduced to it.
    seed
        Random seed.
    """
    values = {**dict(spec), "seed": seed}
    penalty = spec.regularisation
    if penalty is None:
        penalty = _LOGISTIC_PENALTY if spec.kind in ("vote", "logistic") else 1.0
    values |= {
        "regularisation": penalty,
        "inverse_regularisation": 1.0 / penalty,
        "weight_decay": _MLP_ALPHA * penalty,
    }
    if spec.kind in ("vote", "forest"):
        values["max_features"] = _max_features(spec.max_features, n_features)
    return values


def kmeans_settings(clusters: int, seed: int) -> dict[str, Any]:
    """Return the values of :data:`KMEANS`: one start, with k-means++."""
    return {"clusters": clusters, "starts": 1, "seed": seed}


def keywords_of(table: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a table with their values."""
    return {keyword: values[setting] for keyword, setting in table.items()}


def voters(vote: Any) -> list[tuple[ClassifierKind, Any]]:
    """Return the kinds and fitted estimators of scikit-learn's ``VotingClassifier``."""
    return list(zip(VOTERS, vote.estimators_, strict=True))


def _max_features(value: str | float | None, n_features: int) -> str | int | float | None:
    if value is None or isinstance(value, str):
        return value
    # A fraction stays a fraction; a count is at most the number of columns.
    return value if isinstance(value, float) and value <= 1 else min(int(value), n_features)
