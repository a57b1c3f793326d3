"""Create and open the OME-Zarr labels in which strokes are drawn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from zarr.core.metadata import ArrayV3Metadata

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError, ResourceError, StrokesError, UsageError, first_line
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid
from hrvol.volume.drawing_store.class_table import ClassTable, next_value
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.storage.drawn import FOLDER
from hrvol.volume.storage.location import MARK, PARTIAL, Location, sync_folder
from hrvol.volume.volume import Volume, open_labels

CHUNK = (1, 512, 512)
"""Voxels (z, y, x) of a chunk."""

MOST_CHUNK_VOXELS = 2**24
"""Most voxels of a chunk of strokes that others wrote: a stroke writes whole chunks."""

_ARRAY = "0"


@dataclass(frozen=True, eq=False)
class Layout:
    """Where strokes are, and how they are stored.

    Attributes
    ----------
    location
        Group of the labels: a local folder.
    labels
        The labels, opened for reading.
    metadata
        Of the array.
    table
        Classes that the metadata of the group name.
    drawn
        Whether the metadata say that strokes were drawn there; else others wrote all that is there.
    """

    location: Location
    labels: Volume
    metadata: ArrayV3Metadata
    table: ClassTable
    drawn: bool = True

    @property
    def source(self) -> str:
        """Name for messages."""
        return str(self.location)

    @property
    def folder(self) -> Path:
        """Folder of the array."""
        assert self.location.path is not None
        return Path(self.location.path, self.labels.array.path)

    @property
    def own(self) -> Path:
        """Folder of the journal: inside the array, where Zarr looks for chunks only."""
        return self.folder / FOLDER

    @property
    def shape(self) -> Shape3:
        """Voxels of the volume (z, y, x)."""
        return self.labels.shape

    @property
    def chunk(self) -> Shape3:
        """Voxels of a chunk (z, y, x)."""
        return self.labels.chunks

    @property
    def grid(self) -> ChunkGrid:
        """Shape, type and chunks."""
        return ChunkGrid(self.source, self.shape, self.chunk, self.labels.dtype, self.labels.ndim)

    def write_classes(self, table: ClassTable) -> None:
        """Write the classes to the metadata of the group, and that strokes were drawn there."""
        document = self.location.read_json(MARK)
        if document is None:
            raise InputError(f"{self.source}: found damaged metadata of labels")
        attributes = document.get("attributes", {})
        inner = {**attributes.get("ome", {}), "image-label": _image_label(table.classes)}
        others = {k: v for k, v in attributes.get("hrvol", {}).items() if k != "complete"}  # of outputs
        own = {**others, "drawing": {"format": 1, "next": table.next_value}}
        self.location.write_json(MARK, {**document, "attributes": {**attributes, "ome": inner, "hrvol": own}})


def create_layout(
    location: str | Path | Location,
    like: Volume,
    classes: Sequence[ClassInfo] = (),
    dtype: Any = np.uint8,
    chunks: Shape3 = CHUNK,
) -> None:
    """Create labels without any chunk, all at once.

    Raises
    ------
    OutputExistsError
        Something is there.
    UsageError
        The location is no local path, or inside of the volume.
    StrokesError
        The type does not hold the classes.
    """
    place, path = _local(location)
    keep_inputs(place, like, role="volume")
    check_overwrite(place, False)
    check_scale(like.source, *like.voxel_size, *like.translation)
    kind = np.dtype(dtype)
    if kind not in (np.uint8, np.uint16):
        raise UsageError(f"{place}: found the type {kind} for strokes, expected uint8 or uint16")
    table = ClassTable.of(str(place), int(np.iinfo(kind).max), classes)
    n = like.ndim
    level = ome.Level(_ARRAY, like.voxel_size[-n:], like.translation[-n:])
    name = path.name.removesuffix(".zarr").removesuffix(".ome")
    entry = ome.write_multiscale(name, "zyx"[-n:], like.unit, [level])
    attributes = {
        "ome": {"version": ome.VERSION, "multiscales": [entry], "image-label": _image_label(classes)},
        "hrvol": {"drawing": {"format": 1, "next": table.next_value}},
    }
    partial = path.parent / f".{path.name}.{uuid4().hex[:8]}{PARTIAL}"
    try:
        group = zarr.create_group(
            Location.of(partial).store(read_only=False), zarr_format=3, attributes=attributes
        )
        shape = like.shape[-n:]
        group.create_array(
            _ARRAY,
            shape=shape,
            dtype=kind,
            chunks=tuple(min(side, length) for side, length in zip(chunks[-n:], shape, strict=True)),
            fill_value=0,
            dimension_names=list("zyx"[-n:]),
        )
        os.rename(partial, path)  # also to an empty folder
        sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(f"{place}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_layout(location: str | Path | Location, like: Volume | None = None) -> Layout:
    """Open labels to draw in: those of :func:`create_layout`, or sparse ones that ``hrvol strokes`` wrote.

    Raises
    ------
    InputError
        There are none, or their layout does not allow drawing.
    StrokesError
        They have another shape than the volume.
    UsageError
        The location is no local path.
    """
    place, path = _local(location)
    attributes = place.attributes() if path.is_dir() else None
    if attributes is None or "image-label" not in ome.ome_attributes(attributes):
        raise InputError(f"{place}: found no strokes, expected OME-Zarr labels that hrvol wrote to draw in")
    labels = open_labels(place)
    array, multiscale = labels.array, ome.read_multiscale(attributes, str(place))
    levels = 0 if multiscale is None else len(multiscale.levels)
    try:
        metadata = (
            Location.of(path / array.path).open_array().metadata if isinstance(array, zarr.Array) else None
        )
    except Exception as error:  # Zarr raises many types for damaged metadata
        raise InputError(f"{place}: found damaged metadata of labels: {first_line(error)}") from None
    if not isinstance(metadata, ArrayV3Metadata) or levels != 1:
        raise InputError(f"{place}: found {levels} levels of labels, expected one, in Zarr 3, to draw in")
    if array.shards is not None or array.fill_value or array.ndim != labels.ndim:
        raise InputError(
            f"{place}: found shards, a fill value or more axes, expected plain chunks to draw in"
        )
    if labels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{place}: found labels of type {labels.dtype}, expected uint8 or uint16 to draw in")
    if int(np.prod(labels.chunks)) > MOST_CHUNK_VOXELS:
        raise InputError(
            f"{place}: found chunks of {labels.chunks} voxels, expected at most {MOST_CHUNK_VOXELS:,}"
        )
    if like is not None and like.shape != labels.shape:
        raise StrokesError(
            f"{place}: found strokes of shape {labels.shape}, expected {like.shape} as {like.source}"
        )
    highest = int(np.iinfo(labels.dtype).max)
    classes = ome.read_classes(attributes, str(place)) or ()
    table = ClassTable.of(str(place), highest, classes, next_value(attributes))
    provenance = attributes.get("hrvol")
    drawn = isinstance(provenance, Mapping) and "drawing" in provenance
    return Layout(place, labels, metadata, table, drawn)


def _image_label(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Return the ``image-label`` of labels without an image; lists in it may not be empty."""
    label = ome.write_image_label(classes)
    return {key: label[key] for key in ("colors", "properties") if classes}


def _local(location: str | Path | Location) -> tuple[Location, Path]:
    place = Location.of(location)
    if place.path is None or place.inside:
        raise UsageError(f"{place}: found no local folder, expected one to draw in")
    return place, place.path
