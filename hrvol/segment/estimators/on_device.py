"""Predict on the device of the features, without copying pixels to the host.

Each estimator is prepared for a device at its first prediction there and cached per process; model files hold
none of it. Features of NumPy are predicted by :mod:`hrvol.segment.estimators.estimators`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any
from weakref import WeakKeyDictionary

import array_api_compat

from hrvol.arrays import Array, average, namespace, where_is
from hrvol.recipe.specs import ClassifierKind
from hrvol.segment.estimators.keywords import voters
from hrvol.segment.estimators.linear import LinearHead, linear_head
from hrvol.segment.estimators.nvforest import Precision, load_trees, predict_trees

_FLOOR = 1e-6  # least factor of a product: one forest's probability of 0 must not rule out a class

_LOCK = threading.Lock()

_PREPARED: WeakKeyDictionary[Any, dict[tuple[str, str], Any]] = WeakKeyDictionary()


def device_probabilities(kind: ClassifierKind, estimator: Any, features: Array) -> Array:
    """Return class probabilities of features on a device.

    Parameters
    ----------
    kind
        :mod:`hrvol.segment.estimators.linear` predicts with ``logistic``, ``ridge`` and ``mlp``,
        :mod:`hrvol.segment.estimators.nvforest` with ``forest`` and ``boosting``; ``vote`` averages one of
        each.
    estimator
        The fitted estimator of scikit-learn.
    features
        ``(n, C)`` float32, finite, of torch, CuPy or another library of the array API.

    Returns
    -------
    Array
        ``(n, K)`` float64 in order of class value, in the library and on the device of ``features``.

    Raises
    ------
    MissingExtraError
        nvForest or CuPy is needed and not installed.
    """
    if kind == "vote":
        return average([device_probabilities(each, fitted, features) for each, fitted in voters(estimator)])
    prepared = _prepared(kind, estimator, features)
    if isinstance(prepared, LinearHead):
        return prepared.probabilities(features)
    return predict_trees(prepared, features)


def multiply(factors: Sequence[Array]) -> Array:
    """Return the normalised product of the probabilities ``(n, K)`` of several classifiers.

    Parameters
    ----------
    factors
        float64, all of one library, which may be NumPy.
    """
    xp = namespace(*factors)
    floor = xp.asarray(_FLOOR, dtype=factors[0].dtype, device=where_is(factors[0]))
    # A sum of logarithms cannot underflow; the largest becomes exp(0).
    logs = reduce(add, [xp.log(xp.maximum(factor, floor)) for factor in factors])
    product = xp.exp(logs - xp.max(logs, axis=1, keepdims=True))
    return product / xp.sum(product, axis=1, keepdims=True)


def _prepared(kind: ClassifierKind, estimator: Any, features: Array) -> Any:
    """Return the estimator prepared for the device of the features, cached per process."""
    key = (namespace(features).__name__, str(where_is(features)))
    with _LOCK:
        by_device = _PREPARED.setdefault(estimator, {})
        if key not in by_device:
            by_device[key] = _prepare(kind, estimator, features)
        return by_device[key]


def _prepare(kind: ClassifierKind, estimator: Any, features: Array) -> Any:
    if kind not in ("forest", "boosting"):
        return linear_head(kind, estimator).to_device_of(features)
    is_torch, is_cupy = array_api_compat.is_torch_array(features), array_api_compat.is_cupy_array(features)
    gpu = is_cupy or (is_torch and features.is_cuda)
    # Features of a GPU differ from those of the CPU by more than single precision loses, and double precision
    # needs twice the memory traffic.
    precision: Precision = "single" if gpu and kind == "forest" else "double"
    number = None if not gpu else features.device.index if is_torch else features.device.id
    return load_trees(estimator, gpu=gpu, precision=precision, device_id=number)
