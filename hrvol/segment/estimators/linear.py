"""Classifiers that are matrix products (logistic, ridge, mlp), asked with the arrays of any library.

scikit-learn's own prediction checks, copies and computes with NumPy. The same sums, written with the array
API, run where the features are. They are worked out in float64, as those of
:func:`hrvol.segment.estimators.estimators.probabilities` are, and differ from them by rounding only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, beside, namespace, where_is
from hrvol.errors import ModelError
from hrvol.recipe.specs import ClassifierKind

Ending = Literal["softmax", "sigmoid", "mirrored"]
"""How scores become probabilities: softmax; or of one score d the sigmoid, or the softmax of -d and +d."""

_ROWS = 4096


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The numbers of a fitted pipeline: standardisation, then layers of products with ReLU between them.

    Attributes
    ----------
    mean, scale
        ``(C,)`` float64: what is taken off each column, and what it is divided by.
    layers
        Weight ``(n, m)`` and bias ``(m,)`` of each layer, float64.
    ending
        See :data:`Ending`.
    """

    mean: Array
    scale: Array
    layers: tuple[tuple[Array, Array], ...]
    ending: Ending

    def beside(self, values: Array) -> LinearHead:
        """Return the head with its numbers in the library and on the device of some array."""
        layers = tuple((beside(weight, values), beside(bias, values)) for weight, bias in self.layers)
        return replace(self, mean=beside(self.mean, values), scale=beside(self.scale, values), layers=layers)

    def probabilities(self, features: Array) -> Array:
        """Return class probabilities ``(n, K)`` float64 of features ``(n, C)`` that lie beside the head.

        Some rows at a time: in float64, and less their mean, all of them would take six times the memory.
        """
        rows = features.shape[0]
        if rows <= _ROWS:
            return self._probabilities(features)
        cuts = [*range(0, rows, _ROWS), rows]
        parts = [self._probabilities(features[start:stop, :]) for start, stop in pairwise(cuts)]
        return namespace(features).concat(parts, axis=0)

    def _probabilities(self, features: Array) -> Array:
        xp = namespace(features)
        values = (xp.astype(features, xp.float64) - self.mean) / self.scale
        zero = xp.zeros((), dtype=xp.float64, device=where_is(features))
        last = len(self.layers) - 1
        for i, (weight, bias) in enumerate(self.layers):
            values = values @ weight + bias
            if i < last:
                values = xp.maximum(values, zero)
        if self.ending == "sigmoid":
            small = xp.exp(-xp.abs(values))  # of the sign that cannot overflow
            sure = xp.where(values >= 0, xp.ones_like(small), small) / (1 + small)
            return xp.concat([1 - sure, sure], axis=1)
        if self.ending == "mirrored":
            values = xp.concat([-values, values], axis=1)
        powers = xp.exp(values - xp.max(values, axis=1, keepdims=True))
        return powers / xp.sum(powers, axis=1, keepdims=True)


def head_of(kind: ClassifierKind, estimator: Any) -> LinearHead:
    """Return the numbers of a fitted classifier, NumPy arrays.

    Parameters
    ----------
    kind
        ``logistic``, ``ridge`` or ``mlp``.
    estimator
        What :func:`hrvol.segment.estimators.estimators.fit_classifier` made of it: a scaler and the
        classifier.

    Raises
    ------
    ModelError
        A network has another activation than the ReLU of those that are made here.
    """
    scaler, last = estimator
    layers: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]
    if kind == "mlp":
        if last.activation != "relu":
            raise ModelError(f"classifier: found an mlp with activation {last.activation}, expected relu")
        layers = tuple(
            (_exact(weight), _exact(bias)) for weight, bias in zip(last.coefs_, last.intercepts_, strict=True)
        )
    else:
        layers = ((_exact(np.atleast_2d(last.coef_).T), _exact(np.atleast_1d(last.intercept_))),)
    ending: Ending = "softmax"
    if layers[-1][1].shape == (1,):
        ending = "mirrored" if kind == "ridge" else "sigmoid"
    return LinearHead(_exact(scaler.mean_), _exact(scaler.scale_), layers, ending)


def _exact(values: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64)
