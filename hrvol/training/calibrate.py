"""Calibrate a classifier on strokes that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import StrokesError
from hrvol.progress import ProgressCallback, Tally
from hrvol.quality.calibration import Calibration, Reliability, temperature_for, tempered
from hrvol.recipe.recipe import Recipe
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.tuning.folds import UNUSED, Folds
from hrvol.training.tuning.pixel_folds import capped

PIXELS = 2000
"""Most pixels of a class that are used: the fits of the folds take no longer than that of the model."""


def calibrate(
    samples: Samples,
    folds: Folds,
    recipe: Recipe,
    groups: Mapping[str, slice],
    grey: Sequence[int],
    *,
    n_jobs: int = 1,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
) -> Calibration:
    """Fit a temperature on the probabilities of held-out strokes.

    A classifier with the settings of the recipe is fitted without each fold, and predicts that fold. One
    temperature is fitted to all these predictions. Its calibration error is measured with temperatures that
    were fitted without each fold in turn.

    Parameters
    ----------
    samples
        Training pixels.
    folds
        Of these pixels.
    recipe
        Settings of the classifier. With ``class_weight: balanced`` classes count the same here, too.
    groups, grey
        Columns of features, as for :meth:`hrvol.segment.pixel_classifier.PixelClassifier.fit`.
    n_jobs, device
        Of the fits.
    progress
        Called with stage, pixels done, all pixels.

    Raises
    ------
    StrokesError
        There are too few strokes to hold some out.
    """
    chosen = capped(samples.labels, folds.of != UNUSED, PIXELS, recipe.seed)
    features, labels, of = samples.features[chosen], samples.labels[chosen], folds.of[chosen]
    classes = np.unique(labels)
    tally = Tally(progress, "calibrate", int((of >= 0).sum()))
    probabilities, numbers, parts = [], [], []
    for fold in range(folds.count):
        train, test = np.flatnonzero(of != fold), np.flatnonzero(of == fold)
        if not len(test) or not np.array_equal(np.unique(labels[train]), classes):
            continue
        fitted = PixelClassifier.fit(
            Samples(features[train], labels[train], np.zeros(len(train), np.int32)),
            recipe.classifier,
            combine=recipe.combine,
            groups=groups,
            grey=grey,
            seed=recipe.seed,
            n_jobs=n_jobs,
            device=device,
        )
        probabilities.append(np.asarray(fitted.predict_proba(features[test], threads=max(n_jobs, 1))).T)
        numbers.append(np.searchsorted(classes, labels[test]))
        parts.append(np.full(len(test), fold))
        tally.finish(fold, len(test))
    if len(parts) < 2:
        raise StrokesError(
            f"calibration: found strokes for {len(parts)} folds ({folds.description}), expected two or more;"
            " draw more strokes of each class, or train without calibration"
        )
    found, true, part = np.concatenate(probabilities, axis=1), np.concatenate(numbers), np.concatenate(parts)
    weights = _weights(true, len(classes), balanced=recipe.classifier.class_weight == "balanced")
    target = np.eye(len(classes))[true].T
    after: Reliability | None = None
    for fold in np.unique(part):
        test = part == fold
        heat = temperature_for(found[:, ~test], target[:, ~test], weights[~test])
        of_fold = Reliability.of(tempered(found[:, test], heat), true[test], weights[test])
        after = of_fold if after is None else after + of_fold
    assert after is not None
    temperature = temperature_for(found, target, weights)
    before = Reliability.of(found, true, weights)
    return Calibration(temperature, before, after, len(true), folds.description)


def _weights(true: NDArray[np.intp], classes: int, *, balanced: bool) -> NDArray[np.float64]:
    """Return the weights of pixels, with mean 1."""
    if not balanced:
        return np.ones(len(true))
    counts = np.maximum(np.bincount(true, minlength=classes), 1)
    weights = 1 / counts[true]
    return np.asarray(weights / weights.mean(), np.float64)
