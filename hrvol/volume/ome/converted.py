"""Write an OME-Zarr image block by block: 0.5 (Zarr 3, with shards) or 0.4 (Zarr 2).

Its group is an image only when all blocks and levels are written: before, it has the provenance and the
arrays, and no ``multiscales``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import AfterValidator, Field

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.reading.schema import Schema, validated
from hrvol.volume.grid.tiling import Box, box_shape, shard_and_chunk
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.compression import compressor
from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.output import ensure_array, write_box
from hrvol.volume.ome.pyramid import ImagePlan, LevelPlan, Reduction, make_level, make_part, plan_levels
from hrvol.volume.storage.location import MARK, Location

CONVERSION = "conversion"
"""Key of the provenance that only converted images have."""

_IMAGE = ("ome", "multiscales")
"""Attributes that make a group an image."""

MOST_VOXELS = 2**30
"""Voxels of a block, at most: it is in memory as a whole."""


def _check_box(sides: Shape3) -> Shape3:
    if math.prod(sides) > MOST_VOXELS:
        raise ValueError(f"at most {MOST_VOXELS:,} voxels")
    return sides


_Side = Annotated[int, Field(ge=1, lt=2**40)]
_Box = Annotated[tuple[_Side, _Side, _Side], AfterValidator(_check_box)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class ImageLayout(Schema):
    """How a converted image is stored; axes are (z, y, x).

    Attributes
    ----------
    version
        Of OME-Zarr.
    shape, dtype
        Voxels per axis, and their type.
    ndim
        2 for an image, 3 for a volume.
    block, chunk
        Voxels per axis of a block (one shard, or the chunks that one task writes), and of a chunk.
    compression
        As :func:`hrvol.volume.ome.compression.compression_of` returns it.
    reduction
        How coarser levels are computed; ``none``: there are none.
    voxel_size, translation, unit
        Of the finest level.
    """

    version: Literal["0.5", "0.4"]
    shape: tuple[_Side, _Side, _Side]
    dtype: Annotated[str, Field(max_length=20)]
    ndim: Literal[2, 3]
    block: _Box
    chunk: _Box
    compression: Annotated[str, Field(max_length=30)]
    reduction: Literal["mean", "mode", "none"]
    voxel_size: tuple[_Number, _Number, _Number]
    translation: tuple[_Number, _Number, _Number]
    unit: Annotated[str, Field(max_length=200)] | None

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Version of Zarr."""
        return 3 if self.version == "0.5" else 2

    @property
    def axes(self) -> str:
        """Axes of the arrays."""
        return "zyx"[-self.ndim :]

    @property
    def plan(self) -> ImagePlan:
        """The image, with the coarser levels to compute."""
        n = self.ndim
        first = Level("0", self.voxel_size[-n:], self.translation[-n:])
        if self.reduction == "none":
            return ImagePlan("", self.axes, self.unit, "mean", first, ())
        levels = plan_levels(self.shape[-n:], self.axes, first, self.block, chunk=self.chunk)
        reduction: Reduction = self.reduction
        return ImagePlan("", self.axes, self.unit, reduction, first, levels)


class _Provenance(Schema):
    layout: ImageLayout


@dataclass(frozen=True)
class ConvertedImage:
    """A converted image to write to; cheap to pickle, and opened on first use.

    Any number of processes may write at once if no two write to the same block.

    Attributes
    ----------
    location
        Location of the OME-Zarr group.
    layout
        How it is stored.
    """

    location: Location
    layout: ImageLayout

    @property
    def complete(self) -> bool:
        """Whether all blocks and coarser levels are done."""
        return provenance_of(self.location).get("complete") is True

    @property
    def block_shape(self) -> Shape3:
        """Voxels of a block, (z, y, x)."""
        return self.layout.block

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """The image, with the coarser levels to compute."""
        return (self.layout.plan,)

    def write(self, box: Box, values: npt.NDArray[Any]) -> None:
        """Write a box (z, y, x)."""
        write_box(self._array, box, values, str(self.location))

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return a box (z, y, x) of what is stored."""
        values: npt.NDArray[Any] = np.asarray(self._array[box[-self.layout.ndim :]])
        return values.reshape(box_shape(box))

    def keys(self, index: Shape3) -> tuple[str, ...]:
        """Return the keys of the objects of a block, given its index in the grid of blocks."""
        array, n = self._array, self.layout.ndim
        units = array.shards or array.chunks
        rows = []
        for i, step, unit, length in zip(index[-n:], self.block_shape[-n:], units, array.shape, strict=True):
            step = unit if step >= length else step  # one shard may be longer than the array
            start, stop = i * step, min((i + 1) * step, length)
            rows.append(range(start // unit, max(-(-stop // unit), start // unit + 1)))
        return tuple(f"{array.path}/{array.metadata.encode_chunk_key(place)}" for place in product(*rows))

    def object_checksums(self, indices: Sequence[Shape3]) -> list[tuple[str, ...]]:
        """Return a checksum of each object of each block; ``-`` for one that does not exist."""
        return self.location.checksums_of_groups([self.keys(index) for index in indices])

    def erase(self, index: Shape3, which: Sequence[bool] | None = None) -> None:
        """Delete a block, or some of its objects: their voxels are 0 again."""
        keys = self.keys(index)
        self.location.erase(keys if which is None else compress(keys, which))

    def make_level(self, image: int, level: int) -> None:
        """Create the empty array of a coarser level."""
        plan = self._level(level)
        make_level(self._group, plan, self._compressor)
        self.complete_array(plan.level.path)

    def complete_array(self, path: str) -> None:
        """Write what an interrupted creation of an array of Zarr 2 has left out."""
        key = f"{path}/.zattrs"
        if self.layout.zarr_format == 2 and self.location.read_json(key) is None:
            self.location.write_json(key, {})

    def make_part(self, image: int, level: int, part: int) -> None:
        """Compute one part of a coarser level; several processes may compute different parts."""
        make_part(self._group, self._level(level), part, self.images[image].reduction)

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change or add items of the provenance; one process at a time. What is incomplete is no image."""
        attributes = _attributes(self.location)
        provenance = {**attributes.get("hrvol", {}), **changes}
        if provenance.get("complete") is not True:
            attributes = {name: value for name, value in attributes.items() if name not in _IMAGE}
        _write_attributes(self.location, self.layout.zarr_format, {**attributes, "hrvol": provenance})

    def declare(self, *, complete: bool) -> None:
        """Make the group an image, if all of it is done."""
        if not complete:
            self.update({"complete": False})
            return
        plan, layout = self.images[0], self.layout
        name = Path(self.location.url).name.removesuffix(".zarr").removesuffix(".ome")
        kind = None if layout.reduction == "none" else layout.reduction
        entry = ome.write_multiscale(name, plan.axes, plan.unit, plan.resolutions, kind)
        attributes = _attributes(self.location)
        attributes["hrvol"] = {**attributes.get("hrvol", {}), "complete": True}
        if layout.zarr_format == 3:
            attributes["ome"] = {"version": ome.VERSION, "multiscales": [entry]}
        else:
            attributes["multiscales"] = [{"version": "0.4", **entry}]
        _write_attributes(self.location, layout.zarr_format, attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        return ConvertedImage, (self.location, self.layout)

    def _level(self, level: int) -> LevelPlan:
        return self.images[0].levels[level]

    @property
    def _compressor(self) -> Any:
        return compressor(self.layout.compression, self.layout.zarr_format)

    @cached_property
    def _group(self) -> zarr.Group:
        store = self.location.store(read_only=False)
        return zarr.open_group(store, mode="r+", zarr_format=self.layout.zarr_format)

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        array = self._group["0"]
        assert isinstance(array, zarr.Array)
        return array


def create_converted(
    location: Location, layout: ImageLayout, provenance: Mapping[str, Any]
) -> ConvertedImage:
    """Create an empty image, or complete the creation of one that has this layout.

    Parameters
    ----------
    location
        Of the OME-Zarr group.
    layout
        How it is stored.
    provenance
        Settings, ready for JSON; stored as ``attributes["hrvol"]``, with ``complete: false`` until
        :meth:`ConvertedImage.declare`.

    Raises
    ------
    OutputExistsError
        There is an array with another layout.
    """
    image, n = ConvertedImage(location, layout), layout.ndim
    if not provenance_of(location) or not _is_group(location, layout.zarr_format):
        attributes = {"hrvol": {**provenance, "layout": layout.model_dump(mode="json"), "complete": False}}
        _write_attributes(location, layout.zarr_format, attributes)
    shards, chunks = shard_and_chunk(layout.shape[-n:], layout.block[-n:], layout.chunk[-n:])
    properties: dict[str, Any] = {"shards": shards, "dimension_names": list(layout.axes)}
    if layout.zarr_format == 2:
        properties = {"shards": None, "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    ensure_array(
        image._group,
        "0",
        shape=layout.shape[-n:],
        dtype=np.dtype(layout.dtype),
        chunks=chunks,
        compressors=image._compressor,
        fill_value=0,
        **properties,
    )
    image.complete_array("0")
    return image


def provenance_of(location: Location) -> Mapping[str, Any]:
    """Return the provenance of a converted image, begun or complete; empty without one."""
    found = _attributes(location).get("hrvol")
    return found if isinstance(found, Mapping) and CONVERSION in found else {}


def layout_of(location: Location) -> ImageLayout:
    """Return the layout of a converted image; :class:`InputError` if it is damaged."""
    return validated(_Provenance, provenance_of(location), str(location)).layout


def check_converted(attributes: Mapping[str, Any], source: str) -> None:
    """Raise an :class:`InputError` if the attributes of a group are of an unfinished conversion."""
    found = attributes.get("hrvol")
    if isinstance(found, Mapping) and CONVERSION in found and found.get("complete") is not True:
        raise InputError(
            f"{source}: found an unfinished conversion, expected a finished one: run its command again"
        )


def _is_group(location: Location, zarr_format: int) -> bool:
    return location.read_json(MARK if zarr_format == 3 else ".zgroup") is not None


def _attributes(location: Location) -> dict[str, Any]:
    document = location.read_json(MARK)
    found = location.read_json(".zattrs") if document is None else document.get("attributes")
    return dict(found) if isinstance(found, Mapping) else {}


def _write_attributes(location: Location, zarr_format: int, attributes: Mapping[str, Any]) -> None:
    """Write the attributes of the group, which is created."""
    if zarr_format == 3:
        document = location.read_json(MARK) or {"zarr_format": 3, "node_type": "group"}
        location.write_json(MARK, {**document, "attributes": dict(attributes)})
        return
    location.write_json(".zattrs", attributes)  # first: an interrupted creation is known by them
    if not _is_group(location, 2):
        location.write_json(".zgroup", {"zarr_format": 2})
