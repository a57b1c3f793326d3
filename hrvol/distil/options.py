"""The request of a distillation as a frozen object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from hrvol.distil.dimensions import Wish
from hrvol.errors import UsageError
from hrvol.segment.student.spec import NAMES

RARITY = 0.4
"""Default power of the classes' mean probabilities that their odds are multiplied by."""

STEPS = 800
"""Default number of optimisation steps."""

AUTO = "auto"
"""Size of a student that is chosen by its agreement with the teacher."""


@dataclass(frozen=True)
class DistilOptions:
    """How a model is distilled.

    Attributes
    ----------
    minutes
        Time for labelling and training, about; ``None``: 10, or 2 on a GPU.
    tiles
        Number of tiles to label instead; ``None``: as many as fit the time.
    size
        ``small``, ``medium``, ``large``, or ``auto``.
    seed
        Of all random numbers.
    volumetric
        Whether the student sees neighbouring planes: ``auto`` (if they resemble a plane), ``on`` or ``off``.
    rarity
        Power of the classes' mean probabilities that their odds are multiplied by; 0: none.
    steps
        Optimisation steps of each student; those that see volumes take two smaller ones for each.
    accept
        Whether a student that fails the check is returned all the same.
    held_out
        Strokes on the volume that the teacher was not trained on, to compare both on: a path or an array.
    """

    minutes: float | None = None
    tiles: int | None = None
    size: str = AUTO
    seed: int = 0
    volumetric: Wish = "auto"
    rarity: float = RARITY
    steps: int = STEPS
    accept: bool = False
    held_out: Any = None

    def __post_init__(self) -> None:
        if self.size not in (AUTO, *NAMES):
            raise UsageError(f"size: found {self.size}, expected {AUTO}, {', '.join(NAMES)}")
        if self.volumetric not in ("auto", "on", "off"):
            raise UsageError(f"volumetric: found {self.volumetric}, expected auto, on or off")
        if not 0 <= self.rarity <= 1:
            raise UsageError(f"rarity: found {self.rarity:g}, expected 0 to 1")
        if not 1 <= self.steps <= 1_000_000:
            raise UsageError(f"steps: found {self.steps}, expected 1 to 1,000,000")
        if self.minutes is not None and not 0 < self.minutes <= 10_000:
            raise UsageError(f"minutes: found {self.minutes:g}, expected more than 0 and at most 10,000")
        if self.tiles is not None and not 2 <= self.tiles <= 10_000:
            raise UsageError(f"tiles: found {self.tiles}, expected 2 to 10,000: one in five is kept back")

    def to_dict(self) -> dict[str, Any]:
        """Return what determines the student, as JSON values."""
        values = asdict(replace(self, held_out=None))
        del values["accept"], values["held_out"]  # of its check
        return values
