"""Writing arrays of features, for a region of interest: one Zarr array, channels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zarr

from hrvol.arrays import Spacing3
from hrvol.volume.grid.tiling import Box, shard_and_chunk
from hrvol.volume.ome.output import CHANNELS_PER_SHARD, clear_output, write_box
from hrvol.volume.storage.location import Location


@dataclass(frozen=True)
class FeatureStore:
    """An array of features that is being written; cheap to pickle. Writers must not share a chunk."""

    location: Location

    def write(self, box: Box, features: npt.NDArray[Any]) -> None:
        """Write features (C, z, y, x) of a box (z, y, x); for a 2D output z is 1."""
        write_box(self._array, box, features, str(self.location))

    def finish(self) -> None:
        """Mark the output as complete."""
        array = self.location.open_array(mode="r+")
        said: Any = array.attrs.asdict()["hrvol"]
        array.attrs["hrvol"] = {**said, "complete": True}

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
    chunk: tuple[int, int, int],
    *,
    dtype: str = "float32",
    overwrite: bool = False,
) -> FeatureStore:
    """Create an empty array of features: one Zarr array, not a group.

    Parameters
    ----------
    path
        Of the array to make.
    shape
        (C, Z, Y, X), or (C, Y, X) for an image.
    channels
        A name for each channel.
    voxel_size, unit
        (z, y, x), as of a volume.
    attributes
        Stored as ``attributes["hrvol"]``, with ``complete: false`` until :meth:`FeatureStore.finish`.
    chunk
        Shape (z, y, x) of the boxes that will be written, each by one writer.
    dtype
        Floating-point type.
    overwrite
        Whether to delete a Zarr array or group that is in the way.

    Raises
    ------
    OutputExistsError
        As for :func:`create_labels`.
    """
    if len(channels) != shape[0]:
        raise ValueError(f"{path}: found {len(channels)} channel names for {shape[0]} channels")
    location = Location.of(path)
    clear_output(location, overwrite)
    spatial = len(shape) - 1
    shards, chunks = shard_and_chunk(shape[1:], chunk[-spatial:])
    few, one = min(shape[0], CHANNELS_PER_SHARD), 1
    zarr.create_array(
        location.store(read_only=False),
        shape=shape,
        dtype=dtype,
        chunks=(one, *chunks),
        shards=(few, *shards),
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
