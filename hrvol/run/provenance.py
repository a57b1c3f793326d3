"""Provenance: how an output was made, as JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrvol.recipe.specs import CrfSpec
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.model import Model, current_versions
from hrvol.volume.grid.tiling import Box
from hrvol.volume.volume import Volume


def provenance(
    model: Model, sha256: str, volume: Volume, region: Box, crf: CrfSpec | None = None
) -> dict[str, Any]:
    """Return the provenance that an output carries, as JSON values."""
    attributes: dict[str, Any] = {
        "recipe": model.recipe.with_(crf=crf).to_dict(),
        "versions": current_versions(),
        "weights_sha256": model.weights_sha256,
        "model": {"source": model.source, "sha256": sha256, "versions": dict(model.versions)},
        "window": list(model.window),
        "input": volume.identity(),
        "region": [[span.start, span.stop] for span in region],
    }
    if isinstance(model.classifier, ClusterClassifier):
        attributes["clusters"] = describe_clusters(model.classifier)
    return attributes


def describe_clusters(clusters: ClusterClassifier) -> dict[str, Any]:
    """Return how classes were found without strokes, and which are foreground, as JSON values."""
    tally, distance = clusters.class_tally, clusters.semantic_distance
    shares = tally.pixels / tally.pixels.sum()
    return {
        "count": len(clusters.of_cluster),
        "semantic_distance": None if np.isnan(distance) else distance,
        "foreground": list(clusters.foreground),
        "share": {str(v): float(s) for v, s in zip(clusters.classes, shares, strict=True)},
        "attention_density": {
            str(v): None if np.isnan(d) else float(d)
            for v, d in zip(clusters.classes, tally.density, strict=True)
        },
    }
