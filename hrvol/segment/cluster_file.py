"""Clusters and their classes in a model file: arrays and two numbers, checked when they are read."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError
from hrvol.segment.archive import array_bytes, one_line, read_array
from hrvol.segment.cas import ClusterClassifier
from hrvol.segment.density import ClusterTally
from hrvol.segment.positions import PositionField, n_terms


def cluster_members(classifier: ClusterClassifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return what is stored: members of the zip, and JSON values for its ``info.json``."""
    arrays: dict[str, NDArray[Any]] = {
        "centroids": classifier.centroids,
        "of_cluster": classifier.of_cluster,
        "mean": classifier.mean,
        "scale": classifier.scale,
        "pixels": classifier.tally.pixels,
    }
    if classifier.tally.attention is not None:
        arrays["attention"] = classifier.tally.attention
    if classifier.position is not None:
        arrays["position"] = classifier.position.coefficients
    below = classifier.semantic_distance
    about = {
        "position": None
        if classifier.position is None
        else {"degree": classifier.position.degree, "columns": classifier.position.coefficients.shape[1]},
        "count": len(classifier.of_cluster),
        "attention": classifier.tally.attention is not None,
        "temperature": classifier.temperature,
        "semantic_distance": None if np.isnan(below) else below,
    }
    return {f"{name}.npy": array_bytes(values) for name, values in arrays.items()}, about


def read_clusters(archive: zipfile.ZipFile, about: Any, n_features: int, source: str) -> ClusterClassifier:
    """Read what :func:`cluster_members` stored.

    Raises
    ------
    ModelError
        Something is missing, damaged, or does not fit the rest.
    """
    try:
        count, temperature = int(about["count"]), float(about["temperature"])
        below = float("nan") if about["semantic_distance"] is None else float(about["semantic_distance"])
        attended = bool(about["attention"])
        field = None if about["position"] is None else {k: int(v) for k, v in about["position"].items()}
        if field is not None and not (1 <= field["degree"] <= 12 and 1 <= field["columns"] <= n_features):
            raise ValueError(f"position field of {field}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{source}: found damaged entries ({one_line(error)}), expected a model's") from None
    of_cluster = read_array(archive, "of_cluster.npy", "i", (count,), source).astype(np.int64)
    values = np.unique(of_cluster)
    if (
        not count
        or (np.diff(of_cluster) < 0).any()
        or not np.array_equal(values, np.arange(1, len(values) + 1))
    ):
        raise ModelError(
            f"{source}: of_cluster.npy: found classes out of order, expected them to rise from 1"
        )
    scale = read_array(archive, "scale.npy", "f", (n_features,), source).astype(np.float32)
    if not (scale > 0).all() or not 0 < temperature < np.inf:
        raise ModelError(f"{source}: found a scale or temperature that cannot divide, expected more than 0")
    pixels = read_array(archive, "pixels.npy", "i", (count,), source).astype(np.int64)
    if not (pixels > 0).all():
        raise ModelError(
            f"{source}: pixels.npy: found a cluster of {pixels.min()} pixels, expected at least 1"
        )
    attention = None
    if attended:
        attention = read_array(archive, "attention.npy", "f", (count,), source).astype(np.float64)
    position = None
    if field is not None:
        shape = (n_terms(field["degree"]), field["columns"])
        terms = read_array(archive, "position.npy", "f", shape, source).astype(np.float32)
        position = PositionField(field["degree"], terms)
    return ClusterClassifier(
        centroids=read_array(archive, "centroids.npy", "f", (count, n_features), source).astype(np.float32),
        of_cluster=of_cluster,
        mean=read_array(archive, "mean.npy", "f", (n_features,), source).astype(np.float32),
        scale=scale,
        temperature=temperature,
        tally=ClusterTally(pixels, attention),
        semantic_distance=below,
        position=position,
    )
