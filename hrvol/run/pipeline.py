"""The story on one page: train on strokes, segment a volume, store features, compare labels.

Everything global (intensity window, classifier) is fitted once, on a sample, and frozen in the model. Then
each block of a volume is predicted on its own, by whatever engine, and written by the task that owns it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.errors import UsageError
from hrvol.recipe import Recipe
from hrvol.run.compare import evaluate_volumes
from hrvol.run.devices import choose
from hrvol.run.engine import cpus
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.run.region import fit_projection, tile_features
from hrvol.run.request import Region, keep_input, name_classes, region_box, text
from hrvol.run.sample import region_tiles, sample_pixels
from hrvol.run.segment import segment_volume
from hrvol.run.sweep import FailedBlock, SegmentReport
from hrvol.run.train import Drawn, check_context, check_pairs, common_window, gather, stroke_blocks
from hrvol.run.tune import AUTO, tune_recipe
from hrvol.segment.model import Model, current_versions
from hrvol.segment.weak import PixelClassifier, choose_pixels
from hrvol.volume.feature_array import create_features
from hrvol.volume.location import Location, located
from hrvol.volume.store import open_labels, open_volume
from hrvol.volume.tiling import block_shape, box_shape

__all__ = [
    "FailedBlock",
    "FeaturesReport",
    "SegmentReport",
    "evaluate_volumes",
    "extract_features",
    "segment_volume",
    "train_model",
]

LOG = logging.getLogger("hrvol.run")

DEFAULT_COMPONENTS = 16
"""Principal components that :func:`extract_features` keeps."""

PCA_PIXELS = 20_000
PCA_TILES = 16
"""The PCA sees this many pixels, from this many tiles, at most."""


def train_model(
    data: Sequence[tuple[Any, Any]],
    *,
    recipe: str | Path | Recipe | None = None,
    classes: Sequence[str] | None = None,
    seed: int | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Model:
    """Train a pixel classifier on strokes.

    Only tiles with strokes are read. The model holds one intensity window, which covers the windows of all
    training volumes, and applies it to whatever it segments.

    Parameters
    ----------
    data
        Pairs of a volume and its strokes: paths, or numpy, Dask, xarray or Zarr arrays, ``(Z, Y, X)`` or
        ``(Y, X)``. Strokes are integers of the volume's shape; 0 is not drawn, classes are 1 and above.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``balanced``; ``auto`` for the one that
        :func:`hrvol.run.tune.tune_recipe` chooses in some five minutes.
    classes
        Names in order of value. ``None``: those in the strokes' OME-Zarr metadata, else ``class 1``, ...
    seed
        Overrides the recipe's seed. Same data, recipe and seed give the same model (``auto``: the same recipe
        only if there is time for the same candidates).
    device
        Where features are made, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees one.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Look for weights on this machine only.
    storage_options
        Keywords of the fsspec file system of URLs.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    Model
        To be used in :func:`segment_volume`, or written with ``save_model``.

    Raises
    ------
    InputError
        A volume or strokes cannot be used (:class:`StrokesError`: they do not fit, or have one class only).
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    if not data:
        raise UsageError("train: found no volumes, expected pairs of a volume and its strokes")
    choice = choose(device)
    if recipe == AUTO:
        recipe = tune_recipe(
            data,
            seed=seed or 0,
            device=device,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            progress=progress,
        ).recipe
    spec = Recipe.load(recipe)
    spec = spec if seed is None else spec.with_(seed=seed)
    data = [(located(a, storage_options), located(b, storage_options)) for a, b in data]
    pairs = [Drawn(open_volume(volume), open_labels(strokes)) for volume, strokes in data]
    check_pairs(pairs)
    sources = ", ".join(pair.strokes.source for pair in pairs)
    positions = choose_pixels(
        stroke_blocks(pairs), spec.classifier.samples_per_class, spec.seed, source=sources
    )
    infos = name_classes(sorted(positions.drawn), classes, [strokes for _, strokes in data])

    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("%s", choice)
    check_context(featuriser, [pair.volume for pair in pairs], spec.tiles)
    window = common_window([pair.volume for pair in pairs], spec.intensity, spec.seed)
    samples = gather(pairs, positions, featuriser, window, spec.tiles, progress)
    if progress is not None:
        progress("fit", 0, len(positions))
    classifier = PixelClassifier.fit(
        samples,
        spec.classifier,
        combine=spec.combine,
        groups=featuriser.groups,
        grey=featuriser.grey,
        seed=spec.seed,
        n_jobs=cpus(),
        device=choice.device,
    )
    if progress is not None:
        progress("fit", len(positions), len(positions))
    return Model(
        recipe=spec,
        classes=infos,
        window=window,
        classifier=classifier,
        weights_sha256=featuriser.weights_sha256,
        channels=featuriser.channels,
        trained_on=tuple(
            pair.volume.identity()
            | {"strokes": pair.strokes.source, "samples": {str(k): n for k, n in samples.counts(i).items()}}
            for i, pair in enumerate(pairs)
        ),
    )


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
        More components are asked for than there are channels, or attention without a network.
    OutputExistsError
        ``out`` is in the way.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    spec = Recipe.load(recipe)
    opened = open_volume(located(volume, storage_options))
    region = region_box(roi, opened)
    location = Location.of(out, storage_options)
    keep_input(opened, location)
    if attention and not spec.features.uses_deep:
        raise UsageError("attention: classical features have none; use a deep or hybrid recipe")
    choice = choose(device)
    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("%s", choice)
    window = common_window([opened], spec.intensity, spec.seed)
    channels, projection = list(featuriser.channels), None
    if not full:
        kept = min(DEFAULT_COMPONENTS, len(channels)) if components is None else components
        sample = sample_pixels(
            opened,
            region,
            featuriser,
            window,
            spec.tiles,
            pixels=PCA_PIXELS,
            most_tiles=PCA_TILES,
            seed=spec.seed,
            progress=progress,
        )
        projection = fit_projection(sample.features, kept)
        channels = [f"pca/{i}" for i in range(kept)]
    if attention and featuriser.backbone is not None:
        channels += [f"attention/{i}" for i in range(featuriser.backbone.heads)]
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
    tally = Tally(progress, "features", math.prod(box_shape(region)))
    for owned, tile in region_tiles(opened.shape, region, spec.tiles):
        for z, found in tile_features(opened, owned, tile, featuriser, window, projection, attention):
            here = (slice(z, z + 1), owned[1], owned[2])
            inside = [slice(s.start - r.start, s.stop - r.start) for s, r in zip(here, region, strict=True)]
            writer.write((inside[0], inside[1], inside[2]), found[:, None])
            tally.finish((z, tile.core), found[0].size)
    writer.finish()
    return FeaturesReport(shape, explained)
