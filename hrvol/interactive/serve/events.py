"""Keep the news of a session until a client takes them: of each kind the newest.

News have numbers. A client that asks for those after a number gets them again until it names a higher one, so
nothing is lost with a connection.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

_ERRORS = 50
"""Errors that wait, at most."""


@dataclass(frozen=True, eq=False)
class Event:
    """News.

    Attributes
    ----------
    kind
        ``preview``, ``progress``, ``error``, ``session`` or ``answer``.
    values
        JSON values.
    arrays
        Arrays by name.
    """

    kind: str
    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Events:
    """The news that wait; any thread may call it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slots: dict[str, tuple[int, Event]] = {}
        self._last = 0
        self._waiting = 0

    def put(self, slot: str, event: Event) -> None:
        """Add news, instead of those in the same slot."""
        with self._changed:
            self._add(slot, event)

    def put_error(self, line: str) -> None:
        """Add an error."""
        with self._changed:
            self._add(f"error {self._last + 1}", Event("error", {"line": line}))
            errors = [slot for slot in self._slots if slot.startswith("error ")]
            for old in errors[:-_ERRORS]:
                del self._slots[old]

    def forget(self, slot: str) -> None:
        """Remove news that nobody waits for any more."""
        with self._changed:
            self._slots.pop(slot, None)

    def clear(self) -> None:
        """Remove all news, and end the waiting for some."""
        with self._changed:
            self._slots.clear()
            self._waiting += 1
            self._changed.notify_all()

    def after(self, number: int, seconds: float) -> list[tuple[int, Event]]:
        """Return the news after a number, in order; wait for some so long. A later call ends the waiting."""
        with self._changed:
            self._waiting += 1
            own = self._waiting
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._last > number or self._waiting != own, seconds)
            return sorted((one for one in self._slots.values() if one[0] > number), key=lambda one: one[0])

    def _add(self, slot: str, event: Event) -> None:
        self._last += 1
        self._slots[slot] = self._last, event
        self._changed.notify_all()
