"""Describe the steps of a cleaning, and read them from text such as ``remove pore 500um3``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.analysis.label_classes import class_value, class_values
from hrvol.analysis.sizes import VoxelGrid, least_voxels, radius_voxels
from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.text import printable

REMOVE, LARGEST, FILL = "remove", "keep-largest", "fill"
"""Steps that need whole components."""

OPEN, CLOSE, MAJORITY = "open", "close", "majority"
"""Steps that need a ball around each voxel."""

FORMS = {
    REMOVE: "remove CLASSES SIZE [into CLASS]",
    LARGEST: "keep-largest CLASSES [into CLASS]",
    FILL: "fill CLASSES [SIZE]",
    OPEN: "open CLASSES RADIUS [into CLASS]",
    CLOSE: "close CLASSES RADIUS",
    MAJORITY: "majority RADIUS",
}
"""What users write, by the name of the step."""

MOST_REACH = 64
"""Most voxels of a radius along an axis."""

MOST_STEPS = 50


@dataclass(frozen=True)
class Step:
    """One step, its sizes in voxels.

    Attributes
    ----------
    name
        A key of :data:`FORMS`.
    classes
        Label values that it changes, in order; empty for ``majority``.
    least
        Components of fewer voxels are removed, or holes filled; ``None``: all holes.
    radius
        Half-axes (z, y, x) of the ball, in voxels.
    into
        Value of removed voxels; ``None``: chosen by their neighbours.
    """

    name: str
    classes: tuple[int, ...] = ()
    least: int | None = None
    radius: Spacing3 = (0.0, 0.0, 0.0)
    into: int | None = None

    @property
    def local(self) -> bool:
        """Whether a voxel depends on those around it only."""
        return self.name in (OPEN, CLOSE, MAJORITY)

    @property
    def reach(self) -> Shape3:
        """Voxels (z, y, x) around a voxel on which it depends, of a local step."""
        times = 1 if self.name == MAJORITY else 2  # one erosion, one dilation
        z, y, x = (times * math.floor(r + 1e-6) for r in self.radius)
        return z, y, x

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "least_voxels": self.least,
            "radius_voxels": list(self.radius) if self.local else None,
            "into": self.into,
        }


def parse_step(text: str, classes: Sequence[ClassInfo], grid: VoxelGrid) -> tuple[Step, ...]:
    """Read a step.

    Parameters
    ----------
    text
        One of :data:`FORMS`: ``CLASSES`` are names or numbers of classes, separated by commas, or ``all``;
        ``CLASS`` may be 0.
    classes
        Of the labels.
    grid
        Of the labels.

    Returns
    -------
    tuple of Step
        Several where classes are treated one after the other.

    Raises
    ------
    UsageError
        The text is no step, or does not fit the labels.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    name = words[0].lower() if words else ""
    if name not in FORMS:
        raise UsageError(
            f"step: found '{printable(text, 100)}', expected it to begin with {', '.join(FORMS)}"
        )
    rest, into, where = words[1:], None, f"step '{printable(text, 100)}'"
    if name in (REMOVE, LARGEST, OPEN) and len(rest) > 2 and rest[-2].lower() == "into":
        into = class_value(rest[-1], classes, where, zero=True)
        rest = rest[:-2]
    values: tuple[int, ...] = ()
    if name != MAJORITY:
        if not rest:
            raise _wrong(name, text)
        values, rest = class_values(rest[0], classes, where), rest[1:]
    size = " ".join(rest)
    if (not size and name not in (LARGEST, FILL)) or (size and name == LARGEST):
        raise _wrong(name, text)
    if name in (REMOVE, FILL, LARGEST):
        least = least_voxels(size, grid) if size else None
        together = Step(name, values, least, into=into)
        return (together,) if name != FILL else tuple(Step(name, (value,), least) for value in values)
    radius = radius_voxels(size, grid)
    if max(radius[-grid.ndim :]) > MOST_REACH:
        raise UsageError(
            f"step '{printable(text, 100)}': found a radius of {max(radius):.3g} voxels,"
            f" expected at most {MOST_REACH}"
        )
    if grid.ndim == 2:
        radius = (1.0, *radius[1:])
    if name == MAJORITY:
        return (Step(name, radius=radius),)
    return tuple(Step(name, (value,), radius=radius, into=into) for value in values)


def _wrong(name: str, text: str) -> UsageError:
    return UsageError(f"step: found '{printable(text, 100)}', expected {FORMS[name]}")
