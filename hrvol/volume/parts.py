"""Read what makes a volume of a Zarr node, of an array in memory, and of what an importer opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import zarr

from hrvol.arrays import Spacing3
from hrvol.errors import InputError
from hrvol.text import listed, printable
from hrvol.volume.axes import spacing, spatial_axes
from hrvol.volume.importers.stored import StoredImage
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.converted import check_converted
from hrvol.volume.ome.nodes import attributes_of, image_around, member, only_array
from hrvol.volume.read_options import COLOUR, Channel, ReadOptions, ordered_axes
from hrvol.volume.storage.bounded_array import bounded_array
from hrvol.volume.storage.input_store import InputStore
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.stamps import Stamp, metadata_stamps, stamp_of
from hrvol.volume.storage.zip_input import ZipInput
from hrvol.volume.units import common_unit

Opened = tuple[tuple[str, Stamp], ...]


@dataclass(frozen=True)
class Parts:
    """An array with the names of its axes and their scale.

    Attributes
    ----------
    source, array
        Name for messages; the array.
    axes
        Names of the axes, lower case; ``None``: z, y, x.
    scale, translation, units
        By the names of axes; 1, 0 and none where missing.
    fixed_axes
        Whether the axes are named by metadata that no user overrides.
    size_from, notes
        As of a volume.
    opened
        Files that were read, and their state.
    channel_names
        Names of the channels in the metadata, in order; empty if there are none.
    """

    source: str
    array: Any
    axes: tuple[str, ...] | None = None
    scale: Mapping[str, float] = field(default_factory=dict)
    translation: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str | None] = field(default_factory=dict)
    fixed_axes: bool = False
    size_from: str = ""
    notes: tuple[str, ...] = ()
    opened: Opened = ()
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpatialMetadata:
    """What the axes of an array are.

    Attributes
    ----------
    axes
        Per stored axis ``z``, ``y`` or ``x``; ``""`` for an axis that is not of space.
    voxel_size, translation
        (z, y, x) in ``unit``.
    unit
        OME name of a unit of length, or ``None``.
    channel
        Number of the channel to read of several, ``"mean"``, or ``"rgb"`` for colour; else ``None``.
    """

    axes: tuple[str, ...]
    voxel_size: Spacing3
    translation: Spacing3
    unit: str | None
    channel: Channel | None


def spatial_metadata(parts: Parts, reading: ReadOptions) -> SpatialMetadata:
    """Find z, y and x among the axes of an array, by the options of reading and the file, and their scale.

    Raises
    ------
    InputError
        They cannot be found, or there are several channels that are no colour.
    """
    source, shape = parts.source, tuple(int(n) for n in parts.array.shape)
    stored, given = parts.axes, None
    if reading.axis_order is not None and not parts.fixed_axes:
        given = ordered_axes(reading.axis_order, shape)
        if given is None:
            raise InputError(
                f"{source}: found {len(shape)} axes of shape {shape}, expected as many as the axis order"
                f" {reading.axis_order} has"
            )
    names = spatial_axes(source, shape, given or stored, reading.channel)
    if stored is None:  # sizes are of z, y, x as stored, whatever the user calls the axes
        stored = names if given is None or len(shape) > 3 else tuple("zyx"[-len(shape) :])
    factor = dict(zip(names, (parts.scale.get(name, 1.0) for name in stored), strict=True))
    offset = dict(zip(names, (parts.translation.get(name, 0.0) for name in stored), strict=True))
    units = dict(zip(names, map(parts.units.get, stored), strict=True))
    named_units = [units.get(axis) for axis in "zyx"]
    voxel_size, unit = common_unit((factor.get("z", 1.0), factor["y"], factor["x"]), named_units)
    translation, _ = common_unit((offset.get("z", 0.0), offset["y"], offset["x"]), named_units)
    axes = tuple(name if name in ("z", "y", "x") else "" for name in names)
    count = max((side for axis, side in zip(axes, shape, strict=True) if not axis), default=1)
    channel = _channel(parts, reading.channel, count) if count > 1 else None
    return SpatialMetadata(axes, voxel_size, translation, unit, channel)


def _channel(parts: Parts, channel: Channel | None, count: int) -> Channel:
    """Return what is read of several channels: colour by default; one that is named, by its number."""
    if channel is None:
        return COLOUR
    if not isinstance(channel, str) or channel in ("mean", COLOUR):
        return channel
    folded = [name.casefold() for name in parts.channel_names[:count]]
    if folded.count(channel.casefold()) == 1:
        return folded.index(channel.casefold())
    found = f"channels named {listed(parts.channel_names, 8)}" if folded else "no names of channels"
    raise InputError(
        f"{parts.source}: found {found}, expected one named {printable(repr(channel), 60)}"
        " (--channel also takes a number from 0, mean, or rgb)"
    )


def stored_parts(source: str, image: StoredImage, before: tuple[str, Stamp] | None) -> Parts:
    """Return the parts of what an importer opened.

    Parameters
    ----------
    source
        Name for messages.
    image
        The image.
    before
        The file that was named, and its state before it was opened.
    """
    files = [str(file) for file in image.files]
    first = [] if before is None or before[0] not in files else [before]
    others = [(file, stamp_of(file)) for file in files if not first or file != first[0][0]]
    axes = image.axes or "zyx"[-len(image.array.shape) :]
    missing = [axis for axis in image.size.missing if axis in axes and "z" in axes]
    unit = image.size.unit or "pixel"
    notes = [f"{image.size.origin}: found no size along {axis}, taken as 1 {unit}" for axis in missing]
    return Parts(
        source,
        image.array,
        image.axes,
        dict(zip("zyx", image.size.zyx, strict=True)),
        units=dict.fromkeys("zyx", image.size.unit),
        size_from=image.size.origin,
        notes=(*image.size.notes, *notes),
        opened=(*first, *others),
    )


def array_parts(array: Any) -> Parts:
    """Return the parts of an array in memory."""
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        kind = type(array).__name__
        raise InputError(f"found {kind}, expected a path, or a NumPy, Dask, xarray or Zarr array")
    shape = "x".join(map(str, array.shape))
    if not (hasattr(array, "dims") and hasattr(array, "coords")):
        return Parts(f"{type(array).__name__} array {shape}", array)
    dims = [str(dim) for dim in array.dims]
    axes = tuple(dim.lower() for dim in dims)
    coords = [array.coords.get(dim) for dim in dims]
    units = {axis: None if c is None else c.attrs.get("units") for axis, c in zip(axes, coords, strict=True)}
    # ``data`` of a file that xarray has not loaded would read all of it; ``variable`` reads box by box.
    values = array.data if array.chunks is not None else array.variable
    scale = dict(zip(axes, map(spacing, coords), strict=True))
    known = any(c is not None for c in coords)
    return Parts(
        f"{array.name or 'DataArray'} {shape}",
        values,
        axes,
        scale,
        units=units,
        size_from="coordinates" if known else "",
    )


def node_parts(
    node: zarr.Array[Any] | zarr.Group, source: str, level: int, location: Location | None
) -> Parts:
    """Return the parts of a Zarr array, or of a level of an OME-Zarr image.

    Parameters
    ----------
    node
        The array or group.
    source
        Name for messages.
    level
        Resolution level.
    location
        Where it was opened; ``None`` for a node that the caller opened.
    """
    if isinstance(node, zarr.Array):
        check_level(source, 1, level)
        node = node if location is None else bounded_array(node, source)
        attributes_of(node, source)
        image = image_around(node, location)
        if image is not None:
            return _level_parts(node, source, *image, location)
        names = getattr(node.metadata, "dimension_names", None)
        axes = tuple(str(axis).lower() for axis in names) if names and all(names) else None
        fixed = axes is not None and {"y", "x"} <= set(axes)
        return Parts(source, node, axes, fixed_axes=fixed, opened=_opened(node, location))
    attributes = attributes_of(node, source)
    check_converted(attributes, source)
    multiscale = ome.read_multiscale(attributes, source)
    if multiscale is None and "bioformats2raw.layout" in ome.ome_attributes(attributes):
        first = member(node, "0", source)
        if isinstance(first, zarr.Group):
            if "bioformats2raw.layout" in ome.ome_attributes(attributes_of(first, source)):
                raise InputError(f"{source}: found images inside images, expected an OME-Zarr image")
            return node_parts(first, source, level, location)
    if multiscale is None:
        return node_parts(only_array(node, source), source, level, location)
    check_level(source, len(multiscale.levels), level)
    chosen = multiscale.levels[level]
    array = member(node, chosen.path, source)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{source}: found no array at {chosen.path!r}, which the OME-Zarr metadata names")
    return _level_parts(array, source, multiscale, chosen, location)


def check_level(source: str, count: int, level: int) -> None:
    """Raise an :class:`InputError` if there is no such resolution level."""
    if not 0 <= level < count:
        levels = "1 level" if count == 1 else f"{count} levels"
        raise InputError(f"{source}: found {levels}, expected one numbered {level}")


def _level_parts(
    array: zarr.Array[Any],
    source: str,
    multiscale: ome.Multiscale,
    level: ome.Level,
    location: Location | None,
) -> Parts:
    array = array if location is None else bounded_array(array, source)
    names = multiscale.axes
    return Parts(
        source,
        array,
        names,
        dict(zip(names, level.scale, strict=True)),
        dict(zip(names, level.translation, strict=True)),
        dict(zip(names, multiscale.units, strict=True)),
        fixed_axes=True,
        size_from="OME-Zarr metadata",
        opened=_opened(array, location),
        channel_names=multiscale.channel_names,
    )


def _opened(array: zarr.Array[Any], location: Location | None) -> Opened:
    if location is None:
        return ()
    if isinstance(array.store, InputStore):
        return metadata_stamps(str(array.store.root / array.store_path.path))
    if isinstance(array.store, ZipInput):
        path = str(array.store.path)
        return ((path, stamp_of(path)),)
    return ()
