"""Copy volumes to OME-Zarr images with coarser levels."""

from __future__ import annotations

from pathlib import Path

import zarr

from hrvol.volume.grid.tiling import grid, shard_and_chunk
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.image import BLOCK
from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.output import clear_output
from hrvol.volume.ome.pyramid import ImagePlan, plan_levels, write_levels
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume, expect_grey, open_volume


def write_image(path: str | Path | Location, volume: Volume, *, overwrite: bool = False) -> Volume:
    """Copy a volume to an OME-Zarr image with coarser levels.

    Parameters
    ----------
    path
        Path or URL of the OME-Zarr group to create.
    volume
        The volume; its type, voxel size, unit and position are kept. One block is in memory at a time.
    overwrite
        Whether to replace an earlier output of hrvol.

    Returns
    -------
    Volume
        The copy.

    Raises
    ------
    InputError
        The voxel size is not finite.
    OutputExistsError
        The path is occupied: by anything without ``overwrite``, by anything but an output of hrvol with it.
    """
    expect_grey(volume, "copies have one value per voxel")
    check_scale(volume.source, *volume.voxel_size, *volume.translation)
    location = Location.of(path)
    clear_output(location, overwrite)
    n = volume.ndim
    axes, name = "zyx"[-n:], Path(location.url).name.removesuffix(".ome.zarr")
    first = Level("0", volume.voxel_size[-n:], volume.translation[-n:])
    shards, chunks = shard_and_chunk(volume.shape[-n:], BLOCK[-n:])
    group = zarr.create_group(
        location.store(read_only=False), zarr_format=3, attributes={"hrvol": {"complete": False}}
    )
    array = group.create_array(
        "0",
        shape=volume.shape[-n:],
        dtype=volume.dtype,
        chunks=chunks,
        shards=shards,
        fill_value=0,
        dimension_names=list(axes),
    )
    for block in grid(volume.shape, BLOCK):
        array[block.core[-n:]] = volume.read(block.core).reshape(block.shape[-n:])
    plan = ImagePlan("", axes, volume.unit, "mean", first, plan_levels(array.shape, axes, first, BLOCK))
    write_levels(group, plan)
    # Metadata last, so that an incomplete copy is not mistaken for an image.
    entry = ome.write_multiscale(name, axes, volume.unit, plan.resolutions, plan.reduction)
    group.attrs.update({"ome": {"version": ome.VERSION, "multiscales": [entry]}, "hrvol": {"complete": True}})
    return open_volume(location)
