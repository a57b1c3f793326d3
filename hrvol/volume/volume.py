"""Open volumes and labels of any format, and arrays in memory, all presented as (z, y, x).

Voxels are read box by box, when a box is requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError, UnreadableError, UsageError
from hrvol.volume.grid.tiling import Box, box_shape, whole
from hrvol.volume.importers.extras import read_quietly
from hrvol.volume.importers.recognise import hint
from hrvol.volume.importers.registry import find, open_found
from hrvol.volume.importers.remote_files import find_remote
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.nodes import attributes_of, labels_of, open_zarr
from hrvol.volume.parts import Parts, array_parts, check_level, node_parts, spatial_metadata, stored_parts
from hrvol.volume.read_options import COLOUR, Channel, RawLayout, ReadOptions
from hrvol.volume.storage.bounded_array import check_shape
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.stamps import Stamp, stamp_of
from hrvol.volume.transparency import is_opaque
from hrvol.volume.units import normal_unit

_OTHERS = " nor a file of another format that hrvol reads"  # for messages

Origin = tuple[Location, str | None, int]

Reader = Callable[[Any, tuple[Any, ...]], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Volume:
    """A grey, colour or labelled volume, always presented as (z, y, x); a 2D image has one plane.

    A volume opened from a path or URL is pickled as that path, and reopened when unpickled.

    Attributes
    ----------
    source
        Path or URL, or a description of an array in memory.
    array
        Source of the voxels: any object with ``shape``, ``dtype`` and slicing.
    axes
        Per axis of ``array``: ``"z"``, ``"y"``, ``"x"``, or ``""`` for an axis of length 1, which is dropped.
    voxel_size
        (z, y, x) in ``unit``; 1 if unknown.
    unit
        OME name of a unit of length, or ``None``.
    ndim
        2 for an image, 3 for a volume (which may have one plane).
    name
        Short name for messages.
    translation
        Position (z, y, x) of the centre of the first voxel, in ``unit``.
    origin
        Arguments to reopen it (location, labels' name, level), or ``None``.
    opened
        Files that were read when it was opened, and their state then: of a TIFF stack all files, of a Zarr
        array those of its metadata.
    channel
        Number of the channel that is read of an array with several, ``"mean"`` of all, or ``"rgb"``: the
        first three are red, green and blue; else ``None``.
    voxel_size_from
        What of the file states the voxel size; empty if it is unknown.
    notes
        Values of the file that are no voxel sizes.
    """

    source: str
    array: Any
    axes: tuple[str, ...]
    voxel_size: Spacing3
    unit: str | None
    ndim: int
    name: str
    translation: Spacing3 = (0.0, 0.0, 0.0)
    origin: Origin | None = None
    opened: tuple[tuple[str, Stamp], ...] = ()
    channel: Channel | None = None
    voxel_size_from: str = ""
    notes: tuple[str, ...] = ()

    @property
    def colour(self) -> bool:
        """Whether a voxel has three values: red, green and blue."""
        return self.channel == COLOUR

    @property
    def channels(self) -> int:
        """Values per voxel: 3 of a colour volume, else 1."""
        return 3 if self.colour else 1

    @property
    def shape(self) -> Shape3:
        """Voxels per axis, (z, y, x)."""
        return self._spatial(tuple(self.array.shape), 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that :meth:`read` returns: that of the file in native byte order, uint8 for bool."""
        return _native(self.array.dtype)

    @property
    def chunks(self) -> Shape3:
        """Voxels per chunk, (z, y, x), the smallest unit of reading; the whole shape if in memory."""
        chunks = getattr(self.array, "chunks", None) or self.array.shape
        return self._spatial(tuple(max(c) if isinstance(c, tuple) else int(c) for c in chunks), 1)

    @property
    def decodes(self) -> bool:
        """Whether reading a box decodes whole chunks, which are worth to be kept for the next box.

        Not so where values are plain bytes of a file, or in memory.
        """
        stored = self.origin is not None
        return stored and (isinstance(self.array, zarr.Array) or bool(getattr(self.array, "decodes", False)))

    @property
    def decoded_itemsize(self) -> int:
        """Bytes that are decoded for each voxel: of all channels that a chunk holds."""
        chunks = getattr(self.array, "chunks", None) or self.array.shape
        channels = [
            length if self.channel == "mean" else min(-(-self.channels // int(chunk)) * int(chunk), length)
            for axis, chunk, length in zip(self.axes, chunks, self.array.shape, strict=True)
            if not axis
        ]
        return int(np.dtype(self.array.dtype).itemsize * np.prod(channels, dtype=np.int64))

    def read(self, box: Box | None = None, reader: Reader | None = None) -> npt.NDArray[Any]:
        """Read a box.

        Parameters
        ----------
        box
            Slices (z, y, x) with explicit bounds inside the volume; ``None`` is all of it.
        reader
            Function that reads a selection of the array instead of the array itself, for instance through a
            cache; used if :attr:`decodes`.

        Returns
        -------
        numpy.ndarray
            New array (z, y, x), or (z, y, x, 3) of a colour volume, in native byte order; bool becomes uint8.

        Raises
        ------
        InputError
            The file is damaged, or requires a codec that is not installed.
        IndexError
            The box is empty or not inside the volume.
        """
        box = whole(self.shape) if box is None else box
        for name, span, length in zip("zyx", box, self.shape, strict=True):
            if not 0 <= span.start < span.stop <= length or span.step not in (None, 1):
                raise IndexError(f"{self.name}: {name} {span.start}:{span.stop} is not inside 0:{length}")
        spans = dict(zip("zyx", box, strict=True))
        selection = tuple(
            spans[axis] if axis else self._of_channel(length)
            for axis, length in zip(self.axes, self.array.shape, strict=True)
        )
        if _is_dask(self.array):
            # In this thread: the engine limits the number of blocks in progress, and a cluster must not wait
            # for itself.
            values = self.array[selection].compute(scheduler="synchronous")
        elif self.origin is None:
            values = np.array(self.array[selection])
        else:
            values = self._read_stored(selection, box, reader)
        if self.channel == "mean":
            kept = [axis for axis, part in zip(self.axes, selection, strict=True) if isinstance(part, slice)]
            mean = np.asarray(values).mean(kept.index(""), np.float64)
            values = mean if self.dtype.kind == "f" else np.rint(mean)
        colour, shape = self.colour, box_shape(box)
        stored = [
            axis
            for axis, part in zip(self.axes, selection, strict=True)
            if axis or (colour and isinstance(part, slice))
        ]
        order = [stored.index(axis) for axis in ("z", "y", "x", "") if axis in stored]
        values = np.asarray(values).transpose(order).reshape((*shape, 3) if colour else shape)
        return np.ascontiguousarray(values, dtype=self.dtype)

    def as_grey(self) -> Volume:
        """Return the mean of the channels of a colour volume as a grey one, for pictures; others as is."""
        if not self.colour:
            return self
        origin = self.origin
        if origin is not None:
            location, labels, level = origin
            reading = replace(location.reading or ReadOptions(), channel="mean")
            origin = (replace(location, reading=reading), labels, level)
        return replace(self, channel="mean", origin=origin)

    def identity(self) -> dict[str, Any]:
        """Return a description of this input that identifies it, ready for JSON.

        Returns
        -------
        dict
            ``source``, ``shape``, ``dtype``, ``voxel_size``, ``unit`` and ``sha256``, a checksum of shape,
            type and three small boxes of voxels (first corner, middle, last corner). Of an array with several
            channels also ``channel``: that which is read, ``"mean"`` or ``"rgb"``.
        """
        digest = hashlib.sha256(f"{self.shape}{self.dtype}".encode())
        for fraction in (0.0, 0.5, 1.0):
            z, y, x = (
                slice(start := round(fraction * max(0, length - side)), min(start + side, length))
                for length, side in zip(self.shape, (1, 64, 64), strict=True)
            )
            digest.update(self.read((z, y, x)).tobytes())
        identity = {
            "source": self.source,
            "shape": list(self.shape[-self.ndim :]),
            "dtype": str(self.dtype),
            "voxel_size": list(self.voxel_size[-self.ndim :]),
            "unit": self.unit,
            "sha256": digest.hexdigest(),
        }
        return identity if self.channel is None else identity | {"channel": self.channel}

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is not None:
            return _open_path, (*self.origin, True)
        fields = (getattr(self, name) for name in self.__dataclass_fields__)
        return Volume, tuple(fields)

    def _read_stored(self, selection: tuple[Any, ...], box: Box, reader: Reader | None) -> npt.NDArray[Any]:
        try:
            if reader is not None and self.decodes:
                with read_quietly():
                    return reader(self.array, selection)
            with read_quietly():
                return np.array(self.array[selection])
        except MemoryError:
            raise
        except Exception as error:  # codecs and file systems raise errors of any type
            region = ", ".join(f"{axis} {s.start}:{s.stop}" for axis, s in zip("zyx", box, strict=True))
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableError(f"{self.source}: cannot read {region}: {reason}") from error

    def _of_channel(self, length: int) -> int | slice:
        """Return what is read along an axis that is not of space."""
        if length == 1 or self.channel is None:
            return 0
        if isinstance(self.channel, int):
            return self.channel
        return slice(0, 3 if self.colour else length)

    def _spatial(self, stored: tuple[int, ...], missing: int) -> Shape3:
        sides = dict(zip(self.axes, stored, strict=True))
        return sides.get("z", missing), sides["y"], sides["x"]


def open_volume(
    source: Any,
    *,
    level: int = 0,
    options: ReadOptions | None = None,
    voxel_size: Sequence[float] | None = None,
    unit: str | None = None,
    axis_order: str | None = None,
    channel: Channel | None = None,
    raw: RawLayout | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Volume:
    """Open a volume or an image.

    Parameters
    ----------
    source
        Path, URL or :class:`~hrvol.volume.storage.location.Location` of a file or folder of any format that
        hrvol reads; ``FILE::/PATH`` names a dataset inside of an HDF5 file. Or a Zarr array or group; a
        NumPy, Dask or xarray array; or a volume, which is returned unchanged. Axes of length 1 other than z,
        y and x are dropped; an axis of three channels or samples makes a colour volume.
    level
        Resolution level of an OME-Zarr image or a pyramidal TIFF; 0 is the finest.
    options
        What the file lacks, or states wrongly, as one object.
    voxel_size, unit, axis_order, channel, raw
        The same one by one, see :class:`~hrvol.volume.read_options.ReadOptions`; they override those of
        ``options``.
    storage_options
        Keywords of the fsspec file system of a URL.

    Returns
    -------
    Volume
        Any public function accepts it in place of a path.

    Raises
    ------
    InputError
        The source does not exist, is neither grey nor colour, or has an unsupported type.
    UsageError
        An option is wrong, or the source is a volume already.
    MissingExtraError
        The package that reads this format is not installed.
    """
    given = {"voxel_size": voxel_size, "unit": unit, "axis_order": axis_order, "channel": channel, "raw": raw}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, Volume):
        if chosen or options is not None:
            raise UsageError(
                f"{source.source}: is open already, expected a path for {', '.join(chosen) or 'options'}"
            )
        return source
    reading: Any = replace(options or ReadOptions(), **chosen)
    if isinstance(source, str | Path | Location):
        location = Location.of(source, storage_options)
        return _open_path(replace(location, reading=reading) if chosen or options else location, None, level)
    if isinstance(source, zarr.Array | zarr.Group):
        return _build(node_parts(source, str(source.store_path), level, None), None, reading)
    return _build(array_parts(source), None, reading)


def open_labels(source: Any, *, name: str | None = None, level: int = 0) -> Volume:
    """Open strokes, a segmentation or a ground truth: like :func:`open_volume`, with an integer type.

    Parameters
    ----------
    source
        As for :func:`open_volume`. For an OME-Zarr image with labels, the labels are opened.
    name
        Name of the labels, if there are several; by default ``hrvol``, or the only ones.
    level
        Resolution level, 0 the finest.

    Raises
    ------
    InputError
        As for :func:`open_volume`; or the type is not integer, or there are several values per voxel; or
        there are no labels of this name, or several and no name was given.
    """
    if isinstance(source, str | Path | Location):
        labels = _open_path(Location.of(source), name or "", level)
    elif isinstance(source, zarr.Group):
        path = str(source.store_path)
        labels = _build(node_parts(labels_of(source, path, name), path, level, None), None, None)
    else:
        labels = open_volume(source, level=level)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{labels.source}: found labels of type {labels.dtype}, expected whole numbers")
    return expect_grey(labels, "labels have one value per voxel")


def expect_grey(volume: Volume, why: str) -> Volume:
    """Return a volume that is not a colour one; :class:`InputError` with the reason if it is."""
    if volume.colour:
        raise InputError(
            f"{volume.source}: found a colour volume (red, green, blue), expected a grey one: {why};"
            " take one channel with --channel N, or --channel mean"
        )
    return volume


def class_info(source: Any, *, name: str | None = None) -> tuple[ClassInfo, ...] | None:
    """Return names and colours of the classes of OME-Zarr labels, or ``None`` if the metadata have none.

    Parameters
    ----------
    source, name
        As for :func:`open_labels`.
    """
    if isinstance(source, Volume):
        if source.origin is None:
            return None
        source, name = source.origin[0], source.origin[1] or name
    if isinstance(source, str | Path | Location):
        location = Location.of(source)
        if find_remote(location) is not None or find(location) is not None:
            return None
        source = open_zarr(location, _OTHERS)
    if not isinstance(source, zarr.Group):
        return None
    path = str(source.store_path)
    return ome.read_classes(attributes_of(labels_of(source, path, name), path), path)


def _open_path(location: Location, labels: str | None, level: int, again: bool = False) -> Volume:
    """Open a path or URL: a volume if ``labels`` is ``None``, else the labels of this name (``""``: any)."""
    origin = (location, labels, level)
    source = location.url
    found = find_remote(location) if location.path is None else find(location, level, again)
    if found is not None:
        if not found.levels:
            check_level(source, 1, level)
        before = None if location.path is None else (str(location.path), stamp_of(str(location.path)))
        return _build(stored_parts(source, open_found(found, source), before), origin, location.reading)
    try:
        node = open_zarr(location, _OTHERS)
    except UnreadableError:
        raise
    except InputError as error:
        shown = "" if location.path is None else hint(location.path)
        raise (InputError(f"{source}: found {shown}") if shown else error) from None
    if labels is not None and isinstance(node, zarr.Group):
        node = labels_of(node, source, labels or None)
    return _build(node_parts(node, source, level, location), origin, location.reading)


def _build(parts: Parts, origin: Origin | None, reading: ReadOptions | None) -> Volume:
    """Check an array and find z, y and x among its axes, by the options and the file."""
    source, array, reading = parts.source, parts.array, reading or ReadOptions()
    if np.dtype(array.dtype).kind not in "biuf":
        raise InputError(f"{source}: found type {array.dtype}, expected integers or floating-point numbers")
    check_shape(source, array.shape, array.dtype)
    if reading.channel is None and is_opaque(parts):
        reading = replace(reading, channel=COLOUR)
        if origin is not None:  # so that it is not read again where the volume is opened again
            origin = (replace(origin[0], reading=reading), *origin[1:])
    found = spatial_metadata(parts, reading)
    return Volume(
        source,
        array,
        found.axes,
        reading.voxel_size or found.voxel_size,
        normal_unit(reading.unit) or found.unit,
        3 if "z" in found.axes else 2,
        Path(source).name or source,
        found.translation,
        origin,
        parts.opened,
        found.channel,
        "the user" if reading.voxel_size or reading.unit else parts.size_from,
        parts.notes,
    )


def _native(dtype: Any) -> np.dtype[Any]:
    plain = np.dtype(dtype)
    return np.dtype(np.uint8) if plain.kind == "b" else plain.newbyteorder("=")


def _is_dask(array: Any) -> bool:
    return type(array).__module__.split(".")[0] == "dask"
