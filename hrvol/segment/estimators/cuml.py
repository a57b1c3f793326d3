"""Fits on a GPU, by cuML, that come back as scikit-learn's estimators.

So a model fitted on a GPU has the same file, the same checks and the same prediction as any other, on a
machine without a GPU too. What differs is the fit itself: cuML's forests choose among 128 quantiles of a
column instead of among all values, its logistic regression has another solver, and its k-means starts with
k-means||, the parallel k-means++. Scores agree, bits do not.

The packages are imported when something is to be fitted, never before.
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
from hrvol.segment.estimators.keywords import FOREST, KMEANS, LOGISTIC, kmeans_settings, named

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline


BINS = 128
"""Quantiles of a column among which a forest looks for its splits; cuML's default."""

TOLERANCE = 1e-4
"""Of k-means: the shift of all centroids at which it ends, as a share of the mean variance of a column."""

_SHARE = 0.5  # of the free memory that k-means may fill with rows; the rest is for distances and for cuML

_ROWS = 65_536  # rows summed up at once


def fits_there(spec: ClassifierSpec) -> bool:
    """Whether cuML fits a classifier; else scikit-learn does, on the CPU, whatever the device.

    cuML has forests and logistic regression. The latter with weighted classes is not taken: on an H100 its
    probabilities were 0.03 from scikit-learn's on average, where without weights they agreed to 0.005.
    """
    return spec.kind == "forest" or (spec.kind == "logistic" and spec.class_weight is None)


def on_gpu(device: str) -> bool:
    """Whether a device is a GPU: ``cuda`` or ``cuda:N``, and not ``cpu``.

    Raises
    ------
    UsageError
        It is none of these.
    """
    if device == "cpu":
        return False
    name, colon, number = device.partition(":")
    if name == "cuda" and number.isdecimal() == bool(colon):
        return True
    raise UsageError(f"device: found {device!r}, expected cpu, cuda or cuda:N")


@contextmanager
def gpu_packages() -> Iterator[None]:
    """Import packages of the extra ``gpu`` within this.

    Raises
    ------
    MissingExtraError
        One is not installed.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or str(error)).partition(".")[0]
        raise MissingExtraError(
            f"device cuda: found no {name}, expected the GPU packages; pip install 'hrvol[gpu]'"
        ) from error


@contextmanager
def gpu(device: str) -> Iterator[None]:
    """Make a GPU the current one, with the memory that torch keeps for itself given back.

    Raises
    ------
    MissingExtraError
        CuPy is not installed.
    UsageError
        There is no such GPU.
    """
    with gpu_packages():
        import cupy
    import torch

    number = int(device.partition(":")[2] or 0)
    if torch.cuda.device_count() <= number:  # without a driver, 0
        raise UsageError(
            f"device {device}: found {torch.cuda.device_count()} GPUs that torch can use, "
            f"expected at least {number + 1}, or device cpu"
        )
    with cupy.cuda.Device(number), torch.cuda.device(number):
        # What torch has queued on another stream must be there before cuML looks at it.
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
        scikit-learn's, as it would be fitted on the CPU: the result has its parameters.
    values
        The same settings, see :func:`hrvol.segment.estimators.keywords.settings`.
    features
        ``(n, C)`` float32, finite: NumPy, CuPy or a torch tensor of the GPU.
    labels
        ``(n,)`` integers.
    device
        ``cuda`` or ``cuda:N``.

    Returns
    -------
    sklearn.ensemble.RandomForestClassifier
        Without impurities, so that its ``feature_importances_`` are NaN.
    """
    with gpu(device), gpu_packages():
        from cuml.ensemble import RandomForestClassifier

        rows, columns = features.shape
        forest = RandomForestClassifier(
            **{
                **named(FOREST, values),
                "max_features": candidate_share(values["max_features"], columns),
            },
            n_bins=min(BINS, rows),
            n_streams=1,  # with several, results may depend on their timing
            output_type="numpy",
        )
        found = forest.fit(as_cuml(features), labels.astype(np.int32)).as_sklearn()
    return _restored(found, unfitted, labels)


def fit_logistic(
    unfitted: Pipeline, values: Mapping[str, Any], features: Any, labels: NDArray[Any], device: str
) -> Pipeline:
    """Fit standardisation and logistic regression; arguments as those of :func:`fit_forest`.

    Columns are standardised by scikit-learn, on the host: it knows a column that is constant but for
    rounding, which cuML would blow up.
    """
    with gpu(device), gpu_packages():
        from cuml.linear_model import LogisticRegression

        exact = _host(features).astype(np.float64)
        scaler, last = unfitted
        standard = scaler.fit_transform(exact)
        model = LogisticRegression(**named(LOGISTIC, values), output_type="numpy")
        found = model.fit(standard, labels.astype(np.int32)).as_sklearn()
    found.coef_ = np.ascontiguousarray(found.coef_)
    unfitted.steps[-1] = (unfitted.steps[-1][0], _restored(found, last, labels))
    return unfitted


def fit_kmeans(features: Any, n_clusters: int, seed: int, device: str) -> NDArray[np.float32]:
    """Return centroids ``(n_clusters, C)`` float32 of rows ``(n, C)`` float32: NumPy, CuPy or torch.

    Rows on the host that do not fit into half of the GPU's free memory are read piece by piece.
    """
    with gpu(device), gpu_packages():
        import cupy
        from cuml.cluster import KMeans

        rows = as_cuml(features)
        buffered = 0
        if isinstance(rows, np.ndarray):
            free, _ = cupy.cuda.Device().mem_info
            buffered = buffer_rows(len(rows), rows.shape[1] * rows.itemsize, free)
        estimator = KMeans(
            **named(KMEANS, kmeans_settings(n_clusters, seed)),
            # cuML takes the shift as it is; scikit-learn, in units of the data.
            tol=TOLERANCE * mean_variance(rows),
            device_buffer_samples=buffered,
            output_type="numpy",
        )
        centroids: NDArray[np.float32] = estimator.fit(rows).cluster_centers_
    return centroids.astype(np.float32, copy=False)


@contextmanager
def transfers(device: str) -> Iterator[tuple[Callable[[Any], Any], Callable[[Any], NDArray[Any]]]]:
    """Yield what copies an array to a device, and what copies one back; on the CPU neither does anything."""
    if not on_gpu(device):
        yield _same, _same
        return
    with gpu(device):
        import cupy

        yield as_cupy, cupy.asnumpy


def to_gpu(estimator: Any) -> Any:
    """Return cuML's estimator for a fitted one of scikit-learn, to go on with on a GPU.

    Parameters
    ----------
    estimator
        A forest, a logistic regression, k-means, a scaler, or a pipeline of them.

    Returns
    -------
    Any
        It answers with NumPy arrays; ``as_sklearn()`` is the way back (of each step of a pipeline).

    Raises
    ------
    MissingExtraError
        cuML is not installed.
    UsageError
        cuML has no such estimator.
    """
    from sklearn import cluster, ensemble, linear_model, pipeline, preprocessing

    if type(estimator) is pipeline.Pipeline:
        return pipeline.Pipeline([(name, to_gpu(step)) for name, step in estimator.steps])
    with gpu_packages():
        from cuml.cluster import KMeans
        from cuml.ensemble import RandomForestClassifier
        from cuml.linear_model import LogisticRegression
        from cuml.preprocessing import StandardScaler
    if type(estimator) is ensemble.RandomForestClassifier:
        return RandomForestClassifier.from_sklearn(estimator)
    if type(estimator) is linear_model.LogisticRegression:
        return LogisticRegression.from_sklearn(estimator)
    if type(estimator) is cluster.KMeans:
        return KMeans.from_sklearn(estimator)
    if type(estimator) is preprocessing.StandardScaler:
        return StandardScaler.from_sklearn(estimator)
    found = type(estimator).__name__
    raise UsageError(f"device cuda: found a {found}, expected a forest, a logistic regression or k-means")


def candidate_share(max_features: str | float | None, columns: int) -> float:
    """Return the share of columns that makes cuML look at as many per split as scikit-learn does.

    cuML multiplies a share in single precision and cuts off: of 58 columns, a count of 15 becomes 14. A share
    in the middle between a count and the next is safe.
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
    """Return how many rows of the host a GPU holds at a time, or 0 if it holds them all.

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
    """Return the variance of a column of ``(n, C)``, mean over columns; NumPy's or CuPy's, piece by piece."""
    count = len(rows)
    middle = rows[: min(count, _ROWS)].mean(axis=0)  # taken off, so that squares do not cancel
    total: Any = 0.0
    squares: Any = 0.0
    for start in range(0, count, _ROWS):
        part = rows[start : start + _ROWS].astype(np.float64) - middle
        total = total + part.sum(axis=0)
        squares = squares + (part**2).sum(axis=0)
    return float((squares / count - (total / count) ** 2).mean())


def as_cuml(features: Any) -> Any:
    """Return what cuML takes: an array of NumPy as it is, one of torch or CuPy as CuPy's, not copied."""
    return features if isinstance(features, np.ndarray) else as_cupy(features)


def as_cupy(values: Any) -> Any:
    """Return an array as CuPy's: copied from NumPy, shared with torch."""
    import cupy

    return cupy.asarray(values) if isinstance(values, np.ndarray) else cupy.from_dlpack(values)


def _host(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    import cupy

    found: NDArray[Any] = cupy.asnumpy(as_cupy(values))
    return found


def _same(values: Any) -> Any:
    return values


def _restored(found: Any, unfitted: Any, labels: NDArray[Any]) -> Any:
    """Return a converted estimator with the parameters and the type of classes that one of the CPU has."""
    found.set_params(**unfitted.get_params(deep=False))
    found.classes_ = np.unique(labels)
    return found
