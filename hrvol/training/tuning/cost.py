"""Classifiers on trial: with fewer trees than they will have, and what asking one with all of them costs."""

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

_TREES = 50  # at most: recipes rank the same, and fits are most of the time


def on_trial(spec: ClassifierSpec) -> ClassifierSpec:
    """Return settings of the same classifier with at most 50 trees."""
    if spec.kind not in ("vote", "forest"):
        return spec
    return spec.model_copy(update={"trees": min(spec.trees, _TREES)})


def asking_seconds(
    classifier: PixelClassifier, spec: ClassifierSpec, values: NDArray[np.float32], device: str
) -> float:
    """Return the seconds that a pixel takes a classifier, where a segmentation asks it.

    Parameters
    ----------
    classifier
        As fitted on trial.
    spec
        Settings when it is not on trial. More trees take their share more time, a regression beside them
        does not.
    values
        ``(n, C)`` features to ask about.
    device
        ``cpu`` or a GPU's.
    """
    rows: Array = np.resize(values, (CHUNK * cpus(), values.shape[1]))
    if device != "cpu":
        import torch

        rows = torch.from_numpy(rows).to(device)
    seconds = _asked(classifier, rows, device)
    if more := spec.trees / on_trial(spec).trees - 1:
        seconds += more * (_asked(_forests(classifier), rows, device) if spec.kind == "vote" else seconds)
    return seconds


def _asked(classifier: PixelClassifier, rows: Array, device: str) -> float:
    if device != "cpu":
        classifier.predict(rows)  # made ready for a GPU at the first time, once per process
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
