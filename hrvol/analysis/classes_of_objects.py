"""What an output of separated objects tells about them: that it is one, and the class of each object."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import Location

INSTANCES = "instances"
"""Attribute that tells how objects were separated; only volumes of objects have it."""

OBJECTS = "objects"
"""Name of the file of the objects' classes in an output."""


def holds_objects(source: Any) -> bool:
    """Whether a source is a location with an output of separated objects."""
    return INSTANCES in _provenance(source)


def classes_of_objects(source: Any) -> list[str] | None:
    """Return the class of each object of an output, by number (empty for 0); ``None`` for other sources."""
    made = _provenance(source).get(INSTANCES)
    data = LabelStore(source).read_file(OBJECTS) if isinstance(made, dict) else None
    names = made.get("classes") if isinstance(made, dict) else None
    if data is None or len(data) % 2 or not isinstance(names, dict):
        return None
    of_value = {int(value): str(name) for value, name in names.items() if str(value).isdecimal()}
    return [of_value.get(value, "") for value in np.frombuffer(data, "<u2").tolist()]


def classes_file(classes: Any) -> bytes:
    """Return the file of the classes ``(n,)`` uint16 of objects 1..n."""
    return np.concatenate([np.zeros(1), classes]).astype("<u2").tobytes()


def _provenance(source: Any) -> dict[str, Any]:
    if not isinstance(source, Location):
        return {}
    found = (source.attributes() or {}).get("hrvol")
    return found if isinstance(found, dict) else {}
