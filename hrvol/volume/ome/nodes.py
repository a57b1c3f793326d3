"""Find images, their levels and their labels in Zarr hierarchies."""

from __future__ import annotations

from typing import Any

import zarr

from hrvol.errors import InputError, UnreadableError, UsageError
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.metadata import DEFAULT_LABELS
from hrvol.volume.storage.location import Location


def open_zarr(source: Location, others: str = "") -> zarr.Array[Any] | zarr.Group:
    """Open a path or URL for reading.

    Parameters
    ----------
    source
        Location to open.
    others
        Other formats that the caller accepts, for the message: ``" nor a TIFF image"``.

    Raises
    ------
    InputError
        There is no Zarr array or group, or (:class:`UnreadableError`) it cannot be read.
    UsageError
        An option does not fit the file system of the URL, or the file system is not installed.
    """
    try:
        return source.open()
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # each file system has its own errors
        empty = isinstance(error, FileNotFoundError) or "No group found" in str(error)
        if isinstance(error, OSError) and not empty:
            raise UnreadableError(f"{source}: cannot be opened: {error.strerror or error}") from None
        reason = "" if empty else f" ({' '.join(str(error).split())})"
        raise InputError(f"{source}: found neither a Zarr array or group{others}{reason}") from None


def labels_of(group: zarr.Group, source: str, name: str | None) -> zarr.Group:
    """Return the group of labels of an image or of a ``labels`` group; else the group itself.

    Parameters
    ----------
    group
        An image with or without labels, a ``labels`` group, or labels.
    source
        Name of the group for error messages.
    name
        Name of the labels; ``None`` selects ``hrvol``, or the only ones.

    Raises
    ------
    InputError
        There are no labels of this name, or several and no name was given.
    """
    names = ome.label_names(group.attrs.asdict())
    inside = "" if names else "labels/"
    if not names:
        labels = group.get("labels")
        names = ome.label_names(labels.attrs.asdict()) if isinstance(labels, zarr.Group) else ()
    if not names:
        if name is not None:
            raise InputError(f"{source}: found no labels, expected labels named {name!r}")
        return group
    if name is None:
        if DEFAULT_LABELS not in names and len(names) > 1:
            raise InputError(f"{source}: found labels {', '.join(names)}, expected the name of one of them")
        name = DEFAULT_LABELS if DEFAULT_LABELS in names else names[0]
    chosen = group.get(inside + name) if name in names else None
    if not isinstance(chosen, zarr.Group):
        raise InputError(f"{source}: found labels {', '.join(names)}, expected {name!r}")
    return chosen


def image_around(
    array: zarr.Array[Any], location: Location | None
) -> tuple[ome.Multiscale, ome.Level] | None:
    """Return the OME-Zarr image, and its level, to which an array opened by its own path belongs.

    Parameters
    ----------
    array
        The array.
    location
        Location from which it was opened; ``None`` if unknown: then only local folders are searched.
    """
    url = location.url if location is not None else str(array.store_path)
    if location is None and not url.startswith("file://"):
        return None
    parent, _, name = url.rstrip("/").rpartition("/")
    try:
        attributes = Location.of(parent, location.options if location is not None else None).attributes()
        multiscale = ome.read_multiscale(attributes or {}, parent)
    except (OSError, InputError):
        return None
    levels = multiscale.levels if multiscale is not None else ()
    level = next((level for level in levels if level.path == name), None)
    return None if multiscale is None or level is None else (multiscale, level)
