"""The story on one page: train on strokes, segment a volume, store features, compare labels.

Everything global (intensity window, classifier) is fitted once, on a sample, and frozen in the model. Then
each block of a volume is predicted on its own, by whatever engine, and written by the task that owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hrvol.device import choose_device, cpus
from hrvol.errors import UsageError
from hrvol.files import text
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import choose_pixels
from hrvol.training.strokes import (
    TrainingPair,
    check_context,
    check_pairs,
    gather,
    name_classes,
    stroke_blocks,
)
from hrvol.training.tuning.tune import AUTO, tune_recipe
from hrvol.volume.intensity import common_window
from hrvol.volume.storage.location import located
from hrvol.volume.volume import open_labels, open_volume

LOG = logging.getLogger("hrvol.run")


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
        :func:`hrvol.training.tuning.tune.tune_recipe` chooses in some five minutes.
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
    choice = choose_device(device)
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
    pairs = [TrainingPair(open_volume(volume), open_labels(strokes)) for volume, strokes in data]
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
