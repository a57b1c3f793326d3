"""Validate forests and boosted trees read from a model file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn._loss.link import LogitLink, MultinomialLogit
from sklearn._loss.loss import HalfBinomialLoss, HalfMultinomialLoss
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from hrvol.segment.estimators.attributes import attribute, check_number, check_numbers

_TOLERANCE = 1e-3  # of the sum of a leaf's probabilities: those of a forest fitted on a GPU are float32


def check_forest(forest: RandomForestClassifier, n_features: int, n_classes: int) -> None:
    """Check the trees of a forest; raise ``ValueError`` if one is damaged."""
    check_number(forest, "n_classes_", n_classes)
    check_number(forest, "n_outputs_", 1)
    members = attribute(forest, "estimators_", list)
    if not members:
        raise ValueError("found a forest without trees, expected at least one")
    for member in members:
        if type(member) is not DecisionTreeClassifier:
            raise ValueError(f"found a {type(member).__name__} in a forest, expected trees")
        _check_tree(attribute(member, "tree_", Tree), n_features, n_classes)


def _check_tree(tree: Any, n_features: int, n_classes: int) -> None:
    # Check the count first: the arrays below are views of this length.
    if not 0 < tree.node_count <= tree.capacity:
        raise ValueError(f"found a tree of {tree.node_count} nodes, expected 1..{tree.capacity}")
    values = tree.value
    if tree.n_features != n_features or values.shape[1:] != (1, n_classes):
        raise ValueError(
            f"found a tree of {tree.n_features} columns and {values.shape[1:]} values per leaf, "
            f"expected {n_features} and {(1, n_classes)}"
        )
    left = tree.children_left
    is_leaf = left == -1
    _check_nodes(is_leaf, left, tree.children_right, tree.feature, tree.threshold, n_features)
    leaves = values[is_leaf, 0]
    sums = leaves.sum(axis=1)
    # Comparisons with NaN are false.
    if not ((leaves >= 0).all() and (np.abs(sums - 1) <= _TOLERANCE).all()):
        raise ValueError(
            f"found a tree with a leaf of {leaves.min():g} to {leaves.max():g}, expected probabilities"
        )


def check_boosting(boosting: HistGradientBoostingClassifier, n_features: int, n_classes: int) -> None:
    """Check the trees of boosting, and what turns their sums into probabilities."""
    trees = 1 if n_classes == 2 else n_classes
    check_number(boosting, "n_trees_per_iteration_", trees)
    attribute(boosting, "_preprocessor", type(None))
    baseline = attribute(boosting, "_baseline_prediction", np.ndarray)
    check_numbers("_baseline_prediction", baseline, (1, trees))
    categorical = attribute(attribute(boosting, "_bin_mapper", _BinMapper), "is_categorical_", np.ndarray)
    if categorical.shape != (n_features,) or categorical.dtype != np.uint8 or categorical.any():
        raise ValueError(f"found categorical columns, expected {n_features} of numbers")
    loss, link = (HalfBinomialLoss, LogitLink) if n_classes == 2 else (HalfMultinomialLoss, MultinomialLogit)
    attribute(attribute(boosting, "_loss", loss), "link", link)
    for predictors in attribute(boosting, "_predictors", list):
        if type(predictors) is not list or len(predictors) != trees:
            raise ValueError(f"found other than {trees} trees per iteration, expected as many")
        for predictor in predictors:
            if type(predictor) is not TreePredictor:
                raise ValueError(f"found a {type(predictor).__name__} in boosting, expected trees")
            _check_predictor(attribute(predictor, "nodes", np.ndarray), n_features)


def _check_predictor(nodes: NDArray[Any], n_features: int) -> None:
    if nodes.dtype != PREDICTOR_RECORD_DTYPE:
        raise ValueError("found nodes of another type, expected those of boosted trees")
    if nodes.ndim != 1 or not len(nodes) or nodes["is_categorical"].any():
        raise ValueError("found a tree without nodes or with categorical splits, expected numerical ones")
    is_leaf = nodes["is_leaf"].astype(bool)
    _check_nodes(
        is_leaf, nodes["left"], nodes["right"], nodes["feature_idx"], nodes["num_threshold"], n_features
    )
    if not np.isfinite(nodes["value"][is_leaf]).all():
        raise ValueError("found a tree with a leaf of NaN or infinity, expected finite values")


def _check_nodes(
    is_leaf: NDArray[np.bool_],
    left: NDArray[Any],
    right: NDArray[Any],
    column: NDArray[Any],
    threshold: NDArray[Any],
    n_features: int,
) -> None:
    inner = np.flatnonzero(~is_leaf)
    both = left[inner].astype(np.int64), right[inner].astype(np.int64)
    for children in both:
        if (children <= inner).any() or (children >= len(is_leaf)).any():
            raise ValueError(
                "found a tree node with a child out of range, expected a number above its parent's and below "
                f"{len(is_leaf)}"
            )
    if not np.array_equal(np.sort(np.concatenate(both)), np.arange(1, len(is_leaf))):
        raise ValueError("found a tree whose nodes have no or several parents, expected one for each")
    columns = column[inner]
    if (columns < 0).any() or (columns >= n_features).any():
        raise ValueError(f"found a tree node with a column out of range, expected columns below {n_features}")
    if not np.isfinite(threshold[inner]).all():
        raise ValueError("found a tree node with a threshold of NaN or infinity, expected finite ones")
