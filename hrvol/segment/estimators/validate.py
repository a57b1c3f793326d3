"""Validate estimators read from a model file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from hrvol.recipe.specs import ClassifierKind
from hrvol.segment.estimators.attributes import attribute, check_number, check_numbers
from hrvol.segment.estimators.estimators import is_linear, probabilities
from hrvol.segment.estimators.keywords import VOTERS, voters
from hrvol.segment.estimators.validate_trees import check_boosting, check_forest

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

_TOLERANCE = 1e-6


def check_fitted(estimator: Any, kind: ClassifierKind, n_features: int, classes: tuple[int, ...]) -> None:
    """Check all that a prediction uses of an estimator read from a file, before it predicts.

    scikit-learn trusts its attributes: it calls methods of whatever object they hold, and follows the node
    numbers of trees unchecked. So each attribute has exactly the type, shape and range that a fit gives it,
    each child of a tree exists and comes after its parent, and each tested column exists. Then a prediction
    ends, reads no memory out of bounds, and returns probabilities.

    Raises
    ------
    ValueError
        The estimator fails a check; the message names the values found and expected.
    """
    last = estimator
    if is_linear(kind):
        last = _last_of_pipeline(estimator, kind, n_features)
    elif type(estimator) is not _TYPES[kind]:
        raise ValueError(f"found a {type(estimator).__name__}, expected a classifier of kind {kind}")
    _check_classes(last, classes)
    if kind == "vote":
        members = attribute(estimator, "estimators_", list)
        if len(members) != len(VOTERS):
            raise ValueError(f"found a vote of {len(members)} estimators, expected {len(VOTERS)}")
        for member_kind, member in voters(estimator):
            check_fitted(member, member_kind, n_features, classes)
        return
    _check_columns(last, n_features)
    if kind == "forest":
        check_forest(estimator, n_features, len(classes))
    elif kind == "boosting":
        check_boosting(estimator, n_features, len(classes))
    elif kind == "mlp":
        _check_mlp(last, n_features, len(classes))
    else:
        rows = len(classes) if len(classes) > 2 else 1
        check_numbers("coef_", np.atleast_2d(last.coef_), (rows, n_features))
        check_numbers("intercept_", np.atleast_1d(last.intercept_), (rows,))
    row = probabilities(estimator, np.zeros((1, n_features), np.float32))
    if row.shape != (1, len(classes)) or not _are_probabilities(row):
        raise ValueError(
            f"found a classifier that predicts {row.tolist()}, expected {len(classes)} probabilities"
        )


def _last_of_pipeline(pipeline: Any, kind: ClassifierKind, n_features: int) -> Any:
    """Check a pipeline and its standardisation, and return its classifier."""
    steps = attribute(pipeline, "steps", list) if type(pipeline) is Pipeline else [("", pipeline)]
    if any(type(step) is not tuple or len(step) != 2 for step in steps):
        raise ValueError("found a pipeline of damaged steps, expected names with estimators")
    found = [type(step) for _, step in steps]
    if found != [StandardScaler, _TYPES[kind]]:
        raise ValueError(f"found a classifier of {[step.__name__ for step in found]}, expected kind {kind}")
    scaler, last = (step for _, step in steps)
    _check_columns(scaler, n_features)
    if (scaler.with_mean, scaler.with_std) != (True, True):
        raise ValueError("found a scaler that does not standardise, expected one that does")
    check_numbers("mean_", attribute(scaler, "mean_", np.ndarray), (n_features,))
    scale = check_numbers("scale_", attribute(scaler, "scale_", np.ndarray), (n_features,))
    if not (scale > 0).all():
        raise ValueError(f"found a scaler with the divisor {scale.min():g}, expected more than 0")
    return last


def _check_columns(estimator: Any, n_features: int) -> None:
    columns = vars(estimator).get("n_features_in_")
    if type(columns) is not int or columns != n_features:
        raise ValueError(f"found a classifier of {columns!r:.40} columns, expected {n_features}")


def _check_classes(last: Any, classes: tuple[int, ...]) -> None:
    if "_label_binarizer" in vars(last):  # which some versions of scikit-learn take the classes from
        _check_class_values(attribute(last, "_label_binarizer", LabelBinarizer), classes)
    _check_class_values(last, classes)


def _check_class_values(owner: Any, classes: tuple[int, ...]) -> None:
    values = getattr(owner, "classes_", None)
    if type(values) is not np.ndarray or values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"found classes of type {type(values).__name__}, expected integers")
    if len(values) != len(classes) or tuple(values.tolist()) != classes:
        found = tuple(values[:20].tolist())
        raise ValueError(f"found a classifier of classes {found}, expected {classes[:20]}")


def _check_mlp(mlp: MLPClassifier, n_features: int, n_classes: int) -> None:
    outputs, ending = (n_classes, "softmax") if n_classes > 2 else (1, "logistic")
    if (mlp.activation, mlp.out_activation_) != ("relu", ending):
        raise ValueError(
            f"found an mlp with activations {mlp.activation!r:.40} and {mlp.out_activation_!r:.40},"
            f" expected relu and {ending}"
        )
    weights, biases = attribute(mlp, "coefs_", list), attribute(mlp, "intercepts_", list)
    if not weights or len(weights) != len(biases):
        raise ValueError(f"found {len(weights)} layers and {len(biases)} biases, expected as many")
    check_number(mlp, "n_layers_", len(weights) + 1)
    check_number(mlp, "n_outputs_", outputs)
    width = n_features
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if type(weight) is not np.ndarray or weight.ndim != 2:
            raise ValueError(f"found layer {number} of type {type(weight).__name__}, expected an array")
        following = weight.shape[1] if number + 1 < len(weights) else outputs
        check_numbers(f"coefs_[{number}]", weight, (width, following))
        check_numbers(f"intercepts_[{number}]", bias, (following,))
        width = following


def _are_probabilities(rows: NDArray[np.float64]) -> bool:
    within = np.isfinite(rows).all() and (rows >= 0).all() and (rows <= 1 + _TOLERANCE).all()
    return bool(within and np.allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-3))
