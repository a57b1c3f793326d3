"""Fitted forests and boosted trees asked by nvForest, on a GPU or on the CPU, instead of by scikit-learn.

nvForest reads the trees of a fitted scikit-learn estimator. Every pixel falls into the leaves that
scikit-learn finds for it, and probabilities differ only by how trees are added up: in another order, or in
single precision (``benchmarks/nvforest.md``).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import array_api_compat
import numpy as np

from hrvol.arrays import Array, namespace
from hrvol.segment.estimators.cuml import gpu_packages

MemoryLayout = Literal["depth_first", "breadth_first", "layered"]

Precision = Literal["double", "single"]


def load_trees(
    estimator: Any,
    *,
    gpu: bool,
    layout: MemoryLayout = "depth_first",
    precision: Precision = "double",
    device_id: int | None = None,
) -> Any:
    """Load a fitted forest, or boosted trees, into nvForest.

    Parameters
    ----------
    estimator
        scikit-learn's ``RandomForestClassifier`` or ``HistGradientBoostingClassifier``.
    gpu
        On a GPU, or on the CPU.
    layout
        How nodes lie in memory; changes the time only.
    precision
        ``double`` is scikit-learn's own; in ``single`` trees are asked sooner, and added up in float32.
    device_id
        Number of the GPU; ``None`` for the current one.

    Returns
    -------
    Any
        nvForest's model; it cannot be pickled.

    Raises
    ------
    MissingExtraError
        nvForest is not installed.
    """
    with gpu_packages():
        import nvforest
    if precision == "single":
        estimator = rounded_down(estimator)
    return nvforest.load_from_sklearn(
        estimator, device="gpu" if gpu else "cpu", layout=layout, precision=precision, device_id=device_id
    )


def rounded_down(forest: Any) -> Any:
    """Return a forest with float32 thresholds that part all float32 values as those of the forest do.

    ``x <= t`` holds for the same float32 values x with the largest float32 that is not above t. Rounded to
    the nearest, a threshold may become the larger one of the two neighbours that it parts.

    Parameters
    ----------
    forest
        scikit-learn's ``RandomForestClassifier``; it is copied.
    """
    copied = deepcopy(forest)
    for member in copied.estimators_:
        exact = member.tree_.threshold  # the tree's own memory
        nearest = exact.astype(np.float32)
        exact[:] = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return copied


def ask_trees(trees: Any, features: Array) -> Array:
    """Return class probabilities ``(n, K)`` of what :func:`load_trees` loaded, where the features are.

    Parameters
    ----------
    trees
        nvForest's model.
    features
        ``(n, C)`` of NumPy or torch for a model on the CPU, of CuPy or torch for one on a GPU.

    Returns
    -------
    Array
        float64, in the library and on the device of ``features``.
    """
    if array_api_compat.is_torch_array(features):
        from torch.utils.dlpack import from_dlpack

        found = from_dlpack(trees.predict_proba(_handed_over(features)))
    else:
        found = trees.predict_proba(features)
    xp = namespace(found)
    found = xp.astype(found, xp.float64, copy=False)
    if found.ndim == 1 or found.shape[1] == 1:
        # Two classes may come as the probability of the second.
        second = xp.reshape(found, (-1, 1))
        found = xp.concat([1 - second, second], axis=1)
    return found


def _handed_over(features: Any) -> Any:
    """Return the memory of a torch tensor as the array that nvForest takes."""
    if not features.is_cuda:
        return features.numpy(force=True)
    with gpu_packages():
        import cupy
    return cupy.from_dlpack(features.detach().contiguous())
