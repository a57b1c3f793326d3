"""Convert lengths to metres."""

from __future__ import annotations

from hrvol.volume.ome.metadata import common_unit


def metres(unit: str | None) -> float | None:
    """Return the length of a unit in metres; ``None`` if hrvol does not know it."""
    if unit is None:
        return None
    (length, _, _), _ = common_unit((1.0, 1.0, 1.0), [unit, None, "meter"])
    known = length != 1.0 or unit == "meter"
    return length if known else None
