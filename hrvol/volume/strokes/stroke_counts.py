"""Numbers of drawn voxels, by class and plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hrvol.classes import ClassInfo


@dataclass(frozen=True)
class StrokeCounts:
    """Drawn voxels of strokes.

    Attributes
    ----------
    planes
        By class value, in rising order: drawn voxels of each plane that has any.
    classes
        Names and colours of these classes.
    """

    planes: Mapping[int, Mapping[int, int]]
    classes: tuple[ClassInfo, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the counts as JSON values, one entry per class."""
        return [
            {
                "value": info.value,
                "name": info.name,
                "colour": list(info.colour),
                "pixels": sum(self.planes[info.value].values()),
                "planes": {str(z): count for z, count in self.planes[info.value].items()},
            }
            for info in self.classes
        ]
