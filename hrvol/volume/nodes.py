"""Finding one's way in Zarr hierarchies: which node of a store holds what was asked for."""

from __future__ import annotations

from typing import Any

import zarr

from hrvol.errors import InputError
from hrvol.volume import ome
from hrvol.volume.ome import DEFAULT_LABELS
from hrvol.volume.tiff import SUFFIXES


def open_zarr(source: str) -> zarr.Array[Any] | zarr.Group:
    """Open a path or URL for reading.

    Raises
    ------
    InputError
        There is no Zarr array or group.
    """
    try:
        return zarr.open(source, mode="r")
    except MemoryError:
        raise
    except Exception as error:  # a URL can fail in as many ways as there are file systems
        reason = "" if "No group found" in str(error) else f" ({' '.join(str(error).split())})"
        raise InputError(
            f"{source}: found neither a Zarr array or group nor a TIFF image ({', '.join(SUFFIXES)}){reason}"
        ) from None


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


def image_around(array: zarr.Array[Any]) -> tuple[ome.Multiscale, ome.Level] | None:
    """Return the OME-Zarr image, and the level of it, that an array opened by its own path belongs to."""
    where = str(array.store_path)
    parent, _, name = where.rstrip("/").rpartition("/")
    if not where.startswith("file://"):  # elsewhere each look costs a request
        return None
    try:
        group = zarr.open_group(parent, mode="r")
        multiscale = ome.read_multiscale(group.attrs.asdict(), parent)
    except (FileNotFoundError, ValueError, InputError):
        return None
    levels = multiscale.levels if multiscale is not None else ()
    found = next((level for level in levels if level.path == name), None)
    return None if multiscale is None or found is None else (multiscale, found)


def is_url(source: str) -> bool:
    """Whether a source is a URL and not a path."""
    return "://" in source
