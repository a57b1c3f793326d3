"""Open volumes, labels, probabilities and models in napari."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hrvol.napari.notify import report

Reader = Callable[[Any], list[Any]]

NOTHING = [(None,)]
"""What a reader returns that adds no layer."""

_MODEL = ".hrvol"


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a function that opens a path, ``None`` if hrvol does not read it.

    Parameters
    ----------
    path
        A path or URL, or a list of one.
    """
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        path = path[0]
    if path.lower().endswith(_MODEL):
        return read_model
    return read_layers if _is_known(path) else None


def _is_known(path: str) -> bool:
    from hrvol.errors import HrvolError
    from hrvol.volume.importers.registry import find
    from hrvol.volume.storage.location import Location, is_url

    if is_url(path):
        return ".zarr" in path.lower()
    names = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
    if any(os.path.lexists(os.path.join(path, name)) for name in names):
        return True
    try:
        return find(Location.of(path)) is not None or path.lower().endswith((".zip", ".ozx"))
    except HrvolError:
        return os.path.lexists(path)  # it is for hrvol, and the reader reports what is wrong


def read_layers(path: str | Sequence[str]) -> list[Any]:
    """Return the layers of a path: lazy, with voxel size, levels, names and colours."""
    from hrvol.napari.layers import layer_of
    from hrvol.volume.pictures import open_pictures

    try:
        return [layer_of(picture) for picture in open_pictures(_single(path))]
    except Exception as error:
        report(error)
        return NOTHING


def read_model(path: str | Sequence[str]) -> list[Any]:
    """Show what a model is, in the dock if it is open, and add no layer."""
    from hrvol.napari.models import announce

    try:
        announce(_single(path))
    except Exception as error:
        report(error)
    return NOTHING


def _single(path: str | Sequence[str]) -> str:
    return path if isinstance(path, str) else path[0]
