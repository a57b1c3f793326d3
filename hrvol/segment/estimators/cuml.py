"""Fit estimators on a GPU with cuML, and return them as scikit-learn's.

A model fitted on a GPU has the same file, checks and prediction as one fitted on the CPU, and runs without a
GPU. The fit itself differs: cuML's forests choose splits among 128 quantiles of a column instead of
among all values, its logistic regression uses another solver, and its k-means starts with k-means||, the
parallel k-means++. Scores agree, bits do not.

The GPU packages are imported inside functions only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import MissingExtraError, UsageError
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.keywords import FOREST, KMEANS, LOGISTIC, keywords_of, kmeans_settings

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline


BINS = 128
"""Quantiles of a column among which a forest chooses its splits; cuML's default."""

TOLERANCE = 1e-4
"""Convergence tolerance of k-means: shift of all centroids, as a share of the mean variance of a column."""

_SHARE = 0.5  # of the free memory may hold rows for k-means; the rest is for distances and for cuML

_ROWS = 65_536  # rows per step of a sum


def fits_on_gpu(spec: ClassifierSpec) -> bool:
    """Whether cuML fits a classifier; scikit-learn fits all others on the CPU, whatever the device.

    cuML has forests and logistic regression. Logistic regression with class weights stays on the CPU: on an
    H100 its probabilities differed from scikit-learn's by 0.03 on average; without weights, by 0.005.
    """
    return spec.kind == "forest" or (spec.kind == "logistic" and spec.class_weight is None)


def is_gpu(device: str) -> bool:
    """Whether a device is a GPU (``cuda`` or ``cuda:N``) rather than ``cpu``.

    Raises
    ------
    UsageError
        The name is not one of these three.
    """
    if device == "cpu":
        return False
    name, colon, number = device.partition(":")
    if name == "cuda" and number.isdecimal() == bool(colon):
        return True
    raise UsageError(f"device: found {device!r}, expected cpu, cuda or cuda:N")


@contextmanager
def gpu_packages() -> Iterator[None]:
    """Report a failed import of a package of the extra ``gpu`` as a missing extra.

    Raises
    ------
    MissingExtraError
        A package is not installed.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or str(error)).partition(".")[0]
        raise MissingExtraError(
            f"device cuda: found no {name}, expected the GPU packages; pip install 'hrvol[gpu]'"
        ) from error


@contextmanager
def current_gpu(device: str) -> Iterator[None]:
    """Make a GPU the current device, and release the GPU memory cached by torch.

    Raises
    ------
    MissingExtraError
        CuPy is not installed.
    UsageError
        The machine has no such GPU.
    """
    with gpu_packages():
        import cupy
    import torch

    number = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count()  # 0 without a driver
    if count <= number:
        raise UsageError(
            f"device {device}: found {count} GPUs usable by torch, expected at least {number + 1}, "
            "or device cpu"
        )
    with cupy.cuda.Device(number), torch.cuda.device(number):
        # Work that torch has queued on its stream must finish before cuML reads the result.
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        yield


def fit_forest(
    unfitted: RandomForestClassifier,
    values: Mapping[str, Any],
    features: Any,
    labels: NDArray[Any],
    device: str,
) -> RandomForestClassifier:
    """Fit a random forest.

    Parameters
    ----------
    unfitted
        scikit-learn's estimator for a fit on the CPU, whose parameters the result gets.
    values
        The same settings, see :func:`hrvol.segment.estimators.keywords.classifier_settings`.
    features
        ``(n, C)`` float32, finite: NumPy, CuPy or a torch tensor of the GPU.
    labels
        ``(n,)`` integers.
    device
        ``cuda`` or ``cuda:N``.

    Returns
    -------
    sklearn.ensemble.RandomForestClassifier
        The trees have no impurities, so ``feature_importances_`` is NaN.
    """
    with current_gpu(device), gpu_packages():
        from cuml.ensemble import RandomForestClassifier

        rows, columns = features.shape
        forest = RandomForestClassifier(
            **{
                **keywords_of(FOREST, values),
                "max_features": candidate_share(values["max_features"], columns),
            },
            n_bins=min(BINS, rows),
            n_streams=1,  # with several, results may depend on timing
            output_type="numpy",
        )
        converted = forest.fit(as_cuml(features), labels.astype(np.int32)).as_sklearn()
    return _with_parameters(converted, unfitted, labels)


def fit_logistic(
    unfitted: Pipeline, values: Mapping[str, Any], features: Any, labels: NDArray[Any], device: str
) -> Pipeline:
    """Fit standardisation and logistic regression; see :func:`fit_forest` for the parameters.

    scikit-learn standardises the columns, on the host: unlike cuML it recognises a column that is constant
    except for rounding, and does not scale it up.
    """
    with current_gpu(device), gpu_packages():
        from cuml.linear_model import LogisticRegression

        exact = _to_host(features).astype(np.float64)
        scaler, last = unfitted
        standard = scaler.fit_transform(exact)
        model = LogisticRegression(**keywords_of(LOGISTIC, values), output_type="numpy")
        converted = model.fit(standard, labels.astype(np.int32)).as_sklearn()
    converted.coef_ = np.ascontiguousarray(converted.coef_)
    unfitted.steps[-1] = (unfitted.steps[-1][0], _with_parameters(converted, last, labels))
    return unfitted


def fit_kmeans(features: Any, n_clusters: int, seed: int, device: str) -> NDArray[np.float32]:
    """Return centroids ``(n_clusters, C)`` float32 of rows ``(n, C)`` float32 of NumPy, CuPy or torch.

    Rows on the host that exceed half of the GPU's free memory are transferred in batches.
    """
    with current_gpu(device), gpu_packages():
        import cupy
        from cuml.cluster import KMeans

        rows = as_cuml(features)
        buffered = 0
        if isinstance(rows, np.ndarray):
            free, _ = cupy.cuda.Device().mem_info
            buffered = buffer_rows(len(rows), rows.shape[1] * rows.itemsize, free)
        estimator = KMeans(
            **keywords_of(KMEANS, kmeans_settings(n_clusters, seed)),
            # cuML takes an absolute shift; scikit-learn scales its tolerance by the variance itself.
            tol=TOLERANCE * mean_variance(rows),
            device_buffer_samples=buffered,
            output_type="numpy",
        )
        centroids: NDArray[np.float32] = estimator.fit(rows).cluster_centers_
    return centroids.astype(np.float32, copy=False)


@contextmanager
def transfers(device: str) -> Iterator[tuple[Callable[[Any], Any], Callable[[Any], NDArray[Any]]]]:
    """Yield two functions that copy an array to a device and back; on the CPU both return their argument."""
    if not is_gpu(device):
        yield _identity, _identity
        return
    with current_gpu(device):
        import cupy

        yield as_cupy, cupy.asnumpy


def candidate_share(max_features: str | float | None, columns: int) -> float:
    """Return the share of columns for which cuML tries as many columns per split as scikit-learn.

    cuML multiplies the share in single precision and truncates: 15 of 58 columns would become 14. A share
    halfway between this count and the next survives the rounding.
    """
    if max_features is None:
        count = columns
    elif isinstance(max_features, str):
        count = int(math.sqrt(columns) if max_features == "sqrt" else math.log2(columns))
    elif isinstance(max_features, int):
        count = max_features
    else:
        count = int(max_features * columns)
    return min(1.0, (max(count, 1) + 0.5) / columns)


def buffer_rows(rows: int, row_bytes: int, free: int) -> int:
    """Return the number of host rows to transfer to a GPU per batch, or 0 if all of them fit.

    Parameters
    ----------
    rows, row_bytes
        Number of rows, and bytes of each.
    free
        Free memory of the GPU, bytes.
    """
    fitting = int(_SHARE * free) // row_bytes
    return 0 if rows <= fitting else max(1, fitting)


def mean_variance(rows: Any) -> float:
    """Return the mean over columns of the variance of ``(n, C)`` of NumPy or CuPy, in batches of rows."""
    count = len(rows)
    centre = rows[: min(count, _ROWS)].mean(axis=0)  # subtracted, so that the squares do not cancel
    total: Any = 0.0
    squares: Any = 0.0
    for start in range(0, count, _ROWS):
        batch = rows[start : start + _ROWS].astype(np.float64) - centre
        total = total + batch.sum(axis=0)
        squares = squares + (batch**2).sum(axis=0)
    return float((squares / count - (total / count) ** 2).mean())


def as_cuml(features: Any) -> Any:
    """Return a NumPy array unchanged, and one of torch or CuPy as a CuPy array without a copy."""
    return features if isinstance(features, np.ndarray) else as_cupy(features)


def as_cupy(values: Any) -> Any:
    """Return an array as a CuPy array: copied from NumPy, sharing memory with torch."""
    import cupy

    return cupy.asarray(values) if isinstance(values, np.ndarray) else cupy.from_dlpack(values)


def _to_host(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    import cupy

    array: NDArray[Any] = cupy.asnumpy(as_cupy(values))
    return array


def _identity(values: Any) -> Any:
    return values


def _with_parameters(converted: Any, unfitted: Any, labels: NDArray[Any]) -> Any:
    """Give a converted estimator the parameters and the type of class values of a fit on the CPU."""
    converted.set_params(**unfitted.get_params(deep=False))
    converted.classes_ = np.unique(labels)
    return converted
