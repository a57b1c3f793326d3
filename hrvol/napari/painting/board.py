"""Open what is drawn on: a volume and its strokes, on this machine or of a server. No Qt here.

Drawing on a server needs neither torch nor the lock of files, so these are imported where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import StrokesError, UsageError
from hrvol.interactive.protocols import PaintedStrokes, PaintSession, ShownVolume
from hrvol.napari.folders import plugin_folder

SUFFIX = "-strokes.ome.zarr"


@dataclass(frozen=True, eq=False)
class Board:
    """A volume and its strokes.

    Attributes
    ----------
    path
        Path or URL of the volume.
    volume
        The volume.
    store
        The strokes.
    begin
        Begins a session with a recipe: a preset's name, or the path of a file.
    levels
        Of a server: the volume at all its resolutions, to be shown; else empty, as the viewer shows it.
    """

    path: str
    volume: ShownVolume
    store: PaintedStrokes
    begin: Callable[[str], PaintSession]
    levels: tuple[ShownVolume, ...] = ()

    @property
    def remote(self) -> bool:
        """Whether they are on a server."""
        return bool(self.levels)

    @property
    def local_volume(self) -> Any:
        """The volume, unless it is on a server."""
        return None if self.remote else self.volume

    @property
    def folder(self) -> Path:
        """Where results go by default."""
        return plugin_folder("models") if self.remote else Path(self.store.source).parent

    @property
    def name(self) -> str:
        """Name of the strokes."""
        return Path(self.store.source).name.removesuffix(".ome.zarr")

    @classmethod
    def open(cls, path: str, strokes: str, *, create: bool) -> Board:
        """Open the strokes of a volume, or create them with two classes.

        Raises
        ------
        InputError
            The volume or the strokes cannot be read, or do not fit together.
        OutputExistsError
            They are to be created, and something is there.
        """
        from hrvol.volume.drawing_store.store import DrawingStore
        from hrvol.volume.volume import open_volume

        volume = open_volume(path)
        if create:
            store = DrawingStore.create(strokes, volume, default_classes((1, 2)))
        else:
            store = DrawingStore.open(strokes, volume)

        def begin(recipe: str) -> PaintSession:
            from hrvol.interactive.session import Session  # imports torch

            return Session.open(volume, store, recipe=recipe)

        return cls(path, volume, store, begin)

    @classmethod
    def connect(cls, url: str, token: str = "", token_file: str = "") -> Board:
        """Connect to ``hrvol serve``, see :func:`hrvol.connect`; the file counts if both are given."""
        from hrvol.interactive.remote.connection import connect

        given = {"token_file": token_file} if token_file else {"token": token}
        connection = connect(url, **given)
        return cls(
            connection.url, connection.volume, connection.drawing, connection.session, connection.levels
        )

    def check_local(self, what: str) -> None:
        """Raise a :class:`UsageError` unless the strokes are on this machine."""
        if self.remote:
            raise UsageError(f"{self.path}: found strokes on a server, expected {what} on its machine")

    def draw(self, plane: int, labels: NDArray[Any], classes: Sequence[ClassInfo]) -> int:
        """Draw classes of a plane's labels ``(y, x)``, as one step of undo; return the number of pixels.

        Classes are those of the same name; one that does not exist is added.
        """
        known = {info.name: info.value for info in self.store.classes}
        count = 0
        with self.store.stroke():
            for info in classes:
                y, x = np.nonzero(labels == info.value)
                if info.name not in known:
                    known[info.name] = self.store.add_class(info.name, info.colour)
                self.store.paint((np.full(len(y), plane), y, x), known[info.name])
                count += len(y)
        return count

    def check_drawn(self) -> None:
        """Raise a :class:`StrokesError` unless two classes are drawn."""
        drawn = len(self.store.counts().planes)
        if drawn < 2:
            raise StrokesError(
                f"{self.store.source}: found {drawn} classes drawn, expected strokes of at least two"
            )


def suggested_path(folder: Path, name: str) -> Path:
    """Return where strokes of a volume are by default: next to it, or in the plugin's folder.

    Parameters
    ----------
    folder
        The volume's.
    name
        The volume's, without suffixes.
    """
    place = folder if os.access(folder, os.W_OK) else plugin_folder("strokes")
    return place / f"{name}{SUFFIX}"


def free_path(path: Path) -> Path:
    """Return a path, or with a number in its name if it is occupied."""
    stem = path.name.removesuffix(SUFFIX)
    candidates = (path.with_name(f"{stem}-{number}{SUFFIX}") for number in range(2, 10_000))
    return path if not os.path.lexists(path) else next(p for p in candidates if not os.path.lexists(p))
