"""Fit classes without labels: cluster a sample of pixels, merge the clusters, freeze them in a model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.classes import ClassInfo, default_classes
from hrvol.device import choose_device
from hrvol.errors import InputError, UsageError
from hrvol.files import text
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.segment.cluster_classifier import ClusterClassifier, fit_clusters
from hrvol.segment.model.model import Model
from hrvol.training.position_field import position_field
from hrvol.training.sampling import sample_pixels
from hrvol.training.strokes import check_context
from hrvol.volume.grid.tiling import Box, window_side
from hrvol.volume.intensity import common_window, sample_boxes
from hrvol.volume.region import Region, region_box
from hrvol.volume.volume import Volume, open_volume

LOG = logging.getLogger("hrvol.run")

IMAGE_RECIPE, VOLUME_RECIPE = "cas", "cas-volume"
"""Default for what fits one tile a plane, and for what does not."""


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
    progress: ProgressCallback | None = None,
) -> Model:
    """Find the classes of a volume without any labels (paper, section 3.2, algorithm 2).

    A sample of pixels, spread over the volume, is cut into clusters; their attention tells foreground from
    background, and they are merged up to the semantic distance. All that is frozen in the model, so that a
    class means the same in the first plane and in the last.

    Parameters
    ----------
    volume
        A path, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``cas`` if a plane fits one tile, else
        ``cas-volume``. Features may be of any kind; classical ones have no attention, so that ``classes``
        must be given.
    clusters, merge, classes, seed
        Override the recipe's ``cluster.clusters``, ``cluster.merge`` (lambda), ``cluster.classes`` and seed.
    roi
        Look at this region only, as ``(z, y, x)`` slices in voxels.
    device
        Where features are made, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees one.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Look for weights on this machine only.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    Model
        To be used in :func:`hrvol.segment_volume`. Classes are numbered in falling order of their share of
        the sample, and named ``background 1``, ``foreground 2``, ... by their attention.

    Raises
    ------
    InputError
        The volume cannot be read, shows one grey value only, or has fewer different pixels than clusters.
    UsageError
        More classes than clusters are asked for; or features without attention need ``classes``.
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    opened = open_volume(volume)
    spec = cluster_recipe(
        default_recipe(opened) if recipe is None else recipe, clusters, merge, classes, seed
    )
    region = region_box(roi, opened)
    _check_structure(opened, region, spec.seed)
    if not spec.features.uses_deep and spec.cluster.classes is None:
        raise UsageError(
            "cluster: classical features have no attention to tell how far to merge;"
            " expected the number of classes (--classes N), or a deep recipe"
        )
    choice = choose_device(device)
    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("classes: %s", choice)
    check_context(featuriser, [opened], spec.tiles)
    window = common_window([opened], spec.intensity, spec.seed)
    sample = sample_pixels(
        opened,
        region,
        featuriser,
        window,
        spec.tiles,
        pixels=spec.cluster.samples,
        most_tiles=spec.cluster.sample_tiles,
        seed=spec.seed,
        unit=True,
        attention=spec.features.uses_deep,
        progress=progress,
    )
    position = position_field(
        [(opened, region)],
        {opened: window},
        featuriser,
        spec,
        progress,
        most_tiles=spec.cluster.sample_tiles,
    )
    features = sample.features
    if position is not None:
        features[:, featuriser.groups["deep"]] -= position.at(sample.places)
    count = len(features)
    if progress is not None:
        progress("fit", 0, count)
    found = fit_clusters(
        features,
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
        classes=name_clusters(found),
        window=window,
        classifier=replace(found, position=position),
        weights_sha256=featuriser.weights_sha256,
        channels=featuriser.channels,
        trained_on=(opened.identity() | {"pixels": count},),
    )


def default_recipe(volume: Volume) -> str:
    """Return the preset where no recipe is given: by whether a plane fits one tile."""
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
    """Return a recipe with what was asked for; :class:`RecipeError` where that makes no sense."""
    spec = Recipe.load(IMAGE_RECIPE if recipe is None else recipe)
    wanted = {"clusters": clusters, "merge": merge, "classes": classes}
    changes = spec.cluster.to_dict() | {name: value for name, value in wanted.items() if value is not None}
    if merge is not None and classes is None:
        changes["classes"] = None
    spec = spec.with_(cluster=changes)
    return spec if seed is None else spec.with_(seed=seed)


def name_clusters(found: ClusterClassifier) -> tuple[ClassInfo, ...]:
    """Return names and colours for classes that nobody named."""
    front = found.foreground
    attended = found.tally.attention is not None
    names = [
        f"{('foreground' if value in front else 'background') if attended else 'class'} {value}"
        for value in found.classes
    ]
    return default_classes(found.classes, names)


def _check_structure(volume: Volume, region: Box, seed: int) -> None:
    """Refuse a region that shows one grey value only: its clusters would be those of positions."""
    shape = tuple(span.stop - span.start for span in region)
    first = None
    for box in sample_boxes((shape[0], shape[1], shape[2]), seed):
        z, y, x = (
            slice(part.start + span.start, part.stop + span.start)
            for part, span in zip(box, region, strict=True)
        )
        values = volume.read((z, y, x))
        first = values.flat[0] if first is None else first
        if np.any(values != first):
            return
    raise InputError(
        f"{volume.source}: found one grey value ({first}) everywhere, expected structure to see"
        " (a large volume is sampled: --roi chooses where)"
    )
