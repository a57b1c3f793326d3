"""Make rare classes rarer, which come out too large where a teacher weighs all classes evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hrvol.distil.examples import LabelledTile
from hrvol.distil.sample import TeacherSample
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.student.student import StudentClassifier

LEAST = 0.7
"""Part of the pixels that a teacher finds of a class, which a student is left with at least."""

_STEPS = 10  # of the power


def is_even(teacher: Model) -> bool:
    """Return whether a teacher was trained to weigh all classes evenly."""
    return isinstance(teacher.classifier, PixelClassifier) and (
        teacher.recipe.classifier.class_weight == "balanced"
    )


def odds_factors(
    sample: TeacherSample,
    power: float,
    tiles: Sequence[LabelledTile],
    predicted: Sequence[NDArray[np.float32]],
) -> NDArray[np.float64] | None:
    """Return factors on the odds of classes that make rare ones rarer; ``None``: none.

    A teacher that weighs all classes evenly finds too much of rare ones. The odds of each class are
    multiplied by a power of its mean probability in the volume. The true prior would be its fraction to the
    power 1, which is not known: a smaller power of what the teacher finds errs on the safe side.

    Parameters
    ----------
    sample
        What the teacher labelled.
    power
        Of the mean probabilities.
    tiles
        Some tiles of the sample.
    predicted
        The student's probabilities ``(K, rows, columns)`` of these tiles.
    """
    if power == 0 or not is_even(sample.teacher):
        return None
    return factors_of(sample.shares, power, [tile.probabilities for tile in tiles], predicted)


def factors_of(
    shares: NDArray[np.float64],
    power: float,
    teacher: Sequence[NDArray[np.floating]],
    student: Sequence[NDArray[np.float32]],
) -> NDArray[np.float64]:
    """Return a power of the classes' shares, lowered until the student keeps enough pixels of each class.

    That is :data:`LEAST` of the pixels that the teacher finds. A student may find less of a class than its
    teacher, about what is true, or be so unsure of it that the class would vanish.

    Parameters
    ----------
    shares
        ``(K,)``: mean probability of each class.
    power
        Of the shares.
    teacher, student
        Probabilities ``(K, rows, columns)`` of tiles.
    """
    logs = [np.log(np.maximum(values, 1e-12)).reshape(len(values), -1) for values in student]
    shift = power * np.log(np.maximum(shares, 1e-3))
    least = LEAST * _pixels([values.reshape(len(values), -1) for values in teacher], 0 * shift)
    for step in range(_STEPS, 0, -1):
        if (_pixels(logs, shift * step / _STEPS) >= least).all():
            return np.exp(shift * step / _STEPS)
    return np.ones(len(shift))


def _pixels(logs: Sequence[NDArray[np.floating]], shift: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pixels of each class, with shifted log-odds."""
    moved = shift[:, None].astype(np.float32)
    labels = ((values + moved).argmax(axis=0) for values in logs)
    return sum(np.bincount(found, minlength=len(shift)) for found in labels)  # type: ignore[return-value]


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
