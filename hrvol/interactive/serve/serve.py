"""Open what is served, and serve it until it is closed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from hrvol.classes import default_classes
from hrvol.errors import InputError
from hrvol.interactive.serve.app import application
from hrvol.interactive.serve.hosted import Hosted
from hrvol.interactive.serve.server import Server
from hrvol.recipe.recipe import Recipe
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.pictures import open_pictures
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume, expect_grey

SUFFIX = "-strokes.ome.zarr"


class Served:
    """A volume, its strokes and a session, served on the loopback interface until :meth:`close`.

    Parameters
    ----------
    volume
        Path or URL of the volume, as for :func:`hrvol.open_volume`.
    strokes
        Store of the strokes; created with two classes if it does not exist. ``None``: next to the volume.
    token
        What clients have to know.
    port
        Number of the port; 0: a free one.
    recipe
        Recipe of sessions for which a client names none: a preset's name or a file.
    options
        Further keywords of :meth:`hrvol.Session.open`.

    Attributes
    ----------
    strokes
        Path of the strokes.
    url
        URL on this machine.
    port
        Number of the port.

    Raises
    ------
    InputError
        The volume or the strokes cannot be read, or do not fit together.
    BusyError
        Another process draws in the strokes.
    ResourceError
        The strokes cannot be written, or the port is not free.
    """

    def __init__(
        self,
        volume: str | Path | Location,
        strokes: str | Path | None,
        token: str,
        *,
        port: int = 0,
        recipe: str | Path | None = "fast",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        chosen = Recipe.load(recipe)
        levels = _levels(volume)
        path = _beside(levels[0]) if strokes is None else Path(strokes)
        with ExitStack() as opened:
            if os.path.lexists(path):
                store = DrawingStore.open(path, levels[0])
            else:
                store = DrawingStore.create(path, levels[0], default_classes((1, 2)))
            opened.callback(store.close)
            hosted = Hosted(levels, store, chosen, options or {})
            opened.callback(hosted.close)
            self._server = Server(application(hosted, token), port)
            opened.callback(self._server.close)
            self._opened = opened.pop_all()
        self.strokes, self.url, self.port = store.source, self._server.url, self._server.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the server answers."""
        return self._server.alive

    def close(self) -> None:
        """End all connections and the session, and save the strokes."""
        self._opened.close()


def _levels(volume: str | Path | Location) -> tuple[Volume, ...]:
    """Return a volume at all its resolutions."""
    for picture in open_pictures(volume):
        if picture.kind == "image":
            return tuple(expect_grey(level, "viewers show one value per voxel") for level in picture.levels)
    raise InputError(f"{volume}: found no image, expected a volume to draw on")


def _beside(volume: Volume) -> Path:
    """Return where strokes of a volume are by default: next to it, or in the present folder."""
    place = Path(volume.source.partition("::")[0])
    local = place.exists() and os.access(place.parent, os.W_OK)
    name = place.name.partition(".")[0] or "volume"
    return (place.parent if local else Path()) / f"{name}{SUFFIX}"
