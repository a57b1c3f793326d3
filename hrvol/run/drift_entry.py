"""Distance of planes of a volume from the training pixels of a model, as an output records it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from hrvol.errors import InputError
from hrvol.reading.schema import Schema, validated
from hrvol.run.attribute_names import DRIFT
from hrvol.text import listed

LOG = logging.getLogger("hrvol.run")

_SHOWN = 6  # planes in a warning


class _Entry(Schema):
    """What an output records of the distance of its planes from the training pixels."""

    threshold: float = Field(gt=0)
    planes: list[int] = Field(min_length=1, max_length=10_000)
    distances: list[float] = Field(min_length=1, max_length=10_000)
    tiles: int = Field(ge=1)


@dataclass(frozen=True)
class Drift:
    """Distance of some planes of a volume from the training pixels.

    Attributes
    ----------
    threshold
        Distance beyond which a plane is far.
    planes, distances
        Planes of which tiles were compared, in order, and the median distance of the pixels in each.
    tiles
        How many tiles were compared.
    """

    threshold: float
    planes: tuple[int, ...]
    distances: tuple[float, ...]
    tiles: int

    @property
    def far(self) -> tuple[int, ...]:
        """Planes that are far."""
        return tuple(z for z, d in zip(self.planes, self.distances, strict=True) if d > self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, from which :func:`read_entry` makes the same object."""
        return {
            "threshold": self.threshold,
            "planes": list(self.planes),
            "distances": list(self.distances),
            "tiles": self.tiles,
        }

    def warnings(self, volume: str) -> tuple[str, ...]:
        """Return which planes are far and what to do, a line each; nothing if none is."""
        if not self.far:
            return ()
        of_plane = dict(zip(self.planes, self.distances, strict=True))
        shown = sorted(sorted(self.far, key=lambda z: -of_plane[z])[:_SHOWN])
        found = listed(f"{z} ({of_plane[z]:.2f})" for z in shown)
        several, some = ("s", "some of these planes") if len(self.far) > 1 else ("", "this plane")
        return (
            f"{volume}: {len(self.far)} of {len(self.planes)} compared planes look unlike the training"
            f" strokes: plane{several} {found}; expected distances of at most {self.threshold:.2f}",
            f"labels there may be wrong: draw strokes on {some}, and train again with the others",
        )


def read_entry(values: Any, source: str) -> Drift | None:
    """Return what an output records; ``None`` if it records nothing.

    Raises
    ------
    InputError
        The values are damaged.
    """
    if values is None:
        return None
    entry = validated(_Entry, values, f"{source}: attributes: {DRIFT}")
    if len(entry.planes) != len(entry.distances):
        raise InputError(
            f"{source}: attributes: {DRIFT}: found {len(entry.distances)} distances, expected"
            f" {len(entry.planes)}"
        )
    return Drift(entry.threshold, tuple(entry.planes), tuple(entry.distances), entry.tiles)


def recorded_drift(settings: Mapping[str, Any], source: str) -> Drift | None:
    """Return what the settings of an output record; ``None`` for nothing, or if it is damaged."""
    try:
        return read_entry(settings.get(DRIFT), source)
    except InputError as error:
        LOG.warning("%s", error)
        return None
