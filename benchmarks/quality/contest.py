"""Classifiers on several kinds of features, all from one pass over the hybrid features.

Hybrid features are the deep and the classical ones side by side, so the other kinds are groups of their
columns; the product of three forests needs no forest of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.pixel_classifier import Member, PixelClassifier
from hrvol.segment.strokes import Samples

KINDS = ("classical", "deep", "hybrid")
PRODUCT = "hybrid product"

CLASSIFIERS: Mapping[str, ClassifierSpec] = {
    "forest, published": PRESETS["paper"].classifier,
    "forest": ClassifierSpec(kind="forest"),
    "logistic": ClassifierSpec(kind="logistic"),
    "vote": PRESETS["balanced"].classifier,
}
"""``published``: 2 features a split, depth 10, leaf 1; the other: sqrt(n) a split, full depth, leaf 2.
``vote`` is the default."""


@dataclass(frozen=True)
class Entry:
    """One row of a table: which features of which preset, and which classifier."""

    preset: str
    features: str
    classifier: str


@dataclass(frozen=True, eq=False)
class Contest:
    """Fitted classifiers of one kind, one per kind of features.

    Attributes
    ----------
    classifiers
        Kind of features -> classifier.
    columns
        Kind of features -> columns of the hybrid features.
    """

    classifiers: Mapping[str, PixelClassifier]
    columns: Mapping[str, slice]

    @classmethod
    def fit(
        cls,
        samples: Samples,
        groups: Mapping[str, slice],
        spec: ClassifierSpec,
        *,
        grey: Sequence[int] = (),
        seed: int,
        threads: int = 1,
    ) -> Contest:
        """Fit a classifier on each kind of features.

        Parameters
        ----------
        samples
            Training data with all columns of the hybrid features.
        groups
            Columns of the ``deep`` and the ``classical`` features.
        spec
            Of the classifiers.
        grey
            Columns of grey values, see :class:`hrvol.recipe.recipe.ClassifierSpec`; for hybrid features.
        seed
            Of each.
        threads
            Threads of a fit.
        """
        columns = {**groups, "hybrid": slice(0, samples.features.shape[1])}
        fitted = {}
        for kind in KINDS:
            samples_of_kind = Samples(samples.features[:, columns[kind]], samples.labels, samples.image)
            hidden = grey if kind == "hybrid" else ()
            fitted[kind] = PixelClassifier.fit(samples_of_kind, spec, grey=hidden, seed=seed, n_jobs=threads)
        return cls(fitted, columns)

    def predict(self, features: NDArray[np.float32], *, threads: int = 1) -> dict[str, NDArray[np.uint16]]:
        """Return class values ``(n,)`` by kind of features, from ``(n, C)`` hybrid features.

        Forests add the product of all three.
        """
        proba = {
            kind: classifier.predict_proba(features[:, self.columns[kind]], threads=threads)
            for kind, classifier in self.classifiers.items()
        }
        first = next(iter(self.classifiers.values()))
        if first.spec.kind == "forest":
            proba[PRODUCT] = multiply([proba[kind] for kind in KINDS], first)
        values = np.asarray(first.classes, np.uint16)
        return {kind: values[part.argmax(axis=1)] for kind, part in proba.items()}


def multiply(parts: Sequence[NDArray[np.float32]], like: PixelClassifier) -> NDArray[np.float32]:
    """Return the normalised product of probabilities, as ``combine: product`` computes it.

    Parameters
    ----------
    parts
        Probabilities ``(n, K)``.
    like
        A classifier of the same classes.
    """
    count = len(like.classes)
    members = tuple(Member(str(i), slice(i * count, (i + 1) * count), _Given()) for i in range(len(parts)))
    product = PixelClassifier(like.spec, like.classes, count * len(parts), members)
    return product.predict_proba(np.concatenate(parts, axis=1))


class _Given:
    """An estimator whose features already are probabilities."""

    def predict_proba(self, features: NDArray[np.float32]) -> Any:
        return features
