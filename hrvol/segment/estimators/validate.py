"""Validate estimators read from a model file."""

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
from hrvol.segment.estimators.estimators import is_linear, probabilities
from hrvol.segment.estimators.keywords import VOTERS, voters

TRUSTED_TYPES: tuple[str, ...] = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types that a stored classifier may contain beyond the ones skops trusts.

skops does not trust them because prediction follows their node numbers unchecked; :func:`check_fitted` checks
the numbers.
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
    """Check the kind, columns, classes and tree nodes of an estimator read from a file.

    scikit-learn follows the node numbers of trees unchecked. Each child must exist and come after its parent,
    and each tested column must exist, so that prediction ends and reads no memory out of bounds.

    Raises
    ------
    ValueError
        The estimator fails a check; the message names the values found and expected.
    """
    last = estimator
    if is_linear(kind):
        steps = [type(step) for step in estimator] if type(estimator) is Pipeline else [type(estimator)]
        if steps != [StandardScaler, _TYPES[kind]]:
            raise ValueError(
                f"found a classifier of {[step.__name__ for step in steps]}, expected kind {kind}"
            )
        last = estimator[-1]
    elif type(estimator) is not _TYPES[kind]:
        raise ValueError(f"found a {type(estimator).__name__}, expected a classifier of kind {kind}")
    values = tuple(int(value) for value in last.classes_)
    if values != classes:
        raise ValueError(f"found a classifier of classes {values}, expected {classes}")
    if kind == "vote":
        if len(estimator.estimators_) != len(VOTERS):
            raise ValueError(
                f"found a vote of {len(estimator.estimators_)} estimators, expected {len(VOTERS)}"
            )
        for member_kind, member in voters(estimator):
            check_fitted(member, member_kind, n_features, classes)
    if estimator.n_features_in_ != n_features:
        raise ValueError(f"found a classifier of {estimator.n_features_in_} columns, expected {n_features}")
    if kind == "forest":
        _check_forest(estimator, n_features, len(classes))
    elif kind == "boosting":
        _check_boosting(estimator, n_features)
    row = probabilities(estimator, np.zeros((1, n_features), np.float32))
    if row.shape != (1, len(classes)) or not np.isfinite(row).all():
        raise ValueError(
            f"found a classifier that predicts {row.tolist()}, expected {len(classes)} probabilities"
        )


def _check_forest(forest: RandomForestClassifier, n_features: int, n_classes: int) -> None:
    if forest.n_classes_ != n_classes or forest.n_outputs_ != 1 or not forest.estimators_:
        raise ValueError(f"found a forest of {forest.n_classes_} classes, expected {n_classes}")
    for member in forest.estimators_:
        tree = member.tree_
        # Check the count first: the arrays below are views of this length.
        if not 0 < tree.node_count <= tree.capacity:
            raise ValueError(f"found a tree of {tree.node_count} nodes, expected 1..{tree.capacity}")
        if tree.n_features != n_features or tree.value.shape[1:] != (1, n_classes):
            raise ValueError(
                f"found a tree of {tree.n_features} columns and {tree.value.shape[1:]} values per leaf, "
                f"expected {n_features} and {(1, n_classes)}"
            )
        is_leaf = tree.children_left == -1
        _check_nodes(is_leaf, tree.children_left, tree.children_right, tree.feature, n_features)


def _check_boosting(boosting: HistGradientBoostingClassifier, n_features: int) -> None:
    for predictors in boosting._predictors:
        if len(predictors) != boosting.n_trees_per_iteration_:
            raise ValueError(
                f"found {len(predictors)} trees per iteration, expected {boosting.n_trees_per_iteration_}"
            )
        for predictor in predictors:
            nodes = predictor.nodes
            if nodes.ndim != 1 or not len(nodes) or nodes["is_categorical"].any():
                raise ValueError(
                    "found a tree without nodes or with categorical splits, expected numerical ones"
                )
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
                "found a tree node with a child out of range, expected a number above its parent's and below "
                f"{len(is_leaf)}"
            )
    if (column[inner] < 0).any() or (column[inner] >= n_features).any():
        raise ValueError(f"found a tree node with a column out of range, expected columns below {n_features}")
