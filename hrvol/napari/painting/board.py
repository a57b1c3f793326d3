"""Open what is drawn on: the volume and the store of its strokes. No Qt here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import StrokesError
from hrvol.napari.folders import plugin_folder
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import Volume, open_volume

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
    """

    path: str
    volume: Volume
    store: DrawingStore

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
        volume = open_volume(path)
        if create:
            return cls(path, volume, DrawingStore.create(strokes, volume, default_classes((1, 2))))
        return cls(path, volume, DrawingStore.open(strokes, volume))

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


def begin_session(board: Board, recipe: str) -> Any:
    """Return a session on the strokes; it imports torch where the recipe needs it."""
    from hrvol.interactive.session import Session

    return Session.open(board.volume, board.store, recipe=recipe)
