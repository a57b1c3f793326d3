"""Store the features of a region, reduced by a PCA."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.device import choose_device
from hrvol.engine.spec import EngineSpec
from hrvol.errors import UnreadableError, UsageError
from hrvol.features.projection import Projection, fit_projection
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.run.cache_choice import choose_cache
from hrvol.segment.model.model import current_versions
from hrvol.training.colour import recipe_for
from hrvol.training.sampling import sample_pixels
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.chunk_cache import chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.regions import region_tiles
from hrvol.volume.grid.tiling import Box, Tile, block_shape, box_shape
from hrvol.volume.guard import file_or_none, keep_inputs
from hrvol.volume.input_state import changed_files, input_state
from hrvol.volume.intensity import common_window, to_unit
from hrvol.volume.ome.feature_array import create_features
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Reader, Volume, open_volume

LOG = logging.getLogger("hrvol.run")

DEFAULT_COMPONENTS = 16
"""Principal components that :func:`extract_features` keeps."""

PCA_PIXELS = 20_000

PCA_TILES = 16
"""The PCA sees this many pixels, from this many tiles, at most."""


@dataclass(frozen=True)
class FeaturesReport:
    """What was stored: the array's ``shape``, and the share of variance in it (``None``: all channels)."""

    shape: tuple[int, ...]
    explained: float | None


def extract_features(
    volume: Any,
    out: str | Path | Location,
    *,
    recipe: str | Path | Recipe | None = None,
    components: int | None = None,
    full: bool = False,
    attention: bool = False,
    roi: Region | None = None,
    overwrite: bool = False,
    scratch: str | Path | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> FeaturesReport:
    """Store the features of a region as one Zarr array.

    The features are those that a segmentation sees: the same tiles are read, and a pixel's features come
    from the tile whose core owns it.

    Parameters
    ----------
    volume
        A path, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``.
    out
        The Zarr to write: float32 ``(K, Z, Y, X)``, or ``(K, Y, X)`` for a 2D image.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``balanced``. Its intensity window is fitted on
        this volume.
    components
        Principal components to keep, of standardised features; ``None``: 16. The PCA is fitted once, on
        pixels spread over the region.
    full
        Keep every channel instead.
    attention
        Add the attention of the network's CLS token, times uniform, one channel per head.
    roi
        ``(z, y, x)`` slices in voxels; ``None``: everything.
    overwrite
        Replace an output that exists.
    scratch
        As in :func:`segment_volume`.
    device
        As in :func:`train_model`.
    weights_path, offline, storage_options, progress
        As in :func:`segment_volume`.

    Returns
    -------
    FeaturesReport

    Raises
    ------
    UsageError
        More components are requested than there are channels, or attention without a network.
    OutputExistsError
        ``out`` exists already.
    """
    spec = Recipe.load(recipe)
    opened = open_volume(located(volume, storage_options))
    spec = recipe_for(spec, [opened])
    region = region_box(roi, opened)
    location = Location.of(out, storage_options)
    keep_inputs(location, opened, file_or_none(recipe), weights_path)
    if attention and not spec.features.uses_deep:
        raise UsageError("attention: classical features have none; use a deep or hybrid recipe")
    choice = choose_device(device)
    featuriser = load_features(spec.features, choice.device, WeightsSource.of(weights_path, offline))
    LOG.info("%s", choice)
    window = common_window([opened], spec.intensity, spec.seed)
    features = TileFeatures(featuriser, window, spec.tiles)
    channels, projection = list(featuriser.channels), None
    if not full:
        kept = min(DEFAULT_COMPONENTS, len(channels)) if components is None else components
        sample = sample_pixels(
            opened,
            region,
            features,
            pixels=PCA_PIXELS,
            most_tiles=PCA_TILES,
            seed=spec.seed,
            progress=progress,
        )
        projection = fit_projection(sample.features, kept)
        channels = [f"pca/{i}" for i in range(kept)]
    if attention and featuriser.backbone is not None:
        channels += [f"attention/{i}" for i in range(featuriser.backbone.heads)]
    state = input_state(opened, region)
    shape = (len(channels), *box_shape(region)[-opened.ndim :])
    explained = None if projection is None else float(projection.explained.sum())
    writer = create_features(
        location,
        shape,
        channels=channels,
        voxel_size=opened.voxel_size,
        unit=opened.unit,
        attributes={
            "recipe": spec.to_dict(),
            "versions": current_versions(),
            "weights_sha256": featuriser.weights_sha256,
            "window": list(window),
            "input": opened.identity(),
            "region": [[span.start, span.stop] for span in region],
            "explained_variance": None if projection is None else projection.explained.tolist(),
        },
        # Planes are written one by one, a tile at a time.
        chunk=(1, *block_shape(opened.shape, spec.tiles.model_copy(update={"across": 1}))[1:]),
        overwrite=overwrite,
    )
    reader = _reader(opened, region, spec.tiles, scratch)
    tally = Tally(progress, "features", math.prod(box_shape(region)))
    for owned, tile in region_tiles(opened.shape, region, spec.tiles):
        for z, values in tile_features(
            opened, owned, tile, features, projection, attention=attention, reader=reader
        ):
            box = (slice(z, z + 1), owned[1], owned[2])
            inside = [slice(s.start - r.start, s.stop - r.start) for s, r in zip(box, region, strict=True)]
            writer.write((inside[0], inside[1], inside[2]), values[:, None])
            tally.finish((z, tile.core), values[0].size)
    changed = changed_files(opened, state, input_state(opened, region))
    if changed:
        raise UnreadableError(f"{changed[0]}: found that it changed during the run, expected no change")
    writer.finish()
    return FeaturesReport(shape, explained)


def _reader(volume: Volume, region: Box, tiles: TileSpec, scratch: str | Path | None) -> Reader:
    """Return a reader that decodes each chunk of a volume about once, as tiles follow each other."""
    grid = BlockGrid(volume.shape, tiles.model_copy(update={"across": 1}), volume.chunks)
    numbers = np.sort(grid.inside(region))
    plan = choose_cache(volume, grid, numbers, region, EngineSpec(), scratch)
    if hint := plan.hint(volume.source):
        LOG.warning("%s", hint)
    cache, uses = plan.cache(), chunk_uses(grid, volume.chunks, region).along(volume.axes)
    return lambda array, selection: cache.read(array, selection, uses)


def tile_features(
    volume: Volume,
    owned: Box,
    tile: Tile,
    features: TileFeatures,
    projection: Projection | None,
    *,
    attention: bool = False,
    reader: Reader | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield plane number and features ``(K, y, x)`` float32 of the voxels that a tile owns, plane by plane.

    The heads' attention, if requested, follows the features.
    """
    featuriser = features.featuriser
    planes, rows, columns = owned
    y0, _, x0, _ = tile.window
    inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
    raw = volume.read((planes, *tile.window_slices), reader)
    _, height, width = box_shape(owned)
    for z, plane in zip(range(planes.start, planes.stop), raw, strict=True):
        image = to_unit(plane[None], features.window, source=volume.source, origin=(z, y0, x0))[0]
        values: Any = featuriser(image).numpy(force=True)[:, inside[0], inside[1]]
        if projection is not None:
            flat = np.moveaxis(values, 0, -1).reshape(height * width, -1)
            values = np.moveaxis(projection(flat).reshape(height, width, -1), -1, 0)
        if attention:
            heads = featuriser.upsampled(image, attention=True).attention
            assert heads is not None
            values = np.concatenate([values, heads[:, inside[0], inside[1]].numpy(force=True)])
        yield z, values
