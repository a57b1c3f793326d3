"""Read changes of strokes from a frame."""

from __future__ import annotations

import numpy as np

from hrvol.errors import InputError
from hrvol.interactive.wire.frame import Frame


def changes_of(frame: Frame, source: str) -> tuple[int, list[tuple[bytes, ...]]]:
    """Return the number of the first change, and the records of each.

    Raises
    ------
    InputError
        The frame has something else. Records are not looked at.
    """
    first, lengths, found = (
        frame.values.get("first"),
        frame.values.get("changes"),
        frame.arrays.get("records"),
    )
    if type(first) is not int or first < 1 or not isinstance(lengths, list):
        raise InputError(f"{source}: found no changes of strokes")
    if found is None or found.dtype != np.uint8:
        raise InputError(f"{source}: found no changes of strokes")
    data = found.tobytes()
    at = 0
    changes: list[tuple[bytes, ...]] = []
    for change in lengths:
        records: list[bytes] = []
        for length in change if isinstance(change, list) else [None]:
            if type(length) is not int or not 0 <= length <= len(data) - at:
                raise InputError(f"{source}: found damaged changes of strokes")
            records.append(data[at : at + length])
            at += length
        changes.append(tuple(records))
    if at != len(data):
        raise InputError(f"{source}: found more bytes than changes of strokes")
    return first, changes
