"""Labels inside an OME-Zarr image that others wrote: find their place, list them, change nothing else.

Specification of labels: https://ngff.openmicroscopy.org/0.5/#labels-md, and 0.4 for Zarr 2. The image's own
files stay as they are, except for a consolidated copy of the metadata, which has to list new groups and
arrays to be right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.errors import InputError, UsageError
from hrvol.reading.bounded import JSON_BYTES, parse_mapping
from hrvol.text import is_name, printable
from hrvol.volume.ome import metadata as ome
from hrvol.volume.storage.location import MARK, Location

LABELS = "labels"

_V2 = (".zgroup", ".zattrs", ".zarray")

_CONSOLIDATED = ".zmetadata"

_NAME_LENGTH = 200


@dataclass(frozen=True)
class ImageGroup:
    """A local OME-Zarr image.

    Attributes
    ----------
    path
        Folder of its group.
    zarr_format
        2 (OME-Zarr 0.4) or 3 (0.5).
    root
        Folder that was opened: that of the image, or the one of a Bio-Formats layout around it.
    """

    path: Path
    zarr_format: int
    root: Path

    @property
    def labels(self) -> Location:
        """Group of its labels, which may not exist."""
        return Location.of(self.path / LABELS)

    @property
    def version(self) -> str:
        """Version of OME-Zarr in which labels are written."""
        return ome.VERSION if self.zarr_format == 3 else "0.4"

    def names(self) -> tuple[str, ...]:
        """Return the names of the labels that are listed."""
        return ome.label_names(self.labels.attributes() or {}, str(self.labels))

    def list_labels(self, name: str) -> None:
        """List labels in the metadata of the group of labels, which is created without one."""
        names = self.names()
        if name not in names:
            self._write_names((*names, name))
        self._consolidate(name)

    def unlist_labels(self, name: str) -> None:
        """Remove labels from the list; their data stay."""
        names = self.names()
        if name in names:
            self._write_names(tuple(other for other in names if other != name))
        self._consolidate(name, gone=True)

    def _write_names(self, names: tuple[str, ...]) -> None:
        location = self.labels
        if self.zarr_format == 3:
            empty: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
            document = _document(location, MARK) or empty
            attributes = {**document.get("attributes", {})}
            inner = attributes.get("ome", {})
            attributes["ome"] = {"version": self.version, **inner, LABELS: list(names)}
            location.write_json(MARK, {**document, "attributes": attributes})
            return
        if _document(location, ".zgroup") is None:
            location.write_json(".zgroup", {"zarr_format": 2})
        location.write_json(".zattrs", {**(_document(location, ".zattrs") or {}), LABELS: list(names)})

    def check(self) -> None:
        """Raise :class:`InputError` if metadata that will be changed cannot be read."""
        self.names()
        for location, key in self._consolidated():
            _document(location, key)

    def _consolidated(self) -> list[tuple[Location, str]]:
        """Return the groups around labels that may have consolidated metadata, and the names of these."""
        folders = dict.fromkeys((self.path / LABELS, self.path, self.root))
        key = MARK if self.zarr_format == 3 else _CONSOLIDATED
        return [(Location.of(folder), key) for folder in folders]

    def _consolidate(self, name: str, *, gone: bool = False) -> None:
        """Bring consolidated metadata up to date, where groups around the labels have some."""
        for location, key in self._consolidated():
            folder, document = Path(location.url), _document(location, key)
            copy = (document or {}).get("consolidated_metadata" if self.zarr_format == 3 else "metadata")
            if self.zarr_format == 3 and isinstance(copy, Mapping):
                copy = copy.get("metadata")
            if document is None or not isinstance(copy, Mapping):
                continue
            prefix = (self.path / LABELS / name).relative_to(folder).as_posix()
            kept = {path: value for path, value in copy.items() if not f"{path}/".startswith(f"{prefix}/")}
            if not gone:
                kept |= self._documents(folder, self.path / LABELS / name)
            if folder != self.path / LABELS:
                kept |= self._documents(folder, self.path / LABELS, deep=False)
            if kept == copy:
                continue
            if self.zarr_format == 3:
                inner = {**document["consolidated_metadata"], "metadata": kept}
                location.write_json(key, {**document, "consolidated_metadata": inner})
            else:
                location.write_json(key, {**document, "metadata": kept})

    def _documents(self, folder: Path, below: Path, *, deep: bool = True) -> dict[str, Any]:
        """Return the metadata of a group, and of all that is in it, by their paths inside a folder."""
        found: dict[str, Any] = {}
        for own in (MARK,) if self.zarr_format == 3 else _V2:
            for file in sorted(below.rglob(own) if deep else below.glob(own)):
                document = json.loads(file.read_bytes())
                path = (file.parent if self.zarr_format == 3 else file).relative_to(folder).as_posix()
                if isinstance(document, dict):
                    document.pop("consolidated_metadata", None)
                found[path] = document
        return found


def find_image(source: Any) -> ImageGroup:
    """Return the local OME-Zarr image into which labels can be written.

    Parameters
    ----------
    source
        Path of an OME-Zarr image of version 0.4 or 0.5, or of a Bio-Formats layout: then its first image.

    Raises
    ------
    UsageError
        The source is no path.
    InputError
        There is no such image, or it is an output of hrvol.
    """
    if not isinstance(source, str | Path | Location) or (path := Location.of(source).path) is None:
        what = str(source) if isinstance(source, str | Path | Location) else type(source).__name__
        raise UsageError(f"{what}: found no local path, expected a local OME-Zarr image to write labels into")
    location = Location.of(path)
    attributes = location.attributes() if path.is_dir() else None
    inner = ome.ome_attributes(attributes or {})
    root = path
    if "bioformats2raw.layout" in inner and "multiscales" not in inner:
        path = path / "0"
        location = Location.of(path)
        attributes = location.attributes() if path.is_dir() else None
        inner = ome.ome_attributes(attributes or {})
    if attributes is None or ome.read_multiscale(attributes, str(location)) is None:
        raise InputError(
            f"{location}: found no OME-Zarr image, expected a local one to write labels into"
            " (or name an OUT.ome.zarr for them)"
        )
    if isinstance(attributes.get("hrvol"), Mapping) and "recipe" in attributes["hrvol"]:
        raise InputError(f"{location}: found an output of hrvol, expected an image to write labels into")
    if "image-label" in inner:
        raise InputError(f"{location}: found labels, expected an image to write labels into")
    zarr_format = 3 if (path / MARK).is_file() else 2
    version = _version(inner, zarr_format)
    if version != ("0.5" if zarr_format == 3 else "0.4"):
        raise InputError(
            f"{location}: found OME-Zarr {printable(version, 20)} in Zarr {zarr_format}, expected 0.4 in Zarr"
            " 2 or 0.5 in Zarr 3 to write labels into (or name an OUT.ome.zarr for them)"
        )
    image = ImageGroup(path, zarr_format, root)
    folder = image.path / LABELS
    described = any((folder / key).exists() for key in (MARK, ".zgroup", ".zarray"))
    if (folder.exists() and not folder.is_dir()) or (described and image.labels.attributes() is None):
        raise InputError(
            f"{image.labels}: found no Zarr group, expected one, or nothing, where labels are kept"
        )
    image.check()  # now, and not when a run of days is done
    return image


def check_name(name: str) -> str:
    """Return a name for labels; :class:`UsageError` if it cannot be used."""
    if not (0 < len(name) <= _NAME_LENGTH and is_name(name)) or "/" in name or name.startswith("."):
        shown = printable(name, 60)
        raise UsageError(f"name: found {shown!r}, expected a name for labels without '/' and a leading '.'")
    if name == MARK:
        raise UsageError(f"name: found {name!r}, expected a name that Zarr does not use")
    return name


def _version(inner: Mapping[str, Any], zarr_format: int) -> str:
    """Return the version that metadata state; 0.4 where only its axes tell."""
    images = inner.get("multiscales")
    first = images[0] if isinstance(images, list) and images and isinstance(images[0], Mapping) else {}
    stated = inner.get("version") if zarr_format == 3 else first.get("version")
    if stated is not None:
        return str(stated)
    axes = first.get("axes")
    current = isinstance(axes, list) and all(isinstance(axis, Mapping) for axis in axes)
    return "0.4" if current and "datasets" in first else "0.3 or older"


def _document(location: Location, key: str) -> dict[str, Any] | None:
    """Return a document; ``None`` without one, :class:`InputError` if it is damaged: it is to be kept."""
    data = location.read_small(key, JSON_BYTES)
    return None if data is None else parse_mapping(data, f"{location}/{key}")
