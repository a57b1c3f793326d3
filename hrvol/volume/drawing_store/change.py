"""Say what a change of strokes changed, and which changes came after one that is known."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from hrvol.arrays import Shape3
from hrvol.errors import one_line
from hrvol.volume.grid.tiling import Box, hull, whole

LOG = logging.getLogger("hrvol.volume")

Kind = Literal["paint", "classes", "undo", "redo", "reload", "error"]

MOST_BOXES = 1024
"""Boxes of one change; of more, the box around all of them is given."""

_KEPT = 10_000  # changes whose boxes are known


@dataclass(frozen=True)
class Change:
    """A change of strokes.

    Attributes
    ----------
    kind
        What was done; ``reload``: others drew; ``error``: they cannot be saved now, nothing changed.
    version
        Version of the strokes after it.
    boxes
        Boxes (z, y, x) of the volume that hold all changed voxels.
    pixels
        Number of changed voxels.
    classes
        Whether names, colours or numbers of classes changed.
    message
        Of an error, one line; empty: what is drawn is saved again.
    """

    kind: Kind
    version: int
    boxes: tuple[Box, ...] = ()
    pixels: int = 0
    classes: bool = False
    message: str = ""


def few_boxes(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Return the boxes, or one around all of them if they are many."""
    return tuple(boxes) if len(boxes) <= MOST_BOXES else (reduce(hull, boxes),)


class ChangeLog:
    """The boxes of the last changes.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    """

    def __init__(self, shape: Shape3) -> None:
        self._shape = shape
        self._changes: deque[Change] = deque(maxlen=_KEPT)

    def add(self, change: Change) -> None:
        """Add a change, whose version is one above that of the last."""
        self._changes.append(change)

    def since(self, version: int, now: int) -> tuple[Box, ...]:
        """Return boxes that hold all voxels changed after a version; all of the volume if it is too old."""
        count = now - version
        if count > len(self._changes) or version < 0:
            return (whole(self._shape),)
        recent = [self._changes[len(self._changes) - count + i] for i in range(max(count, 0))]
        bounds = {tuple((s.start, s.stop) for s in box): box for change in recent for box in change.boxes}
        return few_boxes(list(bounds.values()))


class Listeners:
    """Functions that are called with each change.

    Parameters
    ----------
    source
        Name of the strokes for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._functions: dict[int, Callable[[Change], None]] = {}
        self._count = 0

    def add(self, function: Callable[[Change], None]) -> Callable[[], None]:
        """Add a function; the result removes it."""
        self._count += 1
        key = self._count
        self._functions[key] = function

        def remove() -> None:
            self._functions.pop(key, None)

        return remove

    def call(self, change: Change) -> None:
        """Call all functions; what they raise is logged, as painting does not depend on them."""
        for function in list(self._functions.values()):
            try:
                function(change)
            except Exception as error:
                LOG.warning("%s: a listener failed: %s", self._source, one_line(error))
