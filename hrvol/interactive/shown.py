"""What a session shows, and those who are called with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from hrvol.interactive.listeners import Listeners
from hrvol.interactive.preview import RawPreview, preview_of
from hrvol.interactive.region import Region
from hrvol.interactive.results import ORDER, Preview, check_weights


class Shown:
    """The best preview of what is seen, with class weights.

    Listeners are called one after the other, in the order of what is shown: they may not wait for a preview.

    Parameters
    ----------
    listeners
        Called with each new preview.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()  # of the fields; held for moments
        self._showing = threading.RLock()  # held while listeners are called; taken before the other
        self._raw: RawPreview | None = None
        self._weights: Mapping[int, float] = MappingProxyType({})
        self._empty = -1  # version of strokes that gave no preview: earlier ones are not shown any more
        self.preview: Preview | None = None
        self.region: Region | None = None

    @property
    def weights(self) -> Mapping[int, float]:
        """Factors of the classes' probabilities by class value."""
        return self._weights

    @weights.setter
    def weights(self, weights: Mapping[int, float]) -> None:
        self._weights = MappingProxyType(check_weights(weights))

    def publish(self, raw: RawPreview) -> Preview:
        """Show a preview, unless it is of another region or there is a better one of the same strokes."""
        with self._lock:
            held = self._raw
            same = held is not None and (held.region, held.version) == (raw.region, raw.version)
            newest = held is None or raw.version >= held.version or held.region != raw.region
            better = held is None or not same or _rank(raw) >= _rank(held)
            chosen = raw.region == self.region and newest and better and raw.version > self._empty
            if chosen:
                self._raw = raw
        found = self._show(raw) if chosen else None
        return preview_of(raw, self._weights) if found is None else found

    def clear(self, version: int) -> None:
        """Show nothing: strokes of this version give no preview."""
        with self._showing:
            with self._lock:
                self._empty = max(self._empty, version)
                if self._raw is None or self._raw.version > version:
                    return
                self._raw = self.preview = None
            self._listeners.tell("nothing")

    def weigh(self) -> None:
        """Show the present preview again, with the present class weights."""
        raw = self._raw
        if raw is not None:
            self._show(raw)

    def _show(self, raw: RawPreview) -> Preview | None:
        """Show a preview; ``None`` if another one has replaced it meanwhile."""
        with self._showing:
            if self._raw is not raw:
                return None
            found = preview_of(raw, self._weights)
            with self._lock:
                if self._raw is not raw:
                    return None
                self.preview = found
            self._listeners.tell("preview", found)
            return found


def _rank(raw: RawPreview) -> tuple[bool, bool, bool, int, int]:
    """Return what makes a preview better than another one."""
    return raw.stage == "student", raw.exact, raw.complete, ORDER.index(raw.stage), -raw.step
