"""Fit classes without labels: cluster a sample of pixels and merge the clusters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.classes import ClassInfo, default_classes
from hrvol.device import choose_device
from hrvol.errors import InputError, UsageError
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.segment.cluster_classifier import ClusterClassifier, fit_clusters
from hrvol.segment.model.model import Model
from hrvol.training.colour import recipe_for
from hrvol.training.position_field import position_field
from hrvol.training.sampling import sample_pixels
from hrvol.training.strokes import check_context
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.grid.tiling import Box, window_side
from hrvol.volume.intensity import common_window, sample_boxes
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, open_volume

LOG = logging.getLogger("hrvol.run")

IMAGE_RECIPE, VOLUME_RECIPE = "cas", "cas-volume"
"""Default presets where a plane fits one tile, and where it does not."""


def fit_classes(
    volume: Any,
    *,
    recipe: str | Path | Recipe | None = None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    seed: int | None = None,
    roi: Region | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Model:
    """Find the classes of a volume without labels (paper, section 3.2, algorithm 2).

    Pixels sampled from the whole volume are grouped into k-means clusters; clusters with high attention are
    foreground; clusters closer than the semantic distance are merged. The model holds the result, so a class
    means the same in every plane.

    Parameters
    ----------
    volume
        A path, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``cas`` if a plane fits one tile, else
        ``cas-volume``. Features may be of any kind; classical ones have no attention and need ``classes``.
    clusters, merge, classes, seed
        Override the recipe's ``cluster.clusters``, ``cluster.merge`` (lambda), ``cluster.classes`` and seed.
    roi
        Sample this region only, as ``(z, y, x)`` slices in voxels.
    device, weights_path, offline, storage_options, progress
        As in :func:`hrvol.train_model`.

    Returns
    -------
    Model
        For :func:`hrvol.segment_volume`. Classes are numbered in falling order of their share of the sample,
        and named ``background 1``, ``foreground 2``, ... by their attention.

    Raises
    ------
    InputError
        The volume cannot be read, has one grey value only, or fewer distinct pixels than clusters.
    UsageError
        More classes than clusters are requested, or features have no attention and ``classes`` is not given.
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU.
    """
    opened = open_volume(located(volume, storage_options))
    spec = cluster_recipe(
        default_recipe(opened) if recipe is None else recipe, clusters, merge, classes, seed
    )
    spec = recipe_for(spec, [opened])
    region = region_box(roi, opened)
    _check_structure(opened, region, spec.seed)
    if not spec.features.uses_deep and spec.cluster.classes is None:
        raise UsageError(
            "cluster: found classical features, which have no attention to merge clusters by; expected the"
            " number of classes (--classes N), or a deep recipe"
        )
    choice = choose_device(device)
    featuriser = load_features(spec.features, choice.device, WeightsSource.of(weights_path, offline))
    LOG.info("classes: %s", choice)
    check_context(featuriser, [opened], spec.tiles)
    window = common_window([opened], spec.intensity, spec.seed)
    features = TileFeatures(featuriser, window, spec.tiles)
    most_tiles = spec.cluster.sample_tiles
    sample = sample_pixels(
        opened,
        region,
        features,
        pixels=spec.cluster.samples,
        most_tiles=most_tiles,
        seed=spec.seed,
        unit=True,
        attention=spec.features.uses_deep,
        progress=progress,
    )
    field = position_field([(opened, region)], {opened: features}, spec, progress, most_tiles=most_tiles)
    values = sample.features
    if field is not None:
        values[:, featuriser.groups["deep"]] -= field.at(sample.places)
    count = len(values)
    if progress is not None:
        progress("fit", 0, count)
    classifier = fit_clusters(
        values,
        sample.attention,
        spec.cluster,
        directions=featuriser.groups.get("deep"),
        seed=spec.seed,
        source=opened.source,
        device=choice.device,
    )
    if progress is not None:
        progress("fit", count, count)
    return Model(
        recipe=spec,
        classes=name_clusters(classifier),
        window=window,
        classifier=replace(classifier, position=field),
        weights_sha256=featuriser.weights_sha256,
        channels=featuriser.channels,
        trained_on=(opened.identity() | {"pixels": count},),
    )


def default_recipe(volume: Volume) -> str:
    """Return the preset used without a recipe, which depends on whether a plane fits one tile."""
    tiles = Recipe.load(VOLUME_RECIPE).tiles
    fits = all(window_side(side, tiles) == side for side in volume.shape[1:])
    return IMAGE_RECIPE if fits else VOLUME_RECIPE


def cluster_recipe(
    recipe: str | Path | Recipe | None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """Return a recipe with settings overridden; :class:`hrvol.errors.RecipeError` if they are invalid."""
    spec = Recipe.load(IMAGE_RECIPE if recipe is None else recipe)
    settings = {"clusters": clusters, "merge": merge, "classes": classes}
    changes = spec.cluster.to_dict() | {name: value for name, value in settings.items() if value is not None}
    if merge is not None and classes is None:
        changes["classes"] = None
    spec = spec.with_(cluster=changes)
    return spec if seed is None else spec.with_(seed=seed)


def name_clusters(classifier: ClusterClassifier) -> tuple[ClassInfo, ...]:
    """Return names and colours of classes found without labels."""
    foreground = classifier.foreground
    attended = classifier.tally.attention is not None
    names = [
        f"{('foreground' if value in foreground else 'background') if attended else 'class'} {value}"
        for value in classifier.classes
    ]
    return default_classes(classifier.classes, names)


def _check_structure(volume: Volume, region: Box, seed: int) -> None:
    """Check that a region has more than one grey value: its clusters would be those of positions."""
    depth, height, width = (span.stop - span.start for span in region)
    first = None
    for box in sample_boxes((depth, height, width), seed):
        z, y, x = (
            slice(inner.start + span.start, inner.stop + span.start)
            for inner, span in zip(box, region, strict=True)
        )
        values = volume.read((z, y, x))
        first = values[0, 0, 0] if first is None else first
        if np.any(values != first):
            return
    raise InputError(
        f"{volume.source}: found one grey value ({first}) everywhere, expected structure"
        " (a large volume is sampled: --roi chooses where)"
    )
