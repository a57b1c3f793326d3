"""Write the features of a region of interest as one Zarr array, channels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zarr

from hrvol.arrays import Shape3, Spacing3
from hrvol.volume.grid.tiling import Box, shard_and_chunk
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.output import CHANNELS_PER_SHARD, clear_output, write_box
from hrvol.volume.storage.location import Location


@dataclass(frozen=True)
class FeatureStore:
    """An array of features to write to; cheap to pickle. Concurrent writers must not share a shard."""

    location: Location

    def write(self, box: Box, features: npt.NDArray[Any]) -> None:
        """Write features (C, z, y, x) of a box (z, y, x); z is 1 for a 2D output."""
        write_box(self._array, box, features, str(self.location))

    def finish(self) -> None:
        """Mark the output as complete."""
        array = self.location.open_array(mode="r+")
        attributes: Any = array.attrs.asdict()["hrvol"]
        array.attrs["hrvol"] = {**attributes, "complete": True}

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStore, (self.location,)

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        return self.location.open_array(mode="r+")


def create_features(
    path: str | Path | Location,
    shape: tuple[int, ...],
    channels: Sequence[str],
    voxel_size: Spacing3,
    unit: str | None,
    attributes: Mapping[str, Any],
    chunk: Shape3,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
) -> FeatureStore:
    """Create an empty array of features: one Zarr array, not a group.

    Parameters
    ----------
    path
        Path or URL of the array to create.
    shape
        (C, Z, Y, X), or (C, Y, X) for an image.
    channels
        One name per channel.
    voxel_size, unit
        (z, y, x) and OME name, as for a volume.
    attributes
        Stored as ``attributes["hrvol"]``, with ``complete: false`` until :meth:`FeatureStore.finish`.
    chunk
        Shape (z, y, x) of the boxes that will be written, each by one writer.
    dtype
        Floating-point type.
    overwrite
        Whether to replace an earlier output of hrvol.

    Raises
    ------
    OutputExistsError, InputError
        As for :func:`hrvol.volume.ome.labels.create_labels`.
    """
    if len(channels) != shape[0]:
        raise ValueError(f"{path}: found {len(channels)} channel names for {shape[0]} channels")
    check_scale(str(path), *voxel_size)
    location = Location.of(path)
    clear_output(location, overwrite)
    spatial = len(shape) - 1
    shards, chunks = shard_and_chunk(shape[1:], chunk[-spatial:])
    zarr.create_array(
        location.store(read_only=False),
        shape=shape,
        dtype=dtype,
        chunks=(1, *chunks),
        shards=(min(shape[0], CHANNELS_PER_SHARD), *shards),
        fill_value=0,
        dimension_names=["c", *"zyx"[-spatial:]],
        zarr_format=3,
        attributes={
            "channels": list(channels),
            "voxel_size": list(voxel_size[-spatial:]),
            "unit": unit,
            "hrvol": {**attributes, "complete": False},
        },
    )
    return FeatureStore(location)
