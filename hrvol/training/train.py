"""Train a pixel classifier on strokes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hrvol.backend import backend_versions
from hrvol.classes import ClassInfo
from hrvol.device import choose_device, cpus
from hrvol.features.choose_backend import choose_for_features
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model, current_versions
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import StrokePixels, choose_pixels
from hrvol.training.calibrate import calibrate as fit_calibration
from hrvol.training.colour import recipe_for
from hrvol.training.drift import drift_record
from hrvol.training.strokes import (
    TrainingPair,
    check_context,
    check_data,
    gather,
    name_classes,
    open_pairs,
    sources_of,
    stroke_blocks,
)
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.training.tuning.pixel_folds import fold_pixels
from hrvol.training.tuning.tune import AUTO, TuningResult, tune_recipe
from hrvol.volume.intensity import common_window

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
    backend: str = "auto",
    calibrate: bool = False,
    on_tuned: Callable[[TuningResult], None] | None = None,
    progress: ProgressCallback | None = None,
) -> Model:
    """Train a pixel classifier on strokes.

    Only tiles with strokes are read. The model holds one intensity window, which covers the windows of all
    training volumes, and applies it to whatever it segments. Colour volumes give a model of colour.

    Parameters
    ----------
    data
        Pairs of a volume and its strokes: paths, or numpy, Dask, xarray or Zarr arrays, ``(Z, Y, X)`` or
        ``(Y, X)``. Strokes are integers of the volume's shape, or a crop of it: 0 where nothing is drawn,
        classes from 1; or files of points, polygons, ROIs or an ilastik project: see
        :class:`hrvol.StrokesSource`.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``balanced``; ``auto`` for the one that
        :func:`hrvol.training.tuning.tune.tune_recipe` chooses in about five minutes.
    classes
        Names in order of value. ``None``: those in the strokes' file (OME-Zarr, ilastik project, drawings
        with named classes), else ``class 1``, ...
    seed
        Overrides the recipe's seed. Same data, recipe and seed give the same model (``auto``: the same recipe
        only if there is time for the same candidates).
    device
        Where features are computed, ``cpu``, ``cuda`` or ``auto``: a GPU if torch finds one.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Look for weights on this machine only.
    storage_options
        Keywords of the fsspec file system of URLs.
    backend
        What computes the network on the CPU, see :func:`hrvol.backend.choose_backend`; the model records it.
    calibrate
        Set ``classifier.calibration: temperature`` in the recipe: strokes are held out in turn, and a
        temperature is fitted to the probabilities that the classifier gives them. It changes probabilities
        and uncertainty, and no label.
    on_tuned
        Called with the result of tuning if the recipe is ``auto``, before training.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    Model
        For :func:`hrvol.segment_volume` or :func:`hrvol.save_model`.

    Raises
    ------
    InputError
        A volume or strokes cannot be used (:class:`StrokesError`: shapes differ, or there is one class only).
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU; or the backend is not installed.
    """
    check_data(data, "train")
    choice = choose_device(device)
    if recipe == AUTO:
        tuned = tune_recipe(
            data,
            seed=seed or 0,
            device=device,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            progress=progress,
        )
        if on_tuned is not None:
            on_tuned(tuned)
        recipe = tuned.recipe
    spec = Recipe.load(recipe)
    spec = spec if seed is None else spec.with_(seed=seed)
    if calibrate:
        spec = spec.with_(**{"classifier.calibration": "temperature"})
    pairs = open_pairs(data, storage_options, classes)
    volumes = [pair.volume for pair in pairs]
    spec = recipe_for(spec, volumes)
    pixels = choose_pixels(
        stroke_blocks(pairs), spec.classifier.samples_per_class, spec.seed, source=sources_of(pairs)
    )
    infos = name_classes(sorted(pixels.drawn), classes, [pair.strokes for pair in pairs])

    computing = choose_for_features(backend, choice.device, spec.features)
    weights = WeightsSource.of(weights_path, offline)
    featuriser = load_features(spec.features, choice.device, weights, computing.name)
    LOG.info("%s", choice)
    if spec.features.uses_deep:
        LOG.info("%s", computing)
    check_context(featuriser, volumes, spec.tiles)
    window = common_window(volumes, spec.intensity, spec.seed)
    features = TileFeatures(featuriser, window, spec.tiles)
    return fit_model(pairs, pixels, infos, spec, features, device=choice.device, progress=progress)


def fit_model(
    pairs: Sequence[TrainingPair],
    pixels: StrokePixels,
    classes: tuple[ClassInfo, ...],
    recipe: Recipe,
    features: TileFeatures,
    *,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
) -> Model:
    """Train a pixel classifier on chosen pixels of strokes.

    Parameters
    ----------
    pairs
        Volumes and their strokes.
    pixels
        Pixels to train on, from :func:`hrvol.segment.strokes.choose_pixels`.
    classes
        Those of the pixels.
    recipe
        All settings.
    features
        How the recipe's features are computed.
    device
        Where the classifier is fitted, see :meth:`hrvol.segment.pixel_classifier.PixelClassifier.fit`.
    progress
        Called with stage, voxels done, all voxels.
    """
    featuriser = features.featuriser
    samples = gather(pairs, pixels, features, progress)
    if progress is not None:
        progress("fit", 0, len(pixels))
    classifier = PixelClassifier.fit(
        samples,
        recipe.classifier,
        combine=recipe.combine,
        groups=featuriser.groups,
        grey=featuriser.grey,
        seed=recipe.seed,
        n_jobs=cpus(),
        device=device,
    )
    if progress is not None:
        progress("fit", len(pixels), len(pixels))
    folds = fold_pixels(pairs, pixels, recipe.tiles, recipe.seed)
    calibration = None
    if recipe.classifier.calibration == "temperature":
        calibration = fit_calibration(
            samples,
            folds,
            recipe,
            featuriser.groups,
            featuriser.grey,
            n_jobs=cpus(),
            device=device,
            progress=progress,
        )
    return Model(
        recipe=recipe,
        classes=classes,
        window=features.window,
        classifier=classifier,
        weights_sha256=featuriser.weights_sha256,
        channels=featuriser.channels,
        backend=featuriser.backend,
        versions=current_versions() | backend_versions(featuriser.backend),
        trained_on=tuple(
            pair.volume.identity()
            | {"strokes": pair.strokes.source, "samples": {str(k): n for k, n in samples.counts(i).items()}}
            for i, pair in enumerate(pairs)
        ),
        drift=drift_record(samples, pixels, folds, featuriser.groups, recipe.seed),
        calibration=calibration,
    )
