"""Draw what a student predicts beside what its teacher does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.figures.overlays import thin
from hrvol.figures.panels import draw_planes

ROWS = 4
"""Tiles in a picture."""


def draw_students(
    path: str | Path,
    examples: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]],
    classes: Sequence[ClassInfo],
) -> Path:
    """Draw tiles in rows: grey values, the teacher's labels, the student's, and where they differ.

    Parameters
    ----------
    path
        PNG to write.
    examples
        Grey values ``(Y, X)``, and class numbers 1..K of the teacher and of the student. The first are drawn.
    classes
        Names and colours of the classes in order.

    Returns
    -------
    Path
        The file.
    """
    values = np.array([0, *(info.value for info in classes)])
    panels: dict[str, tuple[NDArray[Any], NDArray[Any] | None]] = {}
    for number, (image, teacher, student) in enumerate(examples[:ROWS]):
        agree = float((teacher == student).mean())
        image, teacher, student = (thin(plane) for plane in (image, teacher, student))
        shown = values[np.where(teacher == student, 0, student)]
        panels[f"{number + 1}: grey values"] = (image, None)
        panels[f"{number + 1}: teacher"] = (image, values[teacher])
        panels[f"{number + 1}: student"] = (image, values[student])
        panels[f"{number + 1}: differs on {100 * (1 - agree):.1f} %"] = (image, shown)
    return draw_planes(path, panels, classes, columns=4)
