"""Make rare classes rarer, which come out too large where a teacher weighs all classes evenly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hrvol.distil.sample import TeacherSample
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.student.student import StudentClassifier


def odds_factors(sample: TeacherSample, power: float) -> NDArray[np.float64] | None:
    """Return factors on the odds of classes that make rare ones rarer; ``None``: none.

    A teacher that weighs all classes evenly finds too much of rare ones. The odds of each class are
    multiplied by a power of its mean probability in the volume. The true prior would be its fraction to the
    power 1, which is not known: a smaller power of what the teacher finds errs on the safe side.
    """
    recipe = sample.teacher.recipe
    even = (
        isinstance(sample.teacher.classifier, PixelClassifier)
        and recipe.classifier.class_weight == "balanced"
    )
    if power == 0 or not even:
        return None
    return np.maximum(sample.shares, 1e-3) ** power


def weighed(student: StudentClassifier, factors: NDArray[np.float64]) -> StudentClassifier:
    """Return a student whose probabilities are multiplied by factors and normalised."""
    arrays = dict(student.arrays)
    cells = len(arrays["head.bias"]) // len(student.classes)
    shift = np.log(factors) - np.log(factors).max()
    # The bias is added before logits are divided by the temperature.
    arrays["head.bias"] = (arrays["head.bias"] + np.repeat(student.temperature * shift, cells)).astype(
        np.float32
    )
    return replace(student, arrays=arrays)
