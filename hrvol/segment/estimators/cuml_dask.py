"""Fits on the GPUs of a Dask cluster, by cuML, for samples that no single GPU holds.

For scripts with samples beyond one GPU, as :func:`hrvol.segment.estimators.cuml.to_gpu` is for those that go
on with a fitted estimator; neither is used by the command line, whose own samples are capped
(``samples_per_class``, ``cluster.samples``) and fit one GPU many times over. Unproven: written from cuML's
sources, never run on several GPUs. A sample is handed over as a Dask array whose blocks are CuPy's, whole
rows to a block, made by the caller, because this room knows no Dask::

    rows = dask.array.from_array(features, chunks=(100_000, -1)).map_blocks(cupy.asarray)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError
from hrvol.segment.estimators.cuml import BINS, TOLERANCE, candidate_share, gpu_packages
from hrvol.segment.estimators.keywords import FOREST, KMEANS, kmeans_settings, named


def kmeans_of_parts(rows: Any, n_clusters: int, seed: int, client: Any) -> NDArray[np.float32]:
    """Return the centroids ``(n_clusters, C)`` of rows that lie on several GPUs.

    Parameters
    ----------
    rows
        ``(n, C)`` float32, a Dask array of CuPy blocks.
    n_clusters, seed
        As those of :func:`hrvol.segment.estimators.estimators.kmeans`.
    client
        The Dask client of a cluster with a worker per GPU.

    Raises
    ------
    MissingExtraError
        cuML is not installed.
    """
    with gpu_packages():
        import cupy
        from cuml.dask.cluster import KMeans

        estimator = KMeans(
            client=client,
            **named(KMEANS, kmeans_settings(n_clusters, seed)),
            tol=TOLERANCE * float(rows.var(axis=0).mean().compute()),
        )
        estimator.fit(rows)
        centroids: NDArray[np.float32] = cupy.asnumpy(estimator.get_combined_model().cluster_centers_)
    return centroids.astype(np.float32, copy=False)


def forest_of_parts(values: Mapping[str, Any], rows: Any, labels: Any, client: Any) -> Any:
    """Return a scikit-learn forest fitted on rows that lie on several GPUs.

    Parameters
    ----------
    values
        Settings, see :func:`hrvol.segment.estimators.keywords.settings`.
    rows, labels
        ``(n, C)`` float32 and ``(n,)`` int32, Dask arrays of CuPy blocks, cut alike.
    client
        The Dask client of a cluster with a worker per GPU.

    Raises
    ------
    MissingExtraError
        cuML is not installed.
    UsageError
        Classes are to be weighted, which cuML cannot do for bootstrapped trees on several GPUs.
    """
    if values["class_weight"] is not None:
        raise UsageError(
            f"classifier.class_weight: found {values['class_weight']}, expected null on several GPUs"
        )
    with gpu_packages():
        from cuml.dask.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            client=client,
            **{
                **named(FOREST, values),
                "max_features": candidate_share(values["max_features"], rows.shape[1]),
            },
            n_bins=BINS,
        )
        forest.fit(rows, labels)
        return forest.get_combined_model().as_sklearn().set_params(n_jobs=1)
