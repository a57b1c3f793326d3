"""Read (versions 0.1 to 0.5) and write (0.5) OME-Zarr metadata as plain dictionaries.

Specification: https://ngff.openmicroscopy.org/0.5/ (Moore et al. 2021, doi 10.1038/s41592-021-01326-w).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.arrays import Spacing3
from hrvol.classes import ClassInfo, default_colour
from hrvol.errors import InputError
from hrvol.text import printable

VERSION = "0.5"

DEFAULT_LABELS = "hrvol"
"""Default name of labels to write and to read."""

# Lengths of units in metres.
_METRES = {
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "inch": 0.0254,
    "meter": 1.0,
}

# Other spellings, by users and other software.
_SPELLINGS = {
    "å": "angstrom",
    "ångström": "angstrom",
    "nm": "nanometer",
    "nanometre": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",
    "μm": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "micrometre": "micrometer",
    "mm": "millimeter",
    "millimetre": "millimeter",
    "cm": "centimeter",
    "centimetre": "centimeter",
    "in": "inch",
    "m": "meter",
    "metre": "meter",
}

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
    """An image at several resolutions, finest first; ``units`` has one unit or ``None`` per axis."""

    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]


def normal_unit(unit: str | None) -> str | None:
    """Return the OME name of a unit of length; ``None`` for no unit and for pixels."""
    if unit is None:
        return None
    name = unit.strip().lower()
    if name in ("", "pixel", "pixels", "px", "none", "null"):
        return None
    return _SPELLINGS.get(name, name)


def common_unit(sizes: Spacing3, units: Sequence[str | None]) -> tuple[Spacing3, str | None]:
    """Express voxel sizes (z, y, x) in the unit of x.

    Parameters
    ----------
    sizes, units
        Per axis, (z, y, x). The size of an axis without a unit of length is not converted.

    Returns
    -------
    tuple
        The sizes and the unit of x (``None`` if it has none).
    """
    names = [normal_unit(unit) for unit in units]
    target = names[-1]
    if target not in _METRES:
        return sizes, target
    z, y, x = (
        size * _METRES[name] / _METRES[target] if name in _METRES and name != target else size
        for size, name in zip(sizes, names, strict=True)
    )
    return (z, y, x), target


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
    multiscales = ome_attributes(attributes).get("multiscales")
    if not multiscales:
        return None
    try:
        first = multiscales[0]
        datasets = [
            (str(entry["path"]), entry.get("coordinateTransformations")) for entry in first["datasets"]
        ]
        outer = first.get("coordinateTransformations")
        # Versions 0.1 and 0.2 have no axes (always t, c, z, y, x); 0.3 has plain names.
        axes = first.get("axes", list("tczyx"))
        names = tuple(str(axis if isinstance(axis, str) else axis["name"]).lower() for axis in axes)
        units = tuple(None if isinstance(axis, str) else axis.get("unit") for axis in axes)
        levels = []
        for path, inner in datasets:
            scale, translation = [1.0] * len(names), [0.0] * len(names)
            for transform in [*(inner or []), *(outer or [])]:
                if transform["type"] == "scale":
                    factors = [float(factor) for factor in transform["scale"]]
                    scale = [a * b for a, b in zip(scale, factors, strict=True)]
                    translation = [a * b for a, b in zip(translation, factors, strict=True)]
                elif transform["type"] == "translation":
                    steps = [float(step) for step in transform["translation"]]
                    translation = [a + b for a, b in zip(translation, steps, strict=True)]
            levels.append(Level(path, tuple(scale), tuple(translation)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{source}: damaged OME-Zarr metadata in 'multiscales' ({type(error).__name__}: {error})"
        ) from None
    if not levels:
        raise InputError(f"{source}: found no datasets in 'multiscales', expected one or more")
    return Multiscale(names, units, tuple(levels))


def label_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the labels in a ``labels`` group."""
    names = ome_attributes(attributes).get("labels")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def read_classes(attributes: Mapping[str, Any], source: str) -> tuple[ClassInfo, ...] | None:
    """Read class names and colours from the ``image-label`` of a group.

    Returns
    -------
    tuple of ClassInfo, or None
        In increasing order of value, without 0; ``None`` if the group has no ``image-label``. Missing names
        and colours are replaced by defaults.
    """
    label = ome_attributes(attributes).get("image-label")
    if not isinstance(label, Mapping):
        return None
    try:
        colours = {
            int(entry["label-value"]): entry["rgba"]
            for entry in label.get("colors") or []
            if entry.get("rgba") is not None
        }
        names = {
            int(entry["label-value"]): str(entry.get("class") or entry.get("name") or "")
            for entry in label.get("properties") or []
        }
        values = sorted({*colours, *names} - {0})
        classes = []
        for value in values:
            red, green, blue = (int(channel) for channel in colours.get(value, default_colour(value))[:3])
            name = printable(names.get(value) or f"class {value}", 200)
            classes.append(ClassInfo(value, name, (red, green, blue)))
        return tuple(classes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{source}: damaged OME-Zarr metadata in 'image-label' ({type(error).__name__}: {error})"
        ) from None


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
