"""Predict with fitted forests and boosted trees through nvForest, on a GPU or on the CPU.

nvForest loads the trees of a fitted scikit-learn estimator. Each pixel reaches the same leaves as in
scikit-learn; probabilities differ only because trees are summed in another order or in single precision
(``benchmarks/studies/nvforest.md``).
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
        Whether to predict on a GPU instead of the CPU.
    layout
        Order of the nodes in memory; affects the time only.
    precision
        ``double`` as in scikit-learn; ``single`` is faster, and sums the trees in float32.
    device_id
        Number of the GPU; ``None`` for the current one.

    Returns
    -------
    Any
        The model of nvForest; it cannot be pickled.

    Raises
    ------
    MissingExtraError
        nvForest is not installed.
    """
    with gpu_packages():
        import nvforest
    if precision == "single":
        estimator = round_thresholds_down(estimator)
    return nvforest.load_from_sklearn(
        estimator, device="gpu" if gpu else "cpu", layout=layout, precision=precision, device_id=device_id
    )


def round_thresholds_down(forest: Any) -> Any:
    """Return a copy of a forest with float32 thresholds that split all float32 values as before.

    ``x <= t`` holds for the same float32 values x if t is replaced by the largest float32 not above it.
    Rounded to nearest, a threshold between two adjacent float32 values may become the larger one.

    Parameters
    ----------
    forest
        scikit-learn's ``RandomForestClassifier``.
    """
    copied = deepcopy(forest)
    for member in copied.estimators_:
        thresholds = member.tree_.threshold  # a view of the tree's memory
        nearest = thresholds.astype(np.float32)
        thresholds[:] = np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return copied


def predict_trees(trees: Any, features: Array) -> Array:
    """Return class probabilities ``(n, K)`` of a model loaded by :func:`load_trees`.

    Parameters
    ----------
    trees
        The model of nvForest.
    features
        ``(n, C)`` of NumPy or torch for a model on the CPU, of CuPy or torch for one on a GPU.

    Returns
    -------
    Array
        float64, in the library and on the device of ``features``.
    """
    if array_api_compat.is_torch_array(features):
        from torch.utils.dlpack import from_dlpack

        probabilities = from_dlpack(trees.predict_proba(_from_torch(features)))
    else:
        probabilities = trees.predict_proba(features)
    xp = namespace(probabilities)
    probabilities = xp.astype(probabilities, xp.float64, copy=False)
    if probabilities.ndim == 1 or probabilities.shape[1] == 1:
        # For two classes nvForest may return the probability of the second only.
        second = xp.reshape(probabilities, (-1, 1))
        probabilities = xp.concat([1 - second, second], axis=1)
    return probabilities


def _from_torch(features: Any) -> Any:
    """Return a torch tensor as an array of NumPy or CuPy, as nvForest takes, sharing its memory."""
    if not features.is_cuda:
        return features.numpy(force=True)
    with gpu_packages():
        import cupy
    return cupy.from_dlpack(features.detach().contiguous())
