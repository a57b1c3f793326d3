"""Compare a student with its teacher on tiles that were kept back from training.

Agreement measures fidelity, not quality: a student that is better than its teacher agrees less. What tells a
student that has not learnt enough is that it agrees with its teacher on tiles that it was trained on and not
on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.quality.calibration import Reliability, temperature_for, tempered
from hrvol.quality.metrics import Confusion, iou_per_class, mean_iou, pixel_accuracy

GAP = 0.08
"""A student is rejected if its mean IoU with the teacher falls by more from training to kept-back tiles."""

WORSE = 0.02
"""A student is rejected if its mean IoU on held-out strokes is further below the teacher's."""

LOST = 0.25
"""A student is rejected that finds fewer pixels of a class than this part of those that its teacher finds."""

SEEN = 500
"""Pixels of a class that a teacher has to find before a student can have lost it."""

FAR = 0.15
"""A tile is reported if the share of pixels that agree is further below the median of tiles."""

_PIXELS = 200_000  # of the fit of a temperature


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far a student agrees with its teacher on some tiles.

    Attributes
    ----------
    confusion
        ``(K, K)`` pixels by class of the teacher and of the student.
    tiles
        ``(n,)`` share of pixels of each tile on which both agree.
    calibration_error
        Expected calibration error of the student's probabilities, the teacher's labels taken as true.
    cross_entropy
        Mean cross-entropy of the student's probabilities against the teacher's, in nats.
    """

    confusion: Confusion
    tiles: NDArray[np.float64]
    calibration_error: float
    cross_entropy: float

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of the two for each class; NaN where neither has it."""
        return iou_per_class(self.confusion.matrix)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes."""
        return mean_iou(self.confusion.matrix)

    @property
    def share(self) -> float:
        """Share of pixels on which both agree."""
        return pixel_accuracy(self.confusion.matrix)

    def found(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pixels ``(K,)`` of each class that the teacher finds, and that the student finds."""
        return self.confusion.matrix.sum(axis=1)[1:], self.confusion.matrix.sum(axis=0)[1:]

    @property
    def far_tiles(self) -> tuple[int, ...]:
        """Tiles that agree much less than the others do."""
        return tuple(np.flatnonzero(self.tiles < np.median(self.tiles) - FAR).tolist())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "miou": round(self.mean_iou, 4),
            "iou": [None if np.isnan(value) else round(float(value), 4) for value in self.iou],
            "share": round(self.share, 4),
            "tiles": len(self.tiles),
            "lowest_tile": round(float(self.tiles.min()), 4),
            "median_tile": round(float(np.median(self.tiles)), 4),
            "calibration_error": round(self.calibration_error, 4),
        }


def agreement(
    teacher: Sequence[NDArray[Any]], student: Sequence[NDArray[np.float32]], temperature: float = 1.0
) -> Agreement:
    """Compare probabilities of tiles.

    Parameters
    ----------
    teacher, student
        ``(K, rows, columns)`` probabilities of each tile.
    temperature
        Of the student; see :func:`hrvol.quality.calibration.tempered`.
    """
    classes = teacher[0].shape[0]
    total: Confusion | None = None
    shares = []
    reliability: Reliability | None = None
    entropy, pixels = 0.0, 0
    for one, other in zip(teacher, student, strict=True):
        true, found = (values.argmax(axis=0) + 1 for values in (one, other))
        counted = Confusion.of(found, true, classes)
        total = counted if total is None else total + counted
        shares.append(float((true == found).mean()))
        soft = tempered(other, temperature)
        of_tile = Reliability.of(soft, true - 1)
        reliability = of_tile if reliability is None else reliability + of_tile
        entropy -= float((one.astype(np.float32) * np.log(np.maximum(soft, 1e-6))).sum())
        pixels += true.size
    assert total is not None
    assert reliability is not None
    return Agreement(total, np.array(shares), reliability.error, entropy / pixels)


def fit_temperature(
    teacher: Sequence[NDArray[Any]], student: Sequence[NDArray[np.float32]], seed: int
) -> float:
    """Return the temperature at which a student's probabilities are nearest to its teacher's.

    The cross-entropy of the teacher's probabilities is minimised (Guo et al., ICML 2017, with soft labels) on
    a sample of pixels.

    Returns
    -------
    float
        0.1 to 10; above 1 where the student is too sure.
    """
    rng = np.random.default_rng([seed, 11])
    flat = [values.reshape(values.shape[0], -1) for values in teacher]
    other = [values.reshape(values.shape[0], -1) for values in student]
    each = max(1, _PIXELS // len(flat))
    chosen = [rng.integers(values.shape[1], size=min(each, values.shape[1])) for values in flat]
    target, found = (
        np.concatenate([values[:, take] for values, take in zip(group, chosen, strict=True)], axis=1)
        for group in (flat, other)
    )
    return temperature_for(found, target)
