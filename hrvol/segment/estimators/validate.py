"""Estimators read from a file: whether they are what they claim to be, and can be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from hrvol.recipe.specs import ClassifierKind
from hrvol.segment.estimators.estimators import linear, probabilities
from hrvol.segment.estimators.keywords import VOTERS, voters

TRUSTED_TYPES: tuple[str, ...] = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types a stored classifier may hold beyond the ones skops trusts by itself.

skops leaves them out because their node numbers are followed unchecked; :func:`check_fitted` checks them.
"""

_TYPES: dict[ClassifierKind, type] = {
    "vote": VotingClassifier,
    "forest": RandomForestClassifier,
    "logistic": LogisticRegression,
    "ridge": RidgeClassifier,
    "mlp": MLPClassifier,
    "boosting": HistGradientBoostingClassifier,
}


def check_fitted(estimator: Any, kind: ClassifierKind, n_features: int, classes: tuple[int, ...]) -> None:
    """Check that an estimator read from a file is what it claims to be and cannot send prediction astray.

    Trees are stored as arrays of node numbers that scikit-learn follows without looking. Here each child
    must exist and come after its parent, and each tested column must exist: so prediction ends and stays in
    bounds.

    Raises
    ------
    ValueError
        What was found and what was expected.
    """
    last = estimator
    if linear(kind):
        steps = [type(step) for step in estimator] if type(estimator) is Pipeline else [type(estimator)]
        if steps != [StandardScaler, _TYPES[kind]]:
            raise ValueError(
                f"found a classifier of {[step.__name__ for step in steps]}, expected kind {kind}"
            )
        last = estimator[-1]
    elif type(estimator) is not _TYPES[kind]:
        raise ValueError(f"found a {type(estimator).__name__}, expected a classifier of kind {kind}")
    found = tuple(int(value) for value in last.classes_)
    if found != classes:
        raise ValueError(f"found a classifier of classes {found}, expected {classes}")
    if kind == "vote":
        if len(estimator.estimators_) != len(VOTERS):
            raise ValueError(f"found a vote of {len(estimator.estimators_)}, expected {len(VOTERS)}")
        for part, fitted in voters(estimator):
            check_fitted(fitted, part, n_features, classes)
    if estimator.n_features_in_ != n_features:
        raise ValueError(f"found a classifier of {estimator.n_features_in_} columns, expected {n_features}")
    if kind == "forest":
        _check_forest(estimator, n_features, len(classes))
    elif kind == "boosting":
        _check_boosting(estimator, n_features)
    answer = probabilities(estimator, np.zeros((1, n_features), np.float32))
    if answer.shape != (1, len(classes)) or not np.isfinite(answer).all():
        raise ValueError(
            f"found a classifier that answers {answer.tolist()}, expected {len(classes)} probabilities"
        )


def _check_forest(forest: RandomForestClassifier, n_features: int, n_classes: int) -> None:
    if forest.n_classes_ != n_classes or forest.n_outputs_ != 1 or not forest.estimators_:
        raise ValueError(f"found a forest of {forest.n_classes_} classes, expected {n_classes}")
    for member in forest.estimators_:
        tree = member.tree_
        # First the count: the arrays below are views of that length.
        if not 0 < tree.node_count <= tree.capacity:
            raise ValueError(f"found a tree of {tree.node_count} nodes, expected 1..{tree.capacity}")
        if tree.n_features != n_features or tree.value.shape[1:] != (1, n_classes):
            raise ValueError(
                f"found a tree of {tree.n_features} columns and {tree.value.shape[1:]} values a leaf, "
                f"expected {n_features} and {(1, n_classes)}"
            )
        is_leaf = tree.children_left == -1
        _check_nodes(is_leaf, tree.children_left, tree.children_right, tree.feature, n_features)


def _check_boosting(boosting: HistGradientBoostingClassifier, n_features: int) -> None:
    for predictors in boosting._predictors:
        if len(predictors) != boosting.n_trees_per_iteration_:
            raise ValueError(
                f"found {len(predictors)} trees in a round, expected {boosting.n_trees_per_iteration_}"
            )
        for predictor in predictors:
            nodes = predictor.nodes
            if nodes.ndim != 1 or not len(nodes) or nodes["is_categorical"].any():
                raise ValueError("found a tree without nodes or with categories, expected splits by value")
            _check_nodes(
                nodes["is_leaf"].astype(bool), nodes["left"], nodes["right"], nodes["feature_idx"], n_features
            )


def _check_nodes(
    is_leaf: NDArray[np.bool_],
    left: NDArray[Any],
    right: NDArray[Any],
    column: NDArray[Any],
    n_features: int,
) -> None:
    inner = np.flatnonzero(~is_leaf)
    for children in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        if (children <= inner).any() or (children >= len(is_leaf)).any():
            raise ValueError(
                f"found a tree with a child out of place, expected children within {len(is_leaf)} nodes"
            )
    if (column[inner] < 0).any() or (column[inner] >= n_features).any():
        raise ValueError(
            f"found a tree that tests a column out of range, expected columns below {n_features}"
        )
