"""Fit candidates with fewer trees, and measure the prediction time they would have with all of them."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array
from hrvol.device import cpus
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.estimators import CHUNK
from hrvol.segment.estimators.keywords import voters
from hrvol.segment.pixel_classifier import PixelClassifier

_TREES = 50  # at most: candidates rank the same, and fits take most of the time


def trial_spec(spec: ClassifierSpec) -> ClassifierSpec:
    """Return settings of the same classifier with at most 50 trees."""
    if spec.kind not in ("vote", "forest"):
        return spec
    return spec.model_copy(update={"trees": min(spec.trees, _TREES)})


def predict_seconds(
    classifier: PixelClassifier, spec: ClassifierSpec, values: NDArray[np.float32], device: str
) -> float:
    """Measure the prediction time per pixel, in seconds, on the device of a segmentation.

    Parameters
    ----------
    classifier
        As fitted with :func:`trial_spec`.
    spec
        The full settings. The time of forests is scaled to their number of trees, that of a regression
        beside them is not.
    values
        ``(n, C)`` features to predict from.
    device
        ``cpu``, or a GPU by torch's name.
    """
    rows: Array = np.resize(values, (CHUNK * cpus(), values.shape[1]))
    if device != "cpu":
        import torch

        rows = torch.from_numpy(rows).to(device)
    seconds = _measured(classifier, rows, device)
    if more := spec.trees / trial_spec(spec).trees - 1:
        seconds += more * (_measured(_forests(classifier), rows, device) if spec.kind == "vote" else seconds)
    return seconds


def _measured(classifier: PixelClassifier, rows: Array, device: str) -> float:
    if device != "cpu":
        classifier.predict(rows)  # prepares the classifier for a GPU, once per process
    began = time.perf_counter()
    classifier.predict(rows, threads=cpus())
    return (time.perf_counter() - began) / len(rows)


def _forests(classifier: PixelClassifier) -> PixelClassifier:
    """Return the forests of a vote, or of a product of votes."""
    spec = classifier.spec.model_copy(update={"kind": "forest"})
    members = tuple(
        replace(member, estimator=dict(voters(member.estimator))["forest"]) for member in classifier.members
    )
    return replace(classifier, spec=spec, members=members)
