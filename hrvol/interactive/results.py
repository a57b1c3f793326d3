"""What a session answers: previews, places to draw next, quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.segment.class_weights import problem_of

StageName = Literal["filters", "fast", "recipe", "student"]

ORDER: tuple[StageName, ...] = ("filters", "fast", "recipe", "student")
"""Names of stages, coarse to fine."""

Scope = Literal["view", "visited", "volume"]
"""Where places are looked for."""


@dataclass(frozen=True, eq=False)
class Preview:
    """What a session shows of a region.

    Attributes
    ----------
    plane
        Number of the plane.
    rows, columns
        Its pixels.
    step
        One value stands for ``step`` x ``step`` pixels, the upper left one of them.
    classes
        Classes in order of the probabilities.
    labels
        ``(y, x)`` uint16 class values; 0 where there are no probabilities yet.
    probabilities
        ``(K, y, x)`` float32 with sum 1, after class weights.
    uncertainty
        ``(y, x)`` float32: entropy over log K, 0 certain, 1 uniform.
    stage
        ``filters``, ``fast``, ``recipe`` or ``student``: the coarsest features of its tiles.
    exact
        Whether labels are those that a run with the model of these strokes writes.
    complete
        Whether there are labels of all pixels.
    version
        Of the strokes.
    """

    plane: int
    rows: slice
    columns: slice
    step: int
    classes: tuple[ClassInfo, ...]
    labels: NDArray[np.uint16]
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    stage: StageName
    exact: bool
    complete: bool
    version: int


@dataclass(frozen=True)
class Place:
    """A place to draw at.

    Attributes
    ----------
    plane, row, column
        The voxel.
    uncertainty
        Mean entropy over log K around it, in 0..1.
    """

    plane: int
    row: int
    column: int
    uncertainty: float


@dataclass(frozen=True)
class Quality:
    """Agreement of classifiers with strokes that they were not trained on.

    Attributes
    ----------
    classes
        Classes that are drawn.
    iou
        IoU of each class on held-out pixels, in 0..1; NaN for one that could not be held out.
    mean
        Mean of those that are known.
    description
        What was held out, in words.
    version
        Of the strokes.
    """

    classes: tuple[ClassInfo, ...]
    iou: tuple[float, ...]
    mean: float
    description: str
    version: int


def check_weights(weights: Mapping[int, float]) -> dict[int, float]:
    """Return class weights as plain numbers by class value.

    Raises
    ------
    UsageError
        One is not finite or not above 0, or their ratio is too large.
    """
    plain = {int(value): float(weight) for value, weight in weights.items()}
    problem = problem_of([1.0, *plain.values()])
    if problem is not None:
        raise UsageError(f"class weights: {problem}")
    return plain
