"""Parse a region of a volume that is written as text."""

from __future__ import annotations


def whole_number(text: str) -> int | None:
    """Return a number of at most 18 digits; ``None`` for any other text."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def parse_slices(text: str) -> tuple[slice, ...]:
    """Return the slices of ``z0:z1,y0:y1,x0:x1``; ``:`` or an empty end means all of an axis.

    Raises
    ------
    ValueError
        The text is no such region; the message is ``found ..., expected ...``.
    """
    parts = text.split(",")
    if len(parts) not in (2, 3):
        raise ValueError(f"found {text!r}, expected z0:z1,y0:y1,x0:x1 (or y0:y1,x0:x1 for an image)")
    slices = []
    for part in parts:
        start, colon, stop = (end.strip() for end in part.partition(":"))
        if not colon or any(whole_number(end) is None for end in (start, stop) if end):
            raise ValueError(f"found {part!r} in {text!r}, expected start:stop in voxels")
        low, high = int(start or 0), int(stop) if stop else None
        if high is not None and high <= low:
            raise ValueError(f"found {part!r} in {text!r}, expected start < stop")
        slices.append(slice(low, high))
    return tuple(slices)
