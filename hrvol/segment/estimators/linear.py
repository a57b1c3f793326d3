"""Predict with linear classifiers and MLPs on arrays of any library.

The standardisation of a pipeline of scikit-learn is folded into its first layer, and sums are computed in
float64, written with the array API, on the device of the features. They differ from those of scikit-learn by
rounding only.
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
"""How scores become probabilities: softmax; for one score d the sigmoid or the softmax of -d and +d."""

_ROWS = 4096


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The weights of a fitted pipeline: linear layers with ReLU between them.

    Attributes
    ----------
    layers
        Weight ``(n, m)`` and bias ``(m,)`` of each layer, float64; the first one includes the standardisation
        of the columns.
    ending
        See :data:`Ending`.
    """

    layers: tuple[tuple[Array, Array], ...]
    ending: Ending

    def to_device_of(self, values: Array) -> LinearHead:
        """Return the head with its weights in the library and on the device of an array."""
        layers = tuple((beside(weight, values), beside(bias, values)) for weight, bias in self.layers)
        return replace(self, layers=layers)

    def probabilities(self, features: Array) -> Array:
        """Return class probabilities ``(n, K)`` float64 of features ``(n, C)`` on the head's device.

        Rows are processed in batches: the float64 intermediates need six times the memory of the features.
        """
        rows = features.shape[0]
        if rows <= _ROWS:
            return self._probabilities(features)
        cuts = [*range(0, rows, _ROWS), rows]
        batches = [self._probabilities(features[start:stop, :]) for start, stop in pairwise(cuts)]
        return namespace(features).concat(batches, axis=0)

    def _probabilities(self, features: Array) -> Array:
        xp = namespace(features)
        values = xp.astype(features, xp.float64, copy=False)
        zero = xp.zeros((), dtype=xp.float64, device=where_is(features))
        last = len(self.layers) - 1
        for i, (weight, bias) in enumerate(self.layers):
            values = values @ weight + bias
            if i < last:
                values = xp.maximum(values, zero)
        if self.ending == "sigmoid":
            small = xp.exp(-xp.abs(values))  # of a negative number, which cannot overflow
            second = xp.where(values >= 0, xp.ones_like(small), small) / (1 + small)
            return xp.concat([1 - second, second], axis=1)
        if self.ending == "mirrored":
            values = xp.concat([-values, values], axis=1)
        powers = xp.exp(values - xp.max(values, axis=1, keepdims=True))
        return powers / xp.sum(powers, axis=1, keepdims=True)


def linear_head(kind: ClassifierKind, estimator: Any) -> LinearHead:
    """Return the weights of a fitted classifier as NumPy arrays.

    Parameters
    ----------
    kind
        ``logistic``, ``ridge`` or ``mlp``.
    estimator
        The pipeline of a scaler and a classifier that
        :func:`hrvol.segment.estimators.estimators.fit_classifier` returns.

    Raises
    ------
    ModelError
        The activation of an MLP is not ReLU.
    """
    scaler, last = estimator
    layers: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]
    if kind == "mlp":
        if last.activation != "relu":
            raise ModelError(f"classifier: found an mlp with activation {last.activation}, expected relu")
        layers = tuple(
            (_float64(weight), _float64(bias))
            for weight, bias in zip(last.coefs_, last.intercepts_, strict=True)
        )
    else:
        layers = ((_float64(np.atleast_2d(last.coef_).T), _float64(np.atleast_1d(last.intercept_))),)
    ending: Ending = "softmax"
    if layers[-1][1].shape == (1,):
        ending = "mirrored" if kind == "ridge" else "sigmoid"
    (weight, bias), *others = layers
    weight = weight / _float64(scaler.scale_)[:, None]
    return LinearHead(((weight, bias - _float64(scaler.mean_) @ weight), *others), ending)


def _float64(values: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64)
