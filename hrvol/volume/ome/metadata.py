"""Read (versions 0.1 to 0.5) and write (0.5) OME-Zarr metadata as plain dictionaries.

Specification: https://ngff.openmicroscopy.org/0.5/ (Moore et al. 2021, doi 10.1038/s41592-021-01326-w).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.classes import ClassInfo, default_colour
from hrvol.errors import InputError
from hrvol.reading.schema import validated
from hrvol.text import printable
from hrvol.volume.ome.schema import LEVELS, Axis, LabelAttributes, LabelList, Multiscales, Transformation

VERSION = "0.5"

DEFAULT_LABELS = "hrvol"
"""Default name of labels to write and to read."""

# Units of length in the specification: napari and neuroglancer open nothing with another unit.
_PREFIXES = "yocto zepto atto femto pico nano micro milli centi deci hecto kilo mega giga tera peta exa zetta"
_LENGTHS = {"angstrom", "foot", "inch", "mile", "parsec", "yard", "meter", "yottameter"} | {
    f"{prefix}meter" for prefix in _PREFIXES.split()
}


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Attributes
    ----------
    path
        Path of the array, relative to its group.
    scale, translation
        Voxel size, and position of the first voxel's centre, per stored axis.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """An image at several resolutions, finest first.

    ``units`` has one unit or ``None`` per axis, ``channel_names`` the names of channels, if they have any.
    """

    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    channel_names: tuple[str, ...] = ()


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME attributes of a group: under ``ome`` since version 0.5, at the top level before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def read_multiscale(attributes: Mapping[str, Any], source: str) -> Multiscale | None:
    """Read the first multiscale of a group.

    Parameters
    ----------
    attributes
        Attributes of the group.
    source
        Name of the group for error messages.

    Returns
    -------
    Multiscale or None
        ``None`` if the group is not a multiscale image.

    Raises
    ------
    InputError
        The metadata are damaged.
    """
    inner = _checked_attributes(attributes, source)
    if "multiscales" not in inner:
        return None
    images = inner["multiscales"]
    # Only the first image is read.
    first = images[:1] if isinstance(images, list) else images
    values = {"version": inner.get("version"), "multiscales": first}
    for image in _listed(first):
        datasets = image.get("datasets") if isinstance(image, Mapping) else None
        if isinstance(datasets, list) and len(datasets) > LEVELS:  # before all of them are copied
            raise InputError(
                f"{source}: OME-Zarr metadata: multiscales[0].datasets: found {len(datasets):,} levels,"
                f" expected at most {LEVELS}"
            )
    image = validated(Multiscales, values, f"{source}: OME-Zarr metadata").multiscales[0]
    # Versions 0.1 and 0.2 have no axes (always t, c, z, y, x); 0.3 has plain names.
    axes = [Axis(name=axis) if isinstance(axis, str) else axis for axis in image.axes or "tczyx"]
    names = tuple(axis.name.lower() for axis in axes)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{source}: OME-Zarr metadata: axes: found {twice} twice, expected each axis once")
    outer = image.coordinateTransformations or []
    levels = tuple(
        _level(str(dataset.path), names, [*(dataset.coordinateTransformations or []), *outer], source)
        for dataset in image.datasets
    )
    return Multiscale(names, tuple(axis.unit for axis in axes), levels, _channel_names(inner))


def _channel_names(inner: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of channels in the ``omero`` rendering; none where it is damaged or has fewer."""
    rendering = inner.get("omero")
    channels = _listed(rendering.get("channels")) if isinstance(rendering, Mapping) else []
    names = [entry.get("label") if isinstance(entry, Mapping) else None for entry in channels]
    return tuple(str(name) for name in names) if all(isinstance(name, str) for name in names) else ()


def _level(path: str, names: Sequence[str], transformations: Sequence[Transformation], source: str) -> Level:
    """Return a level, its transformations applied one after the other."""
    scale, translation = [1.0] * len(names), [0.0] * len(names)
    for transformation in transformations:
        values = transformation.scale if transformation.type == "scale" else transformation.translation
        if transformation.type == "identity" or values is None:
            continue
        if len(values) != len(names):
            raise InputError(
                f"{source}: OME-Zarr metadata: {transformation.type} of level {path!r}: found {len(values)}"
                f" numbers, expected {len(names)}, one per axis"
            )
        if transformation.type == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            translation = [a * b for a, b in zip(translation, values, strict=True)]
        else:
            translation = [a + b for a, b in zip(translation, values, strict=True)]
    for name, size, start in zip(names, scale, translation, strict=True):
        if not math.isfinite(size) or not math.isfinite(start) or (name in "zyx" and size <= 0):
            raise InputError(
                f"{source}: OME-Zarr metadata: level {path!r}: found scale {size:g} and translation {start:g}"
                f" along {name}, expected finite numbers and a scale above 0"
            )
    return Level(path, tuple(scale), tuple(translation))


def names_level(attributes: Mapping[str, Any], name: str) -> bool:
    """Return whether the attributes of a group, which may be damaged, name a level of this path."""
    return any(
        isinstance(dataset, dict) and str(dataset.get("path")) == name
        for image in _listed(ome_attributes(attributes).get("multiscales"))
        if isinstance(image, dict)
        for dataset in _listed(image.get("datasets"))
    )


def label_names(attributes: Mapping[str, Any], source: str = "labels") -> tuple[str, ...]:
    """Return the names of the labels in a ``labels`` group; :class:`InputError` if they are damaged."""
    inner = _checked_attributes(attributes, source)
    if inner.get("labels") is None:
        return ()
    values = {"labels": inner["labels"]}
    return tuple(validated(LabelList, values, f"{source}: OME-Zarr metadata").labels)


def read_classes(attributes: Mapping[str, Any], source: str) -> tuple[ClassInfo, ...] | None:
    """Read class names and colours from the ``image-label`` of a group.

    Returns
    -------
    tuple of ClassInfo, or None
        In increasing order of value, without 0; ``None`` if the group has no ``image-label``. Missing names
        and colours are replaced by defaults.

    Raises
    ------
    InputError
        The metadata are damaged.
    """
    inner = _checked_attributes(attributes, source)
    if not isinstance(inner.get("image-label"), Mapping):
        return None
    values = {"image-label": inner["image-label"]}
    label = validated(LabelAttributes, values, f"{source}: OME-Zarr metadata").image_label
    colours = {entry.value: entry.rgba for entry in label.colors or [] if entry.rgba is not None}
    names = {entry.value: entry.class_name or entry.name or "" for entry in label.properties or []}
    classes = []
    for value in sorted({*colours, *names} - {0}):
        red, green, blue = (colours.get(value) or default_colour(value))[:3]
        name = printable(names.get(value) or f"class {value}", 200)
        classes.append(ClassInfo(value, name, (red, green, blue)))
    return tuple(classes)


def _checked_attributes(attributes: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the OME attributes of a group; :class:`InputError` if its ``ome`` is no mapping."""
    inner = attributes.get("ome")
    if inner is not None and not isinstance(inner, Mapping):
        raise InputError(
            f"{source}: OME-Zarr metadata: ome: found {printable(repr(inner), 60)}, expected a mapping"
        )
    return ome_attributes(attributes)


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []


def write_axes(axes: str, unit: str | None) -> list[dict[str, str]]:
    """Return the ``axes`` for names such as ``"czyx"``; a unit that is not a length is omitted."""
    entries = []
    for name in axes:
        entry = {"name": name, "type": "channel" if name == "c" else "space"}
        if unit in _LENGTHS and name != "c":
            entry["unit"] = unit
        entries.append(entry)
    return entries


def write_multiscale(
    name: str, axes: str, unit: str | None, levels: Sequence[Level], kind: str | None = None
) -> dict[str, Any]:
    """Return an entry of ``multiscales``; ``kind`` is the reduction that made coarser levels."""
    datasets = []
    for level in levels:
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
        if any(level.translation):
            transforms.append({"type": "translation", "translation": list(level.translation)})
        datasets.append({"path": level.path, "coordinateTransformations": transforms})
    entry: dict[str, Any] = {"name": name, "axes": write_axes(axes, unit), "datasets": datasets}
    if kind is not None:
        entry["type"] = kind
    return entry


def write_image_label(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Return the ``image-label``: a colour and a name for each class; viewers show 0 as transparent."""
    return {
        "colors": [{"label-value": c.value, "rgba": [*c.colour, 255]} for c in classes],
        "properties": [{"label-value": c.value, "class": c.name} for c in classes],
        "source": {"image": "../../"},
    }


def write_omero(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Return the ``omero`` rendering of one channel per class, from 0 to 255 in the colour of the class."""
    return {
        "channels": [
            {
                "label": c.name,
                "color": "{:02X}{:02X}{:02X}".format(*c.colour),
                "active": True,
                "window": {"min": 0, "max": 255, "start": 0, "end": 255},
            }
            for c in classes
        ]
    }


def write_grey(name: str, highest: int) -> dict[str, Any]:
    """Return the ``omero`` rendering of an image without channels: 0 is black, ``highest`` white."""
    window = {"min": 0, "max": highest, "start": 0, "end": highest}
    return {"channels": [{"label": name, "color": "FFFFFF", "active": True, "window": window}]}
