"""A session on a server: what is wanted of it is sent, and its news arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.errors import InputError, RecipeError
from hrvol.interactive.lane import Gate, Ticket
from hrvol.interactive.listeners import Listeners, Unsubscribe
from hrvol.interactive.region import visible_region
from hrvol.interactive.results import Place, Preview, Quality, Scope, check_weights
from hrvol.interactive.wire.messages import (
    error_from_json,
    places_from_json,
    preview_from_json,
    quality_from_json,
)
from hrvol.reading.bounded import read_file

_RECIPE_BYTES = 2**20

Arrays = Mapping[str, NDArray[Any]]


@dataclass
class Wish:
    """What is wanted of the server, as :mod:`hrvol.interactive.serve.wanted` reads it."""

    session: dict[str, Any] | None = None
    view: dict[str, Any] | None = None
    live: bool = False
    weights: list[tuple[int, float]] = field(default_factory=list)
    cancels: int = 0
    asks: dict[int, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "session": self.session,
            "view": self.view,
            "live": self.live,
            "weights": self.weights,
            "cancels": self.cancels,
            "asks": list(self.asks.values()),
        }


class RemoteSession:
    """A session on a server; see :class:`hrvol.Session`. Use ``session`` of :func:`hrvol.connect`.

    Parameters
    ----------
    shape
        Voxels (z, y, x) of the volume.
    number
        Of the session.
    wish
        Called with each change of what is wanted.
    version_of
        Returns the version of the strokes for the server's number of a change.
    """

    def __init__(
        self,
        shape: Shape3,
        number: int,
        wish: Callable[[Wish], None],
        version_of: Callable[[int], int],
    ) -> None:
        self.shape, self.number = shape, number
        self._send, self._version_of = wish, version_of
        self._listeners = Listeners()
        self._lock = threading.RLock()
        self._wish = Wish()
        self._tickets: dict[int, Ticket[Any]] = {}
        self._count = 0
        self._preview: Preview | None = None
        self._weights: Mapping[int, float] = MappingProxyType({})
        self._opened: Ticket[None] = Ticket(Gate())
        self._closed = False

    def begin(self, recipe: str | Path | None, timeout: float | None) -> None:
        """Begin the session on the server, and wait for it.

        Parameters
        ----------
        recipe
            A preset's name, or a recipe file on this machine; ``None``: the recipe of the server.
        timeout
            Seconds.

        Raises
        ------
        HrvolError
            What the server raises.
        TimeoutError
            It takes longer.
        """
        with self._lock:
            self._wish.session = {"number": self.number, **recipe_to_json(recipe)}
            self._send(self._wish)
        self._opened.result(timeout)

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def live(self) -> bool:
        """Whether previews follow the strokes and the view; else :meth:`update` makes one."""
        return self._wish.live

    @live.setter
    def live(self, value: bool) -> None:
        with self._lock:
            self._wish.live = bool(value)
            self._changed()

    @property
    def class_weights(self) -> Mapping[int, float]:
        """Factors of the classes' probabilities by class value; classes without one have 1."""
        return self._weights

    @class_weights.setter
    def class_weights(self, weights: Mapping[int, float]) -> None:
        with self._lock:
            self._weights = MappingProxyType(check_weights(weights))
            self._wish.weights = list(self._weights.items())
            self._changed()

    def view(self, plane: int, rows: slice, columns: slice, level: int = 0) -> None:
        """Set what is seen, see :meth:`hrvol.Session.view`; :class:`UsageError` if that is nothing."""
        region = visible_region(self.shape, plane, rows, columns, level)
        with self._lock:
            self._wish.view = {
                "plane": int(region.plane),
                "rows": [int(region.rows.start), int(region.rows.stop)],
                "columns": [int(region.columns.start), int(region.columns.stop)],
                "level": int(region.level),
            }
            self._changed()

    def update(self) -> Ticket[Preview]:
        """Make previews of the present strokes and view, the last of them exact, which the ticket returns."""
        return self._ask("update")

    def preview(self) -> Preview | None:
        """Return the present preview, or ``None`` before the first one."""
        return self._preview

    def on_preview(self, function: Callable[[Preview], None]) -> Unsubscribe:
        """Call a function with each new preview, in a thread of the connection."""
        return self._listeners.add("preview", function)

    def on_nothing(self, function: Callable[[], None]) -> Unsubscribe:
        """Call a function when the preview is gone, in a thread of the connection."""
        return self._listeners.add("nothing", function)

    def on_error(self, function: Callable[[str], None]) -> Unsubscribe:
        """Call a function with each error, one line of text, in a thread of the connection."""
        return self._listeners.add("error", function)

    def on_progress(self, function: Callable[[str, int, int], None]) -> Unsubscribe:
        """Call a function with a stage, how much of it is done and all of it, in a thread."""
        return self._listeners.add("progress", function)

    def request_places(self, count: int = 1, planes: Scope = "view") -> Ticket[tuple[Place, ...]]:
        """Begin to look for places to draw next, see :meth:`next_places`."""
        return self._ask("places", count=int(count), planes=planes)

    def next_places(self, count: int = 1, planes: Scope = "view") -> tuple[Place, ...]:
        """Return places where a stroke would teach most, the best first; see :class:`hrvol.Session`."""
        return self.request_places(count, planes).result()

    def request_quality(self) -> Ticket[Quality]:
        """Begin a cross-validation, see :meth:`quality`."""
        return self._ask("quality")

    def quality(self) -> Quality:
        """Return the cross-validated IoU of each class on the strokes, whole strokes held out."""
        return self.request_quality().result()

    def request_model_bytes(self) -> Ticket[bytes]:
        """Begin to train, see :meth:`model_bytes`."""
        return self._ask("model")

    def model_bytes(self) -> bytes:
        """Return the bytes of the ``*.hrvol`` file of the model of the present strokes."""
        return self.request_model_bytes().result()

    def cancel(self) -> None:
        """Cancel everything that is computed, and the tickets of it."""
        with self._lock:
            self._wish.cancels += 1
            tickets = list(self._tickets.values())
            self._changed()
        for ticket in tickets:
            ticket.cancel()

    def close(self) -> None:
        """End the session; the connection and the strokes stay."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._send(Wish())
            tickets = list(self._tickets.values())
        for ticket in tickets:
            ticket.cancel()
        self._opened.cancel()

    def take(self, kind: str, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Take news of the server."""
        if kind == "error":
            self._listeners.tell("error", str(values.get("line")))
        elif kind == "answer":
            self._answer(values, arrays)
        elif values.get("session") != self.number:
            return  # of an earlier session
        elif kind == "session":
            if "error" in values and self._opened.done:  # of a server that started again
                self._listeners.tell("error", str(error_from_json(values)))
            elif "error" in values:
                self._opened.fail(error_from_json(values))
            else:
                self._opened.resolve(None)
        elif kind == "preview":
            self._preview = self._preview_of(values, arrays)
            self._listeners.tell("preview", self._preview)
        elif kind == "nothing":
            self._preview = None
            self._listeners.tell("nothing")
        elif kind == "progress":
            stage, done, total = (values.get(name) for name in ("stage", "done", "total"))
            if type(done) is int and type(total) is int:
                self._listeners.tell("progress", str(stage), done, total)

    def fail(self, error: Exception) -> None:
        """Fail all that is waited for: the connection ended."""
        with self._lock:
            tickets = list(self._tickets.values())
        for ticket in [self._opened, *tickets]:
            ticket.fail(error)

    def _ask(self, kind: str, **arguments: Any) -> Ticket[Any]:
        ticket: Ticket[Any] = Ticket(Gate())
        with self._lock:
            if self._closed:
                ticket.cancel()
                return ticket
            self._count += 1
            number = self._count
            self._tickets[number] = ticket
            self._wish.asks[number] = {"number": number, "kind": kind, **arguments}
            self._changed()
        ticket.on_done(lambda _: self._over(number))
        return ticket

    def _over(self, number: int) -> None:
        """Wait for an answer no more; the server then forgets or cancels it."""
        with self._lock:
            self._tickets.pop(number, None)
            if self._wish.asks.pop(number, None) is not None:
                self._changed()

    def _changed(self) -> None:
        if not self._closed:
            self._send(self._wish)

    def _answer(self, values: Mapping[str, Any], arrays: Arrays) -> None:
        with self._lock:
            ticket = self._tickets.get(values.get("ask", -1))
        if ticket is None:
            return
        try:
            ticket.resolve(self._answered(values, arrays))
        except CancelledError:
            ticket.cancel()
        except Exception as error:
            ticket.fail(error)

    def _answered(self, values: Mapping[str, Any], arrays: Arrays) -> Any:
        if values.get("cancelled"):
            raise CancelledError
        if "error" in values:
            raise error_from_json(values)
        kind = values.get("answers")
        if kind == "update":
            return self._preview_of(values.get("preview") or {}, arrays)
        if kind == "places":
            return places_from_json(values.get("places"))
        if kind == "quality":
            return quality_from_json(self._versioned(values.get("quality") or {}))
        if kind == "model" and "model" in arrays:
            return arrays["model"].tobytes()
        raise InputError("answer of a server: found another kind")

    def _preview_of(self, values: Mapping[str, Any], arrays: Arrays) -> Preview:
        return preview_from_json(self._versioned(values), arrays)

    def _versioned(self, values: Mapping[str, Any]) -> dict[str, Any]:
        number = values.get("version")
        return dict(values) | {"version": self._version_of(number) if type(number) is int else None}


def recipe_to_json(recipe: str | Path | None) -> dict[str, Any]:
    """Return a preset's name, or the text of a recipe file on this machine, as JSON values."""
    if recipe is None:
        return {}
    text = str(recipe)
    if not (text.endswith((".yaml", ".yml")) or "/" in text):
        return {"preset": text}
    content = read_file(text, _RECIPE_BYTES, "a recipe file", RecipeError)
    try:
        return {"yaml": content.decode()}
    except UnicodeDecodeError:
        raise RecipeError(f"{text}: found bytes that are no UTF-8, expected a recipe file") from None
