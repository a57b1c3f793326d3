"""Finding one's way in Zarr hierarchies: which node of a store holds what was asked for."""

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
        What to open.
    others
        What else the caller would have taken, for the message: ``" nor a TIFF image"``.

    Raises
    ------
    InputError
        There is no Zarr array or group, or (:class:`UnreadableError`) what there is cannot be looked at.
    UsageError
        An option does not fit the file system of the URL, or that is not installed.
    """
    try:
        return source.open()
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # a URL can fail in as many ways as there are file systems
        empty = isinstance(error, FileNotFoundError) or "No group found" in str(error)
        if isinstance(error, OSError) and not empty:
            raise UnreadableError(f"{source}: cannot be opened: {error.strerror or error}") from None
        reason = "" if empty else f" ({' '.join(str(error).split())})"
        raise InputError(f"{source}: found neither a Zarr array or group{others}{reason}") from None


def labels_of(group: zarr.Group, source: str, name: str | None) -> zarr.Group:
    """Return the group of the labels in an image, or in its ``labels`` group, or the group itself.

    Parameters
    ----------
    group
        An image that may have labels, or a group of labels, or labels.
    source
        Name of the group for error messages.
    name
        Of the labels; ``None`` takes ``hrvol``, or the only ones.

    Raises
    ------
    InputError
        The labels are not there, or there are several and none was named.
    """
    names = ome.label_names(group.attrs.asdict())
    inside = "" if names else "labels/"
    if not names:
        inner = group.get("labels")
        names = ome.label_names(inner.attrs.asdict()) if isinstance(inner, zarr.Group) else ()
    if not names:
        if name is not None:
            raise InputError(f"{source}: found no labels, expected labels named {name!r}")
        return group
    if name is None:
        if DEFAULT_LABELS not in names and len(names) > 1:
            raise InputError(f"{source}: found labels {', '.join(names)}; say which")
        name = DEFAULT_LABELS if DEFAULT_LABELS in names else names[0]
    chosen = group.get(inside + name) if name in names else None
    if not isinstance(chosen, zarr.Group):
        raise InputError(f"{source}: found labels {', '.join(names)}, expected {name!r}")
    return chosen


def image_around(
    array: zarr.Array[Any], location: Location | None
) -> tuple[ome.Multiscale, ome.Level] | None:
    """Return the OME-Zarr image, and the level of it, that an array opened by its own path belongs to.

    Parameters
    ----------
    array
        The array.
    location
        Where it was opened; ``None`` if that is not known: then only local folders are looked at.
    """
    where = location.url if location is not None else str(array.store_path)
    if location is None and not where.startswith("file://"):
        return None
    parent, _, name = where.rstrip("/").rpartition("/")
    try:
        attributes = Location.of(parent, location.options if location is not None else None).attributes()
        multiscale = ome.read_multiscale(attributes or {}, parent)
    except (OSError, InputError):
        return None
    levels = multiscale.levels if multiscale is not None else ()
    found = next((level for level in levels if level.path == name), None)
    return None if multiscale is None or found is None else (multiscale, found)
