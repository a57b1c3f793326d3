"""Answer the requests of a client: voxels, strokes, and what a session gives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from hrvol.errors import InputError, RecipeError
from hrvol.interactive.serve.events import Events
from hrvol.interactive.serve.pen import Pen
from hrvol.interactive.serve.session_host import SessionHost
from hrvol.interactive.serve.wanted import Wanted, WantedSession
from hrvol.interactive.session import Session
from hrvol.interactive.wire.changes import changes_of
from hrvol.interactive.wire.frame import Frame, blob
from hrvol.interactive.wire.limits import BOX_BYTES, POLL_SECONDS, REQUEST_BYTES
from hrvol.interactive.wire.messages import classes_to_json
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.text import printable
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import Volume

_READS = 4  # boxes at once: each may take BOX_BYTES

_CACHE = 512 * 2**20


class Hosted:
    """A volume, its strokes and a session on them.

    Parameters
    ----------
    levels
        The volume at all its resolutions, the finest first.
    store
        The strokes.
    recipe
        Of sessions for which the client names none.
    options
        Further keywords of :meth:`hrvol.Session.open`.
    """

    def __init__(
        self, levels: Sequence[Volume], store: DrawingStore, recipe: Recipe, options: Mapping[str, Any]
    ) -> None:
        self._levels, self._store, self._recipe, self._options = tuple(levels), store, recipe, dict(options)
        self._events = Events()
        self._pen = Pen(store)
        self._host = SessionHost(self._begin, self._events, self._pen.number_of)
        self._reads = threading.Semaphore(_READS)
        self._cache = ChunkCache(_CACHE)
        self._lineage = ""

    def close(self) -> None:
        """End the session; the strokes stay open."""
        self._host.close()

    def about(self) -> dict[str, Any]:
        """Return what the volume is, as JSON values."""
        first = self._levels[0]
        return {
            "source": first.source,
            "name": first.name,
            "dtype": first.dtype.newbyteorder("<").str,
            "ndim": first.ndim,
            "unit": first.unit,
            "strokes": f"{socket.gethostname()}:{self._store.source}",
            "levels": [
                {
                    "shape": list(level.shape),
                    "voxel_size": list(level.voxel_size),
                    "translation": list(level.translation),
                }
                for level in self._levels
            ],
        }

    def voxels(self, level: str, box: str) -> Frame:
        """Return the voxels of a box, ``z0,z1,y0,y1,x0,x1``, of a level.

        Raises
        ------
        InputError
            There is no such level or box, it is too large, or it cannot be read.
        """
        number = _numbers(level, 1, "level")[0]
        if number >= len(self._levels):
            raise InputError(f"level: found {number}, expected below {len(self._levels)}")
        volume = self._levels[number]
        z0, z1, y0, y1, x0, x1 = _numbers(box, 6, "box")
        spans = (slice(z0, z1), slice(y0, y1), slice(x0, x1))
        if not all(0 <= s.start < s.stop <= n for s, n in zip(spans, volume.shape, strict=True)):
            raise InputError(f"box: found {box[:120]}, expected a part of {volume.shape}")
        size = (z1 - z0) * (y1 - y0) * (x1 - x0) * volume.dtype.itemsize
        if size > BOX_BYTES:
            raise InputError(f"box: found {size:,} bytes, expected at most {BOX_BYTES:,}")
        with self._reads:
            return Frame({}, {"voxels": volume.read(spans, self._cache.read)})

    def attach(self, client: str, received: int) -> dict[str, Any]:
        """Let a client draw, and return what it has to know, see :class:`hrvol.interactive.serve.pen.Pen`."""
        lineage, known = self._pen.attach(client, received)
        if lineage != self._lineage:  # of another client
            self._lineage = lineage
            self._events.clear()
            self._host.reset()
        grid, table = self._store.grid, self._store.table
        return {
            "lineage": lineage,
            "received": known,
            "source": grid.source,
            "chunk": list(grid.chunk),
            "dtype": grid.dtype.newbyteorder("<").str,
            "classes": classes_to_json(table.classes),
            "next": table.next_value,
        }

    def release(self, client: str) -> None:
        """Let others draw, and other programs read what is drawn."""
        self._pen.release(client)
        self._store.flush()
        self._events.clear()
        self._host.reset()

    def drawn(self, client: str, lineage: str, after: str) -> Frame:
        """Return the next piece of what is drawn; without a piece, there is no more."""
        self._pen.check(client, lineage)
        numbers = _numbers(after, 3, "after") if after else None
        piece = self._store.piece_after(None if numbers is None else (numbers[0], numbers[1], numbers[2]))
        return Frame({}, {} if piece is None else {"piece": blob(piece.encode())})

    def draw(self, client: str, lineage: str, body: bytes) -> dict[str, Any]:
        """Make changes."""
        first, changes = changes_of(Frame.decode(body, "request", REQUEST_BYTES), "request")
        return {"received": self._pen.draw(client, lineage, first, changes)}

    def want(self, client: str, lineage: str, body: bytes) -> None:
        """Take over what is wanted of the session."""
        self._pen.check(client, lineage)
        self._host.want(Wanted.of(body))

    def news(self, client: str, lineage: str, after: str) -> Frame:
        """Return the news after a number; wait for some."""
        self._pen.check(client, lineage)
        events = self._events.after(_numbers(after, 1, "after")[0], POLL_SECONDS)
        self._pen.check(client, lineage)
        arrays = {
            f"{number}.{name}": array for number, event in events for name, array in event.arrays.items()
        }
        values = [
            {"number": number, "kind": event.kind, "values": dict(event.values), "arrays": [*event.arrays]}
            for number, event in events
        ]
        return Frame({"events": values}, arrays)

    def received(self, client: str) -> int:
        """Return the number of the last change of a client that was made."""
        return self._pen.received(client)

    def _begin(self, wanted: WantedSession) -> Session:
        recipe = self._recipe
        if wanted.preset is not None:
            if wanted.preset not in PRESETS:  # paths on this machine are not read
                raise RecipeError(
                    f"{printable(wanted.preset, 100)}: found no such preset, expected {', '.join(PRESETS)}"
                )
            recipe = PRESETS[wanted.preset]
        elif wanted.yaml is not None:
            recipe = Recipe.from_yaml(wanted.yaml.encode(), "recipe of the client")
        return Session.open(self._levels[0], self._store, recipe=recipe, **self._options)


def _numbers(text: str, count: int, name: str) -> list[int]:
    parts = text.split(",") if len(text) < 200 else []
    if len(parts) != count or not all(part.isdecimal() and len(part) < 16 for part in parts):
        raise InputError(f"{name}: found no {count} whole numbers, expected some separated by commas")
    return [int(part) for part in parts]
