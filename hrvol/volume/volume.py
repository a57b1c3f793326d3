"""Open volumes and labels: Zarr, OME-Zarr, TIFF and arrays in memory, all presented as (z, y, x).

Voxels are read box by box, when a box is requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError, UnreadableError
from hrvol.volume.axes import spacing, spatial_axes
from hrvol.volume.grid.tiling import Box, box_shape, whole
from hrvol.volume.importers.recognise import check_exists, hint
from hrvol.volume.importers.tiff import SUFFIXES, open_tiff, read_quietly
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.nodes import attributes_of, image_around, labels_of, member, only_array, open_zarr
from hrvol.volume.storage.bounded_array import bounded_array, check_shape
from hrvol.volume.storage.input_store import InputStore
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.stamps import Stamp, metadata_stamps, stamp_of

_OTHERS = f" nor a TIFF image ({', '.join(SUFFIXES)})"  # other formats, for messages

Origin = tuple[Location, str | None, int]

Reader = Callable[["zarr.Array[Any]", tuple[Any, ...]], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Volume:
    """A grey or labelled volume, always presented as (z, y, x); a 2D image has one plane.

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

    def read(self, box: Box | None = None, reader: Reader | None = None) -> npt.NDArray[Any]:
        """Read a box.

        Parameters
        ----------
        box
            Slices (z, y, x) with explicit bounds inside the volume; ``None`` is all of it.
        reader
            Function that reads a selection of a Zarr array instead of Zarr itself, for instance through a
            cache.

        Returns
        -------
        numpy.ndarray
            New array (z, y, x) in native byte order; bool becomes uint8.

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
        selection = tuple(spans[axis] if axis else 0 for axis in self.axes)
        if _is_dask(self.array):
            # In this thread: the engine limits the number of blocks in progress, and a cluster must not wait
            # for itself.
            values = self.array[selection].compute(scheduler="synchronous")
        elif self.origin is None:
            values = np.array(self.array[selection])
        else:
            values = self._read_stored(selection, box, reader)
        stored = [axis for axis in self.axes if axis]
        order = [stored.index(axis) for axis in "zyx" if axis in stored]
        values = np.asarray(values).transpose(order).reshape(box_shape(box))
        return np.ascontiguousarray(values, dtype=self.dtype)

    def identity(self) -> dict[str, Any]:
        """Return a description of this input that identifies it, ready for JSON.

        Returns
        -------
        dict
            ``source``, ``shape``, ``dtype``, ``voxel_size``, ``unit`` and ``sha256``, a checksum of shape,
            type and three small boxes of voxels (first corner, middle, last corner).
        """
        digest = hashlib.sha256(f"{self.shape}{self.dtype}".encode())
        for fraction in (0.0, 0.5, 1.0):
            z, y, x = (
                slice(start := round(fraction * max(0, length - side)), min(start + side, length))
                for length, side in zip(self.shape, (1, 64, 64), strict=True)
            )
            digest.update(self.read((z, y, x)).tobytes())
        return {
            "source": self.source,
            "shape": list(self.shape[-self.ndim :]),
            "dtype": str(self.dtype),
            "voxel_size": list(self.voxel_size[-self.ndim :]),
            "unit": self.unit,
            "sha256": digest.hexdigest(),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is not None:
            return _reopen, self.origin
        fields = (getattr(self, name) for name in self.__dataclass_fields__)
        return Volume, tuple(fields)

    def _read_stored(self, selection: tuple[Any, ...], box: Box, reader: Reader | None) -> npt.NDArray[Any]:
        try:
            if reader is not None and isinstance(self.array, zarr.Array):
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

    def _spatial(self, stored: tuple[int, ...], missing: int) -> Shape3:
        sides = dict(zip(self.axes, stored, strict=True))
        return sides.get("z", missing), sides["y"], sides["x"]


def open_volume(source: Any, *, level: int = 0) -> Volume:
    """Open a volume or an image.

    Parameters
    ----------
    source
        Path, URL or :class:`~hrvol.volume.storage.location.Location` of a Zarr array (version 2 or 3), of a
        group with one array, of an OME-Zarr image, or of a TIFF image or stack; a Zarr array or group; a
        NumPy, Dask or xarray array; or a volume, which is returned unchanged. Axes of length 1 other than z,
        y and x are dropped.
    level
        Resolution level of an OME-Zarr image or a pyramidal TIFF; 0 is the finest.

    Raises
    ------
    InputError
        The source does not exist, is not grey, or has an unsupported type.
    """
    if isinstance(source, Volume):
        return source
    if isinstance(source, str | Path | Location):
        return _open_path(Location.of(source), None, level)
    if isinstance(source, zarr.Array | zarr.Group):
        return _from_node(source, str(source.store_path), level, None)
    return _from_array(source)


def open_labels(source: Any, *, name: str | None = None) -> Volume:
    """Open strokes, a segmentation or a ground truth: like :func:`open_volume`, with an integer type.

    Parameters
    ----------
    source
        As for :func:`open_volume`. For an OME-Zarr image with labels, the labels are opened.
    name
        Name of the labels, if there are several; by default ``hrvol``, or the only ones.

    Raises
    ------
    InputError
        As for :func:`open_volume`; or the type is not integer; or there are no labels of this name, or
        several and no name was given.
    """
    if isinstance(source, str | Path | Location):
        labels = _open_path(Location.of(source), name or "", 0)
    elif isinstance(source, zarr.Group):
        labels = _from_node(labels_of(source, str(source.store_path), name), str(source.store_path), 0, None)
    else:
        labels = open_volume(source)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{labels.source}: found labels of type {labels.dtype}, expected whole numbers")
    return labels


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
        if location.path is not None and location.path.suffix.lower() in SUFFIXES:
            return None
        source = open_zarr(location, _OTHERS)
    if not isinstance(source, zarr.Group):
        return None
    path = str(source.store_path)
    return ome.read_classes(attributes_of(labels_of(source, path, name), path), path)


def _reopen(source: Location, labels: str | None, level: int) -> Volume:
    return _open_path(source, labels, level)


def _open_path(location: Location, labels: str | None, level: int) -> Volume:
    """Open a path or URL: a volume if ``labels`` is ``None``, else the labels of this name (``""``: any)."""
    origin = (location, labels, level)
    source, path = location.url, location.path
    if path is not None:
        check_exists(path)
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            before = (str(path), stamp_of(str(path)))
            image = open_tiff(path, level)
            size = dict(zip("zyx", image.voxel_size, strict=True))
            scale = tuple(size.get(axis, 1.0) for axis in image.axes)
            volume = _build(source, image.array, image.axes, scale, image.unit, origin)
            others = tuple((str(file), stamp_of(str(file))) for file in image.files if file != path)
            return replace(volume, opened=(before, *others))
    try:
        node = open_zarr(location, _OTHERS)
    except UnreadableError:
        raise
    except InputError as error:
        found = "" if path is None else hint(path)
        raise (InputError(f"{source}: found {found}") if found else error) from None
    if labels is not None and isinstance(node, zarr.Group):
        node = labels_of(node, source, labels or None)
    return _from_node(node, source, level, origin)


def _from_node(node: zarr.Array[Any] | zarr.Group, source: str, level: int, origin: Origin | None) -> Volume:
    if isinstance(node, zarr.Array):
        _check_level(source, 1, level)
        node = node if origin is None else bounded_array(node, source)
        attributes_of(node, source)
        image = image_around(node, None if origin is None else origin[0])
        if image is not None:
            return _from_level(node, source, *image, origin)
        names = getattr(node.metadata, "dimension_names", None)
        axes = tuple(str(axis).lower() for axis in names) if names and all(names) else None
        return _build(source, node, axes, None, None, origin)
    attributes = attributes_of(node, source)
    multiscale = ome.read_multiscale(attributes, source)
    if multiscale is None and "bioformats2raw.layout" in ome.ome_attributes(attributes):
        first = member(node, "0", source)
        if isinstance(first, zarr.Group):
            if "bioformats2raw.layout" in ome.ome_attributes(attributes_of(first, source)):
                raise InputError(f"{source}: found images inside images, expected an OME-Zarr image")
            return _from_node(first, source, level, origin)
    if multiscale is None:
        return _from_node(only_array(node, source), source, level, origin)
    _check_level(source, len(multiscale.levels), level)
    chosen = multiscale.levels[level]
    array = member(node, chosen.path, source)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{source}: found no array at {chosen.path!r}, which the OME-Zarr metadata names")
    return _from_level(array, source, multiscale, chosen, origin)


def _check_level(source: str, count: int, level: int) -> None:
    if not 0 <= level < count:
        levels = "1 level" if count == 1 else f"{count} levels"
        raise InputError(f"{source}: found {levels}, expected one numbered {level}")


def _from_level(
    array: zarr.Array[Any],
    source: str,
    multiscale: ome.Multiscale,
    level: ome.Level,
    origin: Origin | None,
) -> Volume:
    array = array if origin is None else bounded_array(array, source)
    units = dict(zip(multiscale.axes, multiscale.units, strict=True))
    return _build(source, array, multiscale.axes, level.scale, units, origin, level.translation)


def _from_array(array: Any) -> Volume:
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        kind = type(array).__name__
        raise InputError(f"found {kind}, expected a path, or a NumPy, Dask, xarray or Zarr array")
    shape = "x".join(map(str, array.shape))
    if not (hasattr(array, "dims") and hasattr(array, "coords")):
        return _build(f"{type(array).__name__} array {shape}", array, None, None, None, None)
    dims = [str(dim) for dim in array.dims]
    axes = tuple(dim.lower() for dim in dims)
    coords = [array.coords.get(dim) for dim in dims]
    units = {axis: None if c is None else c.attrs.get("units") for axis, c in zip(axes, coords, strict=True)}
    title = f"{array.name or 'DataArray'} {shape}"
    # ``data`` of a file that xarray has not loaded would read all of it; ``variable`` reads box by box.
    values = array.data if array.chunks is not None else array.variable
    return _build(title, values, axes, tuple(map(spacing, coords)), units, None)


def _build(
    source: str,
    array: Any,
    axes: tuple[str, ...] | None,
    scale: tuple[float, ...] | None,
    unit: str | dict[str, str | None] | None,
    origin: Origin | None,
    translation: tuple[float, ...] | None = None,
) -> Volume:
    """Check an array and find z, y and x among its axes.

    If ``axes`` is ``None``, the order is z, y, x. ``unit`` is one unit, or one per name of an axis.
    """
    shape = tuple(int(n) for n in array.shape)
    if np.dtype(array.dtype).kind not in "biuf":
        raise InputError(f"{source}: found type {array.dtype}, expected integers or floating-point numbers")
    check_shape(source, shape, array.dtype)
    names = spatial_axes(source, shape, axes)
    factor = dict(zip(names, scale or [1.0] * len(names), strict=True))
    offset = dict(zip(names, translation or [0.0] * len(names), strict=True))
    units = unit if isinstance(unit, dict) else dict.fromkeys("zyx", unit)
    named_units = [units.get(axis) for axis in "zyx"]
    voxel_size, common = ome.common_unit((factor.get("z", 1.0), factor["y"], factor["x"]), named_units)
    translation_zyx, _ = ome.common_unit((offset.get("z", 0.0), offset["y"], offset["x"]), named_units)
    spatial = tuple(name if name in ("z", "y", "x") else "" for name in names)
    name = Path(source).name or source
    ndim = 3 if "z" in spatial else 2
    opened: tuple[tuple[str, Stamp], ...] = ()
    if origin is not None and isinstance(array, zarr.Array) and isinstance(array.store, InputStore):
        opened = metadata_stamps(str(array.store.root / array.store_path.path))
    return Volume(source, array, spatial, voxel_size, common, ndim, name, translation_zyx, origin, opened)


def _native(dtype: Any) -> np.dtype[Any]:
    plain = np.dtype(dtype)
    return np.dtype(np.uint8) if plain.kind == "b" else plain.newbyteorder("=")


def _is_dask(array: Any) -> bool:
    return type(array).__module__.split(".")[0] == "dask"
