"""Find images, their levels and their labels in Zarr hierarchies."""

from __future__ import annotations

import warnings
from typing import Any

import zarr
from zarr.errors import ZarrUserWarning

from hrvol.errors import HrvolError, InputError, UnreadableError, UsageError, first_line, one_line
from hrvol.text import listed, printable
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.converted import check_converted
from hrvol.volume.ome.metadata import DEFAULT_LABELS
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.open_input import open_input

_NODES = 100
"""Groups that are searched for an array."""

_DEPTH = 4


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            return open_input(source)
    except (MemoryError, UsageError):
        raise
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except Exception as error:  # each file system has its own errors, and Zarr's parser may raise anything
        if isinstance(error, FileNotFoundError) or "No group found" in str(error):
            raise InputError(f"{source}: found neither a Zarr array or group{others}") from None
        if isinstance(error, OSError):
            reason = first_line(OSError(error.strerror)) if error.strerror else first_line(error)
            raise UnreadableError(f"{source}: cannot be opened: {reason}") from None
        raise InputError(f"{source}: found damaged Zarr metadata ({one_line(error)})") from None


def member(group: zarr.Group, path: str, source: str) -> zarr.Array[Any] | zarr.Group | None:
    """Return an array or group inside a group; ``None`` if it does not exist.

    Raises
    ------
    InputError
        Its metadata are damaged, or (:class:`UnreadableError`) cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            return group[path]
    except (MemoryError, UsageError):
        raise
    except (KeyError, FileNotFoundError) as error:
        if isinstance(error, KeyError) and printable(path) not in printable(str(error)):
            raise InputError(f"{source}: {path}: found damaged Zarr metadata ({one_line(error)})") from None
        return None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except OSError as error:
        raise UnreadableError(f"{source}: {path}: cannot be opened: {first_line(error)}") from None
    except Exception as error:
        raise InputError(f"{source}: {path}: found damaged Zarr metadata ({one_line(error)})") from None


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
    names = ome.label_names(attributes_of(group, source), source)
    inside = "" if names else "labels/"
    if not names:
        labels = member(group, "labels", source)
        names = (
            ome.label_names(attributes_of(labels, source), source) if isinstance(labels, zarr.Group) else ()
        )
    if not names:
        if name is not None:
            raise InputError(f"{source}: found no labels, expected labels named {name!r}")
        return group
    if name is None:
        if DEFAULT_LABELS not in names and len(names) > 1:
            raise InputError(f"{source}: found labels {listed(names, 5)}, expected the name of one of them")
        name = DEFAULT_LABELS if DEFAULT_LABELS in names else names[0]
    chosen = member(group, inside + name, source) if name in names else None
    if not isinstance(chosen, zarr.Group):
        raise InputError(f"{source}: found labels {listed(names, 5)}, expected {name!r}")
    return chosen


def attributes_of(node: zarr.Array[Any] | zarr.Group, source: str) -> dict[str, Any]:
    """Return the attributes of an array or group; :class:`InputError` if they are no mapping."""
    attributes: Any = node.metadata.attributes
    if not isinstance(attributes, dict):
        raise InputError(f"{source}: attributes: found {printable(repr(attributes), 60)}, expected a mapping")
    return attributes


def only_array(group: zarr.Group, source: str) -> zarr.Array[Any]:
    """Return the one array of a group.

    Raises
    ------
    InputError
        There are several arrays or none, or metadata are damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            arrays = dict(group.arrays()) or _nested(group, source)
    except (MemoryError, HrvolError):
        raise
    except Exception as error:
        raise InputError(f"{source}: found damaged Zarr metadata ({one_line(error)})") from None
    if len(arrays) != 1:
        content = f"{len(arrays)} arrays ({listed(sorted(arrays), 5)})" if arrays else "no array"
        raise InputError(f"{source}: found a group with {content}, expected one array or an OME-Zarr image")
    return next(iter(arrays.values()))


def _nested(group: zarr.Group, source: str) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of numbers with several axes in the groups of a group, among the first ones."""
    arrays: dict[str, zarr.Array[Any]] = {}
    queue = [("", group, 0)]
    for _ in range(_NODES):
        if not queue:
            break
        path, here, depth = queue.pop(0)
        for name in sorted(here.keys()):
            node = member(here, name, source)
            if isinstance(node, zarr.Array) and node.ndim > 1 and node.dtype.kind in "biuf":
                arrays[f"{path}{name}"] = node
            elif isinstance(node, zarr.Group) and depth < _DEPTH:
                queue.append((f"{path}{name}/", node, depth + 1))
    return arrays


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

    Raises
    ------
    InputError
        The metadata of the image are damaged, or it is an unfinished conversion.
    """
    url = location.url if location is not None else str(array.store_path)
    if location is None and not url.startswith("file://"):
        return None
    parent, _, name = url.rstrip("/").rpartition("/")
    if not parent:
        return None
    try:
        group = open_zarr(Location.of(parent, location.options if location is not None else None))
    except InputError:
        return None
    # Metadata that name this array have to be right; others are not about it.
    attributes = attributes_of(group, parent) if isinstance(group, zarr.Group) else {}
    check_converted(attributes, parent)
    if not ome.names_level(attributes, name):
        return None
    multiscale = ome.read_multiscale(attributes, parent)
    levels = multiscale.levels if multiscale is not None else ()
    level = next((level for level in levels if level.path == name), None)
    return None if multiscale is None or level is None else (multiscale, level)
