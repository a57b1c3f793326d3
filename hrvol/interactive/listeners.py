"""Call functions with the events of a session."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, get_args

LOG = logging.getLogger("hrvol.interactive")

Event = Literal["preview", "nothing", "error", "progress"]

Unsubscribe = Callable[[], None]


class Listeners:
    """Functions that are called with the events of a session."""

    def __init__(self) -> None:
        events: tuple[Event, ...] = get_args(Event)
        self._functions: dict[Event, list[Callable[..., None]]] = {event: [] for event in events}
        self._lock = threading.Lock()

    def add(self, event: Event, function: Callable[..., None]) -> Unsubscribe:
        """Call a function with all events of a kind, until the function that is returned is called."""
        with self._lock:
            self._functions[event].append(function)

        def forget() -> None:
            with self._lock:
                if function in self._functions[event]:
                    self._functions[event].remove(function)

        return forget

    def tell(self, event: Event, *values: Any) -> None:
        """Call the functions; what they raise is logged."""
        with self._lock:
            functions = list(self._functions[event])
        for function in functions:
            try:
                function(*values)
            except Exception:
                LOG.exception("a function that was called with a %s failed", event)
