"""Classifiers asked where the features are: on a GPU, without a copy of pixels to the host.

Each is made ready for its device once per process, when it is first asked. Nothing of it is in a model file.
NumPy's arrays are not asked about here, but by :mod:`hrvol.segment.estimators.estimators`.
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
from hrvol.segment.estimators.linear import LinearHead, head_of
from hrvol.segment.estimators.nvforest import Precision, ask_trees, load_trees

_FLOOR = 1e-6  # of a factor of a product: one forest that has not met a class must not make it impossible

_LOCK = threading.Lock()

_READY: WeakKeyDictionary[Any, dict[tuple[str, str], Any]] = WeakKeyDictionary()


def device_probabilities(kind: ClassifierKind, estimator: Any, features: Array) -> Array:
    """Return class probabilities from features that are on a device.

    Parameters
    ----------
    kind
        ``logistic``, ``ridge`` and ``mlp`` are matrix products (:mod:`hrvol.segment.estimators.linear`);
        ``forest`` and ``boosting`` are asked by nvForest (:mod:`hrvol.segment.estimators.nvforest`); ``vote``
        is one of each.
    estimator
        The fitted estimator, of scikit-learn.
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
        return average([device_probabilities(part, fitted, features) for part, fitted in voters(estimator)])
    ready = _made_ready(kind, estimator, features)
    return ready.probabilities(features) if isinstance(ready, LinearHead) else ask_trees(ready, features)


def multiply(parts: Sequence[Array]) -> Array:
    """Return the product of the probabilities ``(n, K)`` of several classifiers, normalised.

    Parameters
    ----------
    parts
        float64, all of one library; NumPy's too.
    """
    xp = namespace(*parts)
    floor = xp.asarray(_FLOOR, dtype=parts[0].dtype, device=where_is(parts[0]))
    # A sum of logarithms cannot underflow; the largest becomes exp(0).
    logs = reduce(add, [xp.log(xp.maximum(part, floor)) for part in parts])
    product = xp.exp(logs - xp.max(logs, axis=1, keepdims=True))
    return product / xp.sum(product, axis=1, keepdims=True)


def _made_ready(kind: ClassifierKind, estimator: Any, features: Array) -> Any:
    """Return the estimator as it is asked on the device of features; made once per process."""
    key = (namespace(features).__name__, str(where_is(features)))
    with _LOCK:
        forms = _READY.setdefault(estimator, {})
        if key not in forms:
            forms[key] = _make_ready(kind, estimator, features)
        return forms[key]


def _make_ready(kind: ClassifierKind, estimator: Any, features: Array) -> Any:
    if kind not in ("forest", "boosting"):
        return head_of(kind, estimator).beside(features)
    is_torch, is_cupy = array_api_compat.is_torch_array(features), array_api_compat.is_cupy_array(features)
    gpu = is_cupy or (is_torch and features.is_cuda)
    # On a GPU features differ by more than single precision loses, and double takes twice the memory traffic.
    precision: Precision = "single" if gpu and kind == "forest" else "double"
    number = None if not gpu else features.device.index if is_torch else features.device.id
    return load_trees(estimator, gpu=gpu, precision=precision, device_id=number)
