"""Gradient boosting, neural networks and linear classifiers inside of models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.runs.hostile.case import SAME, Case
from benchmarks.runs.hostile.estimators import (
    Members,
    array_edit,
    attributes,
    case,
    found,
    literal,
    other_estimator,
    plain,
    setting,
)


def cases() -> Iterator[Case]:
    model = "boosted.hrvol"
    boosting = "HistGradientBoostingClassifier"

    def nodes(schema: Any) -> Any:
        return attributes(found(schema, "TreePredictor")[0])["nodes"]

    for name, change in {
        "left child far out": setting("left", 0, 10**6),
        "left child itself": setting("left", 0, 0),
        "right child itself": setting("right", 0, 0),
        "feature far out": setting("feature_idx", 0, 10**6),
        "threshold NaN": setting("num_threshold", 0, np.nan),
        "value NaN": setting("value", -1, np.nan),
        "value infinite": setting("value", -1, np.inf),
        "categorical": setting("is_categorical", 0, 1),
        "no nodes": lambda values: values[:0],
        "nodes of floats": lambda values: np.zeros(len(values)),
        "no leaf": lambda values: setting("is_leaf", slice(None), 0)(values),
    }.items():
        yield from case(name, array_edit(nodes, change), model=model)
    for key in (
        "_preprocessor",
        "_bin_mapper",
        "_predictors",
        "_baseline_prediction",
        "classes_",
        "n_features_in_",
        "_loss",
        "_n_features",
        "n_trees_per_iteration_",
    ):
        for name, value in (("another estimator", None), ("text", "x")):

            def edit(schema: Any, members: Members, key: str = key, value: Any = value) -> None:
                node = found(schema, boosting)[0]
                attributes(node)[key] = other_estimator(schema) if value is None else plain(value)

            yield from case(f"{key} is {name}", edit, SAME, model=model, both=value is None)
    for model, class_name, key in (
        ("mlp.hrvol", "MLPClassifier", "coefs_"),
        ("linear.hrvol", "LogisticRegression", "coef_"),
    ):
        for name, value in (("text", "x"), ("null", None), ("a number", 10**9)):
            yield from case(f"{key} is {name}", literal(class_name, key, value), model=model)
        for other in (
            ("n_layers_", "out_activation_", "_label_binarizer", "activation")
            if class_name == "MLPClassifier"
            else ("classes_", "intercept_", "solver")
        ):
            yield from case(
                f"{other} is text", literal(class_name, other, "x"), SAME, model=model, both=False
            )
