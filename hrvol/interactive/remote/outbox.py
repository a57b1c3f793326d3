"""Number the changes of strokes, and keep them until the server has them on its disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from hrvol.errors import StrokesError
from hrvol.interactive.wire.frame import Frame, blob
from hrvol.interactive.wire.limits import CHANGE_BYTES

MOST_BYTES = 256 * 2**20
"""Most bytes of changes that wait."""

MOST_CHANGES = 100_000
"""Most changes that wait."""

BATCH_BYTES = 8 * 2**20
"""Bytes of changes that are sent at once (at least one change)."""

Records = tuple[bytes, ...]


class Outbox:
    """The changes that the server may not have; any thread may call it.

    Parameters
    ----------
    source
        Name of the strokes for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._waiting: deque[Records] = deque()
        self._bytes = 0
        self._acked = 0
        self._on_new = threading.Event()

    @property
    def new(self) -> threading.Event:
        """Set when changes are added."""
        return self._on_new

    @property
    def acked(self) -> int:
        """Number of the last change that the server has."""
        with self._changed:
            return self._acked

    @property
    def last(self) -> int:
        """Number of the last change."""
        with self._changed:
            return self._acked + len(self._waiting)

    def add(self, records: Sequence[bytes]) -> None:
        """Add a change.

        Raises
        ------
        StrokesError
            It is too large, or too many wait.
        """
        size = sum(map(len, records))
        if size > CHANGE_BYTES:
            raise StrokesError(
                f"{self._source}: found a change of {size:,} bytes, expected at most {CHANGE_BYTES:,} at once"
            )
        with self._changed:
            if self._bytes + size > MOST_BYTES or len(self._waiting) >= MOST_CHANGES:
                raise StrokesError(
                    f"{self._source}: found {len(self._waiting):,} changes that the server has not received,"
                    " expected it to receive them before more is drawn"
                )
            self._waiting.append(tuple(records))
            self._bytes += size
        self._on_new.set()

    def restore(self, acked: int, changes: Sequence[Records]) -> None:
        """Take over the changes of an earlier process; nothing was added yet."""
        with self._changed:
            self._acked, self._waiting = acked, deque(changes)
            self._bytes = sum(len(record) for change in changes for record in change)
        self._on_new.set()

    def waiting(self) -> tuple[int, list[Records]]:
        """Return the number of the first change that waits, and all that wait."""
        with self._changed:
            return self._acked + 1, list(self._waiting)

    def batch(self, last: int) -> tuple[int, list[Records]]:
        """Return the number of the first change that waits, and some, none after a number."""
        with self._changed:
            found: list[Records] = []
            size = 0
            for change in self._waiting:
                size += sum(map(len, change))
                if self._acked + len(found) >= last or (found and size > BATCH_BYTES):
                    break
                found.append(change)
            return self._acked + 1, found

    def received(self, number: int) -> None:
        """Forget the changes up to a number."""
        with self._changed:
            while self._waiting and self._acked < number:
                self._bytes -= sum(map(len, self._waiting.popleft()))
                self._acked += 1
            self._changed.notify_all()

    def refused(self, number: int) -> None:
        """Forget the changes up to a number, and the one after it, which the server refuses."""
        self.received(number + 1)

    def wait(self, seconds: float) -> bool:
        """Wait until no change waits; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)


def frame_of(first: int, changes: Sequence[Records], **values: object) -> Frame:
    """Return changes as a frame."""
    lengths = [[len(record) for record in change] for change in changes]
    data = b"".join(record for change in changes for record in change)
    return Frame({"first": first, "changes": lengths, **values}, {"records": blob(data)})
