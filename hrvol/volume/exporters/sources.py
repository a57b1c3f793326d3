"""Open what is exported: labels, grey values, or the probabilities and uncertainty beside labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.errors import InputError, UnreadableError, UsageError, first_line
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.label_documents import PROBABILITIES, UNCERTAINTY
from hrvol.volume.ome.nodes import attributes_of, member, open_zarr
from hrvol.volume.storage.bounded_array import bounded_array
from hrvol.volume.storage.location import Location
from hrvol.volume.units import common_unit
from hrvol.volume.volume import Volume, class_info, expect_grey, open_labels, open_volume

LABELS, IMAGE = "labels", "image"

KINDS = (LABELS, IMAGE, PROBABILITIES, UNCERTAINTY)
"""What can be exported."""


@dataclass(frozen=True)
class Exported:
    """A volume to export.

    Attributes
    ----------
    volume
        Its values.
    classes
        Classes of labels, or the one class of a probability; ``None`` if the source does not tell.
    group
        The OME-Zarr group of the volume; ``None`` for other sources.
    zarr_format
        2 or 3, of that group.
    """

    volume: Volume
    classes: tuple[ClassInfo, ...] | None = None
    group: Location | None = None
    zarr_format: int = 3


def open_exported(
    source: Any, kind: str = LABELS, *, name: str | None = None, level: int = 0
) -> tuple[Exported, ...]:
    """Open what is to be exported: one volume, or one per class for probabilities.

    Parameters
    ----------
    source
        As for :func:`hrvol.volume.volume.open_labels`.
    kind
        One of :data:`KINDS`.
    name
        Name of the labels.
    level
        Resolution, 0 the finest.

    Raises
    ------
    InputError
        The source has no such labels, level or array.
    UsageError
        The kind needs an output of hrvol.
    """
    if kind not in KINDS:
        raise UsageError(f"what: found {kind!r}, expected {', '.join(KINDS)}")
    if kind == IMAGE:
        volume = expect_grey(open_volume(source, level=level), "export writes one value per voxel")
        group, version = _group_of(volume)
        return (Exported(volume, None, group, version),)
    labels = open_labels(source, name=name)
    group, version = _group_of(labels)
    if level and kind == LABELS:
        reading = None if labels.origin is None else labels.origin[0].reading
        labels_at = open_volume(source if group is None else replace(group, reading=reading), level=level)
        labels = replace(labels_at, name=labels.name)
    if kind == LABELS:
        classes = class_info(source if group is None else group)
        return (Exported(labels, classes, group, version),)
    return _beside(labels, group, kind, level)


def _group_of(volume: Volume) -> tuple[Location | None, int]:
    """Return the OME-Zarr group in which a volume is a level, and the version of its Zarr format."""
    if volume.origin is None or not isinstance(volume.array, zarr.Array):
        return None, 3
    location, path = volume.origin[0], str(volume.array.path)
    if not path:  # the array itself was opened
        around, _, path = location.url.rstrip("/").rpartition("/")
        location = Location.of(around, location.options)
    parent, _, level = path.rpartition("/")
    group = Location.of(f"{location.url.rstrip('/')}/{parent}".rstrip("/"), location.options)
    attributes = (group if parent else location).attributes() or {}
    if not ome.names_level(attributes, level):
        return None, 3
    return (group if parent else location), int(volume.array.metadata.zarr_format)


def _beside(labels: Volume, group: Location | None, kind: str, level: int) -> tuple[Exported, ...]:
    """Open probabilities or uncertainty of labels: inside their group, or beside the group ``labels``."""
    if labels.voxel_size_from == "the user":
        raise UsageError(f"{labels.source}: found a voxel size for {kind}, expected none: theirs is recorded")
    places = [] if group is None else [group.url, group.url.rpartition("/labels/")[0]]
    for place in filter(None, places):
        location = Location.of(f"{place}/{kind}", group.options if group is not None else None)
        if location.attributes() is None:
            continue
        if kind == UNCERTAINTY:
            volume = open_volume(location, level=level)
            return (Exported(volume, None, location),)
        return _channels(location, class_info(group) or (), level)
    raise InputError(
        f"{labels.source}: found no {kind} beside the labels, expected some (hrvol segment --{kind})"
    )


def _channels(location: Location, classes: tuple[ClassInfo, ...], level: int) -> tuple[Exported, ...]:
    """Return the channels of an image, one per class."""
    group, source = open_zarr(location), str(location)
    assert isinstance(group, zarr.Group)
    multiscale = ome.read_multiscale(attributes_of(group, source), source)
    levels = () if multiscale is None else multiscale.levels
    if multiscale is None or not level < len(levels):
        raise InputError(f"{source}: found {len(levels)} levels, expected one numbered {level}")
    chosen = levels[level]
    array = member(group, chosen.path, source)
    axes = multiscale.axes
    if not isinstance(array, zarr.Array) or axes[:1] != ("c",) or array.shape[0] != len(classes):
        raise InputError(f"{source}: found no channel per class, expected {len(classes)} channels")
    units = dict(zip(axes, multiscale.units, strict=True))
    sizes, start = (dict(zip(axes, values, strict=True)) for values in (chosen.scale, chosen.translation))
    size, unit = common_unit(
        (sizes.get("z", 1.0), sizes["y"], sizes["x"]), [units.get(axis) for axis in "zyx"]
    )
    position = (start.get("z", 0.0), start["y"], start["x"])
    bounded = bounded_array(array, source)
    return tuple(
        Exported(
            Volume(
                source, _Channel(bounded, i, source), axes[1:], size, unit, len(axes) - 1, info.name, position
            ),
            (info,),
        )
        for i, info in enumerate(classes)
    )


@dataclass(frozen=True)
class _Channel:
    """One channel of an array, as an array."""

    array: Any
    channel: int
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[1:])

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(self.array.chunks[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def __getitem__(self, selection: tuple[Any, ...]) -> NDArray[Any]:
        try:
            return np.asarray(self.array[(self.channel, *selection)])
        except MemoryError:
            raise
        except Exception as error:  # codecs and file systems raise errors of any type
            raise UnreadableError(f"{self.source}: cannot be read: {first_line(error)}") from error
