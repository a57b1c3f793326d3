"""Check the request of a conversion, and create its output or find it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.arrays import Shape3
from hrvol.errors import InputError, OtherRunError, OutputExistsError
from hrvol.run.cache_choice import choose_cache
from hrvol.run.convert.convert_block import ConvertJob, block_grid
from hrvol.run.convert.options import ConvertOptions
from hrvol.run.convert.window import choose_window
from hrvol.run.ledger import check_free
from hrvol.run.resume import DIFFERENCES_SHOWN, differences, partition
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.grid.order import MOST_BLOCKS
from hrvol.volume.grid.tiling import Box, box_shape, whole
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.compression import DEFAULT
from hrvol.volume.ome.converted import (
    CONVERSION,
    ConvertedImage,
    ImageLayout,
    create_converted,
    layout_of,
    provenance_of,
)
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.output import clear_output
from hrvol.volume.region import region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, expect_grey, open_volume

SHARD, CHUNK = (64, 512, 512), (64, 64, 64)
"""Voxels (z, y, x) of shards and chunks of volumes."""

FLAT_SHARD, FLAT_CHUNK = (1, 2048, 2048), (1, 256, 256)
"""The same of images of one plane."""

DEPTHS = (64, 32, 16)
"""Planes of a shard to choose from where the input is stored in whole planes."""

_TYPES = ("biuf", 8)  # kinds and most bytes of a voxel


@dataclass(frozen=True)
class PreparedConversion:
    """A conversion that is checked and can start; nothing is written yet.

    Attributes
    ----------
    location
        Of the output.
    job
        What workers need; its store may not exist yet.
    attributes
        Provenance that the output will carry, besides its layout.
    """

    location: Location
    job: ConvertJob
    attributes: dict[str, Any] = field(repr=False)


def prepare_conversion(
    volume: Any, out: str | Path | Location, options: ConvertOptions
) -> PreparedConversion:
    """Check a request before anything is written; parameters as for :func:`convert`."""
    opened = open_volume(located(volume, options.storage_options), level=options.level)
    expect_grey(opened, "conversion writes one value per voxel (runs read colour files as they are)")
    location = Location.of(out, options.storage_options)
    region = region_box(options.roi, opened)
    position = _position(opened, region)
    check_scale(opened.source, *opened.voxel_size, *position)
    keep_inputs(location, opened, options.engine.scheduler_file)
    if opened.dtype.kind not in _TYPES[0] or opened.dtype.itemsize > _TYPES[1]:
        raise InputError(f"{opened.source}: found type {opened.dtype}, expected at most 64 bits per voxel")
    begun = None if options.overwrite or not provenance_of(location) else layout_of(location)
    block, chunk, cache = _boxes(opened, region, options, begun)
    image = options.image
    layout = ImageLayout(
        version=image.version,
        shape=box_shape(region),
        dtype="uint8" if image.uint8 is not None else opened.dtype.name,
        ndim=3 if opened.ndim == 3 else 2,
        block=block,
        chunk=chunk,
        compression=image.compression or DEFAULT,
        reduction=image.pyramid,
        voxel_size=_floats(opened.voxel_size),
        translation=position,
        unit=opened.unit,
    )
    for level in layout.plan.resolutions:
        check_scale(opened.source, *level.scale, *level.translation)
    if image.pyramid == "mode" and layout.dtype not in ("uint8", "uint16", "uint32", "uint64"):
        raise InputError(
            f"{opened.source}: found type {layout.dtype}, expected unsigned whole numbers for labels"
            " (pyramid mode)"
        )
    window = None if image.uint8 is None else choose_window(opened, image.uint8)
    attributes: dict[str, Any] = {
        CONVERSION: {
            "region": [[span.start, span.stop] for span in region],
            "level": options.level,
            "uint8": image.uint8,
            "window": None if window is None else list(window),
        },
        "input": opened.identity(),
    }
    z, y, x = (span.start for span in region)
    job = ConvertJob(opened, ConvertedImage(location, layout), (z, y, x), window, cache)
    return PreparedConversion(location, job, json.loads(json.dumps(attributes)))


def begin_conversion(prepared: PreparedConversion, options: ConvertOptions) -> bool:
    """Create the output, or find the one that is resumed; return whether it existed.

    Raises
    ------
    OtherRunError
        It was started with other settings; the message names the first differences.
    OutputExistsError
        The path holds something else, or (:class:`BusyError`) another driver is writing the output.
    """
    location = prepared.location
    if options.overwrite:
        check_free(location)
        clear_output(location, True)
    exists = find_conversion(prepared)
    create_converted(location, prepared.job.store.layout, prepared.attributes)
    return exists


def find_conversion(prepared: PreparedConversion) -> bool:
    """Return whether the output exists and was started with the same request; raise errors as above."""
    location, layout = prepared.location, prepared.job.store.layout
    stored = provenance_of(location)
    if not stored and location.occupied():
        raise OutputExistsError(
            f"{location}: exists already, expected nothing there or a conversion to resume"
        )
    if stored:
        now = {**prepared.attributes, "layout": layout.model_dump(mode="json")}
        kept: Mapping[str, Any] = {name: value for name, value in stored.items() if name in now}
        changed = list(differences(kept, now))
        if changed:
            more = len(changed) - DIFFERENCES_SHOWN
            shown = "; ".join(changed[:DIFFERENCES_SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise OtherRunError(
                f"{location}: found a conversion with other settings, expected the same to resume it: {shown}"
            )
    return bool(stored)


def _boxes(
    volume: Volume, region: Box, options: ConvertOptions, begun: ImageLayout | None
) -> tuple[Shape3, Shape3, CachePlan]:
    """Choose blocks and chunks, and where workers keep decoded chunks of the input."""
    flat = volume.ndim == 2 or volume.shape[0] == 1
    given = options.image
    shard, chunk = given.shards, given.chunks
    if begun is not None:  # memory may be another now
        shard, chunk = shard or begun.block, chunk or begun.chunk
    usual, usual_chunk = (FLAT_SHARD, FLAT_CHUNK) if flat else (SHARD, CHUNK)
    if shard is not None:
        return shard, chunk or usual_chunk, _cache(volume, region, shard, options)
    # Parts may begin at the same moment, on machines with more and with less memory.
    depths = usual[:1] if flat or options.part is not None else DEPTHS
    for depth in depths:
        deep = chunk or (min(usual_chunk[0], depth), *usual_chunk[1:])
        block = _shard_of(deep, (depth, *usual[1:]))
        cache = _cache(volume, region, block, options)
        if cache.enough:
            break
    return block, deep, cache


def _cache(volume: Volume, region: Box, block: Shape3, options: ConvertOptions) -> CachePlan:
    shape = box_shape(region)
    grid = block_grid(shape, block, volume.chunks)
    if (count := math.prod(grid.counts)) > MOST_BLOCKS:
        raise InputError(
            f"{volume.source}: found shape {shape}, {count:.2g} shards, expected at most {MOST_BLOCKS:,}:"
            " choose larger ones"
        )
    numbers = partition(grid.order(), options.part)
    return choose_cache(volume, grid, numbers, whole(shape), options.engine, options.scratch)


def _shard_of(chunk: Shape3, usual: Shape3) -> Shape3:
    """Return a multiple of a chunk, about as large as a usual shard, and not larger unless the chunk is."""
    sides = list(chunk)
    for axis in (2, 1, 0):
        most = math.prod(usual) * sides[axis] // math.prod(sides)
        count = min(-(-usual[axis] // chunk[axis]), most // chunk[axis])
        sides[axis] = chunk[axis] * max(count, 1)
    z, y, x = sides
    return z, y, x


def _position(volume: Volume, region: Box) -> tuple[float, float, float]:
    z, y, x = (
        float(start + span.start * size)
        for start, span, size in zip(volume.translation, region, volume.voxel_size, strict=True)
    )
    return z, y, x


def _floats(values: tuple[float, float, float]) -> tuple[float, float, float]:
    z, y, x = map(float, values)
    return z, y, x
