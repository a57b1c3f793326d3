"""A quick stand-in for a recipe's classifier, for previews while strokes are drawn.

The logistic regression is fitted on all features; as it is linear, it is applied to tokens before these are
upsampled. The forest has fewer trees, and instead of hundreds of deep features their principal components,
which are linear too. So no feature of the network is ever computed for all pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.features.projection import fit_projection
from hrvol.interactive.lane import Gate
from hrvol.interactive.parts import TileValues
from hrvol.recipe.specs import ClassifierKind, ClassifierSpec
from hrvol.segment.estimators.estimators import CHUNK, make_classifier, one_thread
from hrvol.segment.estimators.keywords import FOREST, classifier_settings, keywords_of
from hrvol.segment.estimators.linear import linear_head

TREES = 24
"""Trees of the forest of a preview, at most."""

PER_CLASS = 1000
"""Pixels of a class that a preview is trained on, at most."""

COMPONENTS = 32
"""Principal components of deep features that the forest uses."""

_PIXELS = 4000  # tokens or pixels that components are fitted to

_PARTS: dict[ClassifierKind, tuple[bool, bool]] = {
    "vote": (True, True),
    "forest": (True, False),
    "logistic": (False, True),
    "ridge": (False, True),
    "mlp": (True, True),
    "boosting": (True, True),
}
"""Whether the forest and the logistic regression stand in for a kind of classifier."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal components of deep features: ``weight`` is ``(P, C)``, ``bias`` ``(P,)``, float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, values: TileValues) -> Basis:
        """Fit the components to the tokens of a tile."""
        assert values.deep is not None
        tokens = np.concatenate([grid.flatten(0, 1).numpy() for grid in values.deep.tokens.grids])
        sample = tokens[:: max(1, len(tokens) // _PIXELS)]
        fitted = fit_projection(sample, min(COMPONENTS, sample.shape[1], len(sample)))
        weight = (fitted.components / fitted.scale[:, None]).T.astype(np.float32)
        return cls(np.ascontiguousarray(weight), -(weight @ fitted.mean))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the components ``(n, P)`` of deep features ``(n, C)``."""
        projected: NDArray[np.float32] = features @ self.weight.T + self.bias
        return projected


@dataclass(frozen=True, eq=False)
class _Forest:
    """Forests whose trees are averaged."""

    forests: tuple[tuple[Any, ...], ...]

    def probabilities(self, features: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
        """Return ``(n, K)``; columns that were hidden in training were constant, so no tree reads them."""
        total = np.zeros((len(features), classes))
        count = 0
        values = np.asfortranarray(features)
        for forest in self.forests:
            for member in forest:
                total += member.tree_.predict(values)
            count += len(forest)
        total /= count
        return total


@dataclass(frozen=True, eq=False)
class _Line:
    """A logistic regression with its standardisation: scores are ``features @ weight + bias``."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LiveClassifier:
    """A classifier of previews.

    Attributes
    ----------
    classes
        Class values in order.
    groups
        Columns of the ``deep`` and ``classical`` features.
    basis
        Components of deep features; ``None`` without any.
    """

    classes: tuple[int, ...]
    groups: Mapping[str, slice]
    basis: Basis | None
    _forest: _Forest | None
    _line: _Line | None

    @classmethod
    def fit(
        cls,
        features: NDArray[np.float32],
        labels: NDArray[Any],
        groups: Mapping[str, slice],
        basis: Basis | None,
        spec: ClassifierSpec,
        *,
        grey: tuple[int, ...] = (),
        seed: int = 0,
        threads: int = 1,
    ) -> LiveClassifier:
        """Fit on the features ``(n, C)`` of at least two classes.

        Parameters
        ----------
        features, labels
            Of the pixels.
        groups
            Columns of the ``deep`` and the ``classical`` features.
        basis
            Components of deep features.
        spec
            The recipe's classifier.
        grey
            Columns of grey values, see ``spec.grey_share``.
        seed
            Random seed.
        threads
            Threads of the fit.
        """
        has_forest, has_line = _PARTS[spec.kind]
        forest = line = None
        hides = bool(grey) and spec.grey_share < 1
        hidden = features
        if hides:
            hidden = features.copy()
            hidden[:, list(grey)] = 0
        if has_line:
            line = _fit_line(hidden, labels, spec, seed)
        if has_forest:
            forest = _fit_forest(
                [
                    _projected(values, groups, basis)
                    for values in ([features, hidden] if hides else [features])
                ],
                labels,
                spec,
                seed,
                threads,
            )
        return cls(tuple(int(v) for v in np.unique(labels)), groups, basis, forest, line)

    def predict(
        self, values: TileValues, rows: slice, columns: slice, gate: Gate, *, threads: int = 1
    ) -> NDArray[np.float32]:
        """Return the probabilities ``(y, x, K)`` of pixels of a tile's window.

        Parameters
        ----------
        values
            The tile's features.
        rows, columns
            Slices of the window with explicit bounds; they may have a step.
        gate
            Checked now and then.
        threads
            Threads of the prediction.
        """
        height = len(range(rows.start, rows.stop, rows.step or 1))
        width = len(range(columns.start, columns.stop, columns.step or 1))
        filters = None if values.filters is None else values.filters.stripe(rows, columns)
        deep = None if values.deep is None else values.deep.tokens
        classes = len(self.classes)
        total = np.zeros((height * width, classes), np.float32)
        count = 0
        if self._line is not None:
            scores = np.zeros((height, width, len(self._line.bias)), np.float32) + self._line.bias
            if deep is not None:
                mapped = deep.mapped(_tensor(self._line.weight[self.groups["deep"]].T))
                scores += _spread(mapped, rows, columns, (height, width))
            if filters is not None:
                scores += filters @ self._line.weight[self.groups["classical"]]
            total += _shares(scores.reshape(-1, scores.shape[-1]))
            count += 1
            gate.check()
        if self._forest is not None:
            columns_of = []
            if deep is not None and self.basis is not None:
                mapped = deep.mapped(_tensor(self.basis.weight), _tensor(self.basis.bias))
                columns_of.append(_spread(mapped, rows, columns, (height, width)))
            if filters is not None:
                columns_of.append(filters)
            features = np.concatenate(columns_of, axis=-1).reshape(height * width, -1)
            total += _by_chunks(self._forest, features, classes, gate, threads)
            count += 1
        total /= count
        return total.reshape(height, width, classes)

    def describe(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return few columns ``(n, D)`` that stand for features ``(n, C)``: what places are compared by."""
        return _projected(features, self.groups, self.basis)

    def predict_rows(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities ``(n, K)`` of features ``(n, C)``."""
        total = np.zeros((len(features), len(self.classes)), np.float32)
        count = 0
        if self._line is not None:
            total += _shares(features @ self._line.weight + self._line.bias)
            count += 1
        if self._forest is not None:
            projected = _projected(features, self.groups, self.basis)
            total += self._forest.probabilities(projected, len(self.classes)).astype(np.float32)
            count += 1
        total /= count
        return total


def _projected(
    features: NDArray[np.float32], groups: Mapping[str, slice], basis: Basis | None
) -> NDArray[np.float32]:
    """Return features with the components of the deep ones instead of these."""
    parts = []
    if "deep" in groups and basis is not None:
        parts.append(basis(features[:, groups["deep"]]))
    if "classical" in groups:
        parts.append(features[:, groups["classical"]])
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _fit_line(features: NDArray[np.float32], labels: NDArray[Any], spec: ClassifierSpec, seed: int) -> _Line:
    penalty = spec.regularisation if spec.kind in ("vote", "logistic") else None
    logistic = spec.model_copy(update={"kind": "logistic", "regularisation": penalty})
    pipeline = make_classifier(logistic, features.shape[1], seed)
    # In single precision, unlike a model's: labels are the same but for some in ten thousand. On one thread:
    # products with so few columns take BLAS many times as long on several, if others compute beside it.
    with one_thread():
        pipeline.fit(np.ascontiguousarray(features, np.float32), labels)
    head = linear_head("logistic", pipeline)
    ((weight, bias),) = head.layers
    return _Line(weight.astype(np.float32), bias.astype(np.float32))


def _fit_forest(
    groups: list[NDArray[np.float32]], labels: NDArray[Any], spec: ClassifierSpec, seed: int, threads: int
) -> _Forest:
    """Fit trees as a random forest does.

    Not by scikit-learn's own forest: its threads set the warning filters of the process, and a fit beside
    another one, of a model that is trained meanwhile, leaves none of them.
    """
    from sklearn.tree import DecisionTreeClassifier

    trees = max(1, min(spec.trees, TREES) // len(groups))
    forest = spec.model_copy(update={"kind": "forest", "trees": trees})

    def grow(group: int, number: int) -> Any:
        features = groups[group]
        rng = np.random.default_rng([seed, group, number])
        options = keywords_of(FOREST, classifier_settings(forest, features.shape[1], seed))
        del options["n_estimators"]
        options["random_state"] = int(rng.integers(2**31))
        counts = np.bincount(rng.integers(0, len(labels), len(labels)), minlength=len(labels))
        return DecisionTreeClassifier(**options).fit(features, labels, sample_weight=counts)

    with ThreadPoolExecutor(max(threads, 1), "hrvol-trees") as pool:
        return _Forest(
            tuple(tuple(pool.map(partial(grow, group), range(trees))) for group in range(len(groups)))
        )


def _shares(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities ``(n, K)`` of scores: softmax, or of one score the sigmoid."""
    if scores.shape[1] == 1:
        second = 1 / (1 + np.exp(-np.clip(scores, -60, 60)))
        return np.concatenate([1 - second, second], axis=1)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _by_chunks(
    forest: _Forest, features: NDArray[np.float32], classes: int, gate: Gate, threads: int
) -> NDArray[np.float32]:
    found = np.empty((len(features), classes), np.float32)

    def predict(start: int) -> None:
        gate.check()
        found[start : start + CHUNK] = forest.probabilities(features[start : start + CHUNK], classes)

    starts = range(0, len(features), CHUNK)
    if threads <= 1:
        for start in starts:
            predict(start)
    else:
        with ThreadPoolExecutor(threads, "hrvol-preview") as pool:
            for _ in pool.map(predict, starts):
                pass
    return found


def _tensor(values: NDArray[np.float32]) -> Any:
    import torch  # only where a network computes features

    return torch.from_numpy(np.ascontiguousarray(values))


def _spread(tokens: Any, rows: slice, columns: slice, shape: tuple[int, int]) -> NDArray[np.float32]:
    import torch

    out = torch.empty((*shape, tokens.grids[0].shape[-1]))
    tokens.spread(rows, columns, out)
    values: NDArray[np.float32] = out.numpy()
    return values
