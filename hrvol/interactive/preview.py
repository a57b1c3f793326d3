"""Previews: probabilities of the visible region, and the labels that class weights make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import most_likely, to_host
from hrvol.classes import ClassInfo
from hrvol.interactive.region import Region
from hrvol.interactive.results import Preview, StageName
from hrvol.run.predict import entropy
from hrvol.segment.class_weights import weighted


@dataclass(frozen=True, eq=False)
class RawPreview:
    """Probabilities of a region before class weights.

    Attributes
    ----------
    region
        The region.
    step
        One value stands for ``step`` x ``step`` pixels.
    classes
        Classes in order of the probabilities.
    probabilities
        ``(K, y, x)`` float32 with sum 1, or 0 where there are none yet.
    stage
        The coarsest stage of its tiles.
    exact
        Whether the probabilities are those of a run with the model of these strokes.
    complete
        Whether there are probabilities of all pixels.
    version
        Of the strokes.
    """

    region: Region
    step: int
    classes: tuple[ClassInfo, ...]
    probabilities: NDArray[np.float32]
    stage: StageName
    exact: bool
    complete: bool
    version: int


def preview_of(raw: RawPreview, weights: Mapping[int, float]) -> Preview:
    """Return labels, probabilities and uncertainty with class weights; classes without one have 1."""
    factors = [weights.get(info.value, 1.0) for info in raw.classes]
    known = raw.probabilities.sum(axis=0) > 0
    plane = raw.probabilities
    if not raw.complete:
        plane = np.where(known, plane, np.float32(1 / len(factors)))
    plane = to_host(weighted(plane, factors))
    labels = to_host(most_likely(plane, [info.value for info in raw.classes])).astype(np.uint16)
    uncertainty = to_host(entropy(plane)).astype(np.float32, copy=False)
    if not raw.complete:
        labels[~known] = 0
        plane = np.where(known, plane, np.float32(0))
        uncertainty[~known] = 0
    region = raw.region
    return Preview(
        region.plane,
        region.rows,
        region.columns,
        raw.step,
        raw.classes,
        labels,
        plane,
        uncertainty,
        raw.stage,
        raw.exact,
        raw.complete,
        raw.version,
    )
