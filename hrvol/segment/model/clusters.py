"""Read and write the clusters of a model file: arrays and a few JSON values."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError
from hrvol.segment.attention import ClusterTally
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.archive import array_bytes, read_array
from hrvol.segment.model.schemas import ClusterEntry
from hrvol.segment.positions import PositionField, n_terms

_TYPES: dict[str, type[np.generic]] = {
    "centroids": np.float32,
    "of_cluster": np.int64,
    "mean": np.float32,
    "scale": np.float32,
    "pixels": np.int64,
    "attention": np.float64,
    "position": np.float32,
}


def cluster_members(classifier: ClusterClassifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the members of the zip, and the JSON values for its ``info.json``."""
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
    threshold = classifier.semantic_distance
    entries = {
        "position": None
        if classifier.position is None
        else {"degree": classifier.position.degree, "columns": classifier.position.coefficients.shape[1]},
        "count": len(classifier.of_cluster),
        "attention": classifier.tally.attention is not None,
        "temperature": float(classifier.temperature),
        "semantic_distance": None if np.isnan(threshold) else float(threshold),
    }
    # Written in the types in which they are read, so that a file that is read and written again is the same.
    return {f"{name}.npy": array_bytes(_typed(name, values)) for name, values in arrays.items()}, entries


def read_clusters(
    archive: zipfile.ZipFile, entries: ClusterEntry, n_features: int, source: str
) -> ClusterClassifier:
    """Read the members and JSON values that :func:`cluster_members` returned.

    Raises
    ------
    ModelError
        A member or value is missing, damaged, or inconsistent with the others.
    """
    count, field = entries.count, entries.position
    if field is not None and field.columns > n_features:
        raise ModelError(
            f"{source}: info.json: found a position field of {field.columns} columns, expected at most"
            f" {n_features}"
        )

    def read(name: str, *shape: int) -> NDArray[Any]:
        kind = np.dtype(_TYPES[name]).kind
        return _typed(name, read_array(archive, f"{name}.npy", kind, shape, source))

    of_cluster = read("of_cluster", count)
    values = np.unique(of_cluster)
    if (np.diff(of_cluster) < 0).any() or not np.array_equal(values, np.arange(1, len(values) + 1)):
        raise ModelError(
            f"{source}: of_cluster.npy: found classes out of order, expected increasing ones from 1"
        )
    scale = read("scale", n_features)
    if not (scale > 0).all():
        raise ModelError(f"{source}: scale.npy: found {scale.min():g}, expected values above 0")
    pixels = read("pixels", count)
    if not (pixels > 0).all():
        raise ModelError(
            f"{source}: pixels.npy: found a cluster of {pixels.min()} pixels, expected at least 1"
        )
    attention = read("attention", count) if entries.attention else None
    if attention is not None and not (attention >= 0).all():
        raise ModelError(f"{source}: attention.npy: found {attention.min():g}, expected at least 0")
    position = None
    if field is not None:
        position = PositionField(field.degree, read("position", n_terms(field.degree), field.columns))
    return ClusterClassifier(
        centroids=read("centroids", count, n_features),
        of_cluster=of_cluster,
        mean=read("mean", n_features),
        scale=scale,
        temperature=entries.temperature,
        tally=ClusterTally(pixels, attention),
        semantic_distance=float("nan") if entries.semantic_distance is None else entries.semantic_distance,
        position=position,
    )


def _typed(name: str, values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(_TYPES[name], copy=False)
