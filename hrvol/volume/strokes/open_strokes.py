"""Open strokes of any origin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.arrays import Shape3
from hrvol.errors import StrokesError
from hrvol.volume.storage.drawn import drawing_folders, has_journal, is_locked
from hrvol.volume.storage.location import Location, located
from hrvol.volume.strokes.crop import check_inside, crop_offset
from hrvol.volume.strokes.drawing import Shape, paint, value_classes
from hrvol.volume.strokes.geojson import read_geojson
from hrvol.volume.strokes.ilastik import read_project
from hrvol.volume.strokes.imagej import read_rois
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.source import (
    CSV,
    GEOJSON,
    PROJECT,
    StrokesSource,
    is_drawing,
    read_drawing,
    suffix_of,
)
from hrvol.volume.strokes.stored_chunks import stored_boxes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.strokes.tables import read_table
from hrvol.volume.volume import Volume, class_info, open_labels

LOG = logging.getLogger("hrvol.volume")


def open_strokes(
    source: Any,
    volume: Volume | None = None,
    *,
    names: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Strokes:
    """Open strokes on a volume.

    Parameters
    ----------
    source
        A path, URL or array as for :func:`hrvol.volume.volume.open_labels`, of the volume's shape or a crop
        of it; a file of drawings (``*.csv``, ``*.geojson``, ``*.roi``, ``RoiSet.zip``, ``*.ilp``); or a
        :class:`~hrvol.volume.strokes.source.StrokesSource`, which also gives the place of a crop. Of a Zarr
        array only stored chunks are read. Strokes are returned unchanged.
    volume
        The volume; ``None``: unknown, the strokes then end where the last of them is.
    names
        Names of the classes 1, 2, ... for drawings whose classes have names; ``None``: those of the source.
    storage_options
        Keywords of the fsspec file system of URLs.

    Raises
    ------
    InputError
        The source cannot be read; :class:`StrokesError`: it does not fit the volume.
    """
    if isinstance(source, Strokes):
        return source
    spec = StrokesSource.of(source)
    if isinstance(spec.source, Strokes):
        return spec.source
    if is_drawing(spec.source):
        return _open_drawing(spec, volume, names, storage_options)
    array = open_labels(located(spec.source, storage_options))
    if isinstance(spec.source, str | Path | Location):
        _warn_of_journals(Location.of(spec.source, storage_options))
    offset = spec.offset or (0, 0, 0)
    if volume is not None:
        offset = crop_offset(array, volume, spec.offset)
    shape = volume.shape if volume is not None else _end(offset, array.shape)
    classes = None if names is not None else class_info(located(spec.source, storage_options))
    parts = stored_boxes(array)
    if parts is not None:
        parts += np.array(offset)[None, :, None]
    return Strokes(array.source, shape, array, offset, parts, classes=classes)


def _warn_of_journals(location: Location) -> None:
    """Name strokes that only the journal of a killed process has; one that draws stores within 2 s."""
    for folder in drawing_folders(location):
        if has_journal(folder) and not is_locked(folder):
            LOG.warning(
                "%s: found strokes of a killed process that are not stored yet, and leaves them out: open and"
                " close them once, in napari or with hrvol's DrawingStore.open",
                location,
            )


def _open_drawing(
    spec: StrokesSource,
    volume: Volume | None,
    names: Sequence[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> Strokes:
    location = Location.of(spec.source, storage_options)
    source, suffix = str(location), suffix_of(location)
    offset = spec.offset or (0, 0, 0)
    shape = None if volume is None else volume.shape
    if suffix in PROJECT:
        painted, classes = read_project(location, spec.part)
        places = painted.places + np.array(offset)
        painted = replace(painted, places=places)
        if volume is not None and len(painted):
            low, high = places.min(axis=0), places.max(axis=0) + 1
            check_inside(source, _triple(high - low), _triple(low), volume)
        return Strokes(source, shape or _extent(painted, source), painted=painted, classes=classes)
    read: Callable[[bytes, str], Iterator[Shape]]
    if suffix in CSV:
        read, what = read_table, "a CSV table"
    elif suffix in GEOJSON:
        read, what = read_geojson, "a GeoJSON document"
    else:
        read, what = read_rois, "ROIs of ImageJ"
    shapes = list(read(read_drawing(location, what), source))
    kind = None if spec.part is None else str(spec.part)
    values, infos = value_classes(shapes, source, kind, names)
    painted = paint(shapes, source, values, kind=kind, offset=offset, shape=shape)
    return Strokes(source, shape or _extent(painted, source), painted=painted, classes=infos)


def whole_strokes(labels: Volume) -> Strokes:
    """Return labels of a volume's shape as strokes."""
    return Strokes(labels.source, labels.shape, labels)


def _extent(painted: Painted, source: str) -> Shape3:
    if not len(painted):
        raise StrokesError(f"{source}: found nothing drawn, expected strokes")
    return _triple(painted.places.max(axis=0) + 1)


def _end(offset: Shape3, shape: Shape3) -> Shape3:
    return offset[0] + shape[0], offset[1] + shape[1], offset[2] + shape[2]


def _triple(values: Any) -> Shape3:
    z, y, x = (int(value) for value in values)
    return z, y, x
