"""Estimate the quality of the strokes' classifier by cross-validation, strokes kept together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.device import cpus
from hrvol.interactive.drawing import Drawn
from hrvol.interactive.lane import Gate
from hrvol.interactive.parts import TileParts
from hrvol.interactive.results import Quality
from hrvol.interactive.stages import Stage
from hrvol.interactive.stroke_rows import StrokeRows
from hrvol.quality.metrics import Confusion, iou_per_class
from hrvol.recipe.recipe import Recipe
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples, choose_listed
from hrvol.training.tuning.cost import trial_spec
from hrvol.training.tuning.folds import UNUSED, split_strokes
from hrvol.training.tuning.held_out import FOLDS, PIXELS


def cross_validate(
    parts: TileParts,
    rows: StrokeRows,
    stage: Stage,
    recipe: Recipe,
    drawn: Drawn,
    gate: Gate,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quality:
    """Return the IoU of each class on pixels of strokes that were held out.

    As :func:`hrvol.tune_recipe` scores a recipe: four folds of whole planes or strokes, at most 6000 pixels,
    forests of at most 50 trees.

    Parameters
    ----------
    parts, rows
        Features of tiles and of stroke pixels.
    stage
        Whose features are used.
    recipe
        The recipe.
    drawn
        The strokes.
    gate
        Checked between steps.
    progress
        Called with the number of steps done and of all steps.

    Raises
    ------
    StrokesError
        Fewer than two classes are drawn.
    """
    drawn.check()
    labels = drawn.painted.values
    split = split_strokes(drawn.pixels, labels, FOLDS, recipe.seed)
    used = split.of != UNUSED
    cap = recipe.classifier.samples_per_class
    most = max(1, PIXELS // len(drawn.values))
    pixels = choose_listed(
        drawn.pixels[used], labels[used], most if cap is None else min(cap, most), recipe.seed
    )
    order = _key(pixels.where, drawn.shape)
    fold = split.of[used][np.searchsorted(_key(drawn.pixels[used], drawn.shape), order)]
    missing = rows.collect(stage, pixels)[2]
    for number, tile in enumerate(missing):
        progress(number, len(missing) + FOLDS)
        parts.prepare(stage, tile, gate)
        rows.collect(stage, pixels)  # before the memory is needed for other tiles
    features, known, _ = rows.collect(stage, pixels)
    values, fold = pixels.labels[known], fold[known]
    featuriser = parts.load(stage.features)
    index = 1 + np.searchsorted(drawn.values, values)
    counts = Confusion.of(np.empty(0, np.int64), np.empty(0, np.int64), len(drawn.values))
    for number in range(FOLDS):
        gate.check()
        progress(len(missing) + number, len(missing) + FOLDS)
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(test) or len(np.unique(values[train])) < 2:
            continue
        samples = Samples(features[train], values[train], np.zeros(len(train), np.int32))
        classifier = PixelClassifier.fit(
            samples,
            trial_spec(recipe.classifier),
            combine=recipe.combine,
            groups=featuriser.groups,
            grey=featuriser.grey,
            seed=recipe.seed,
            n_jobs=cpus(),
        )
        predicted = 1 + np.searchsorted(drawn.values, classifier.predict(features[test], threads=cpus()))
        counts += Confusion.of(predicted, index[test], len(drawn.values))
    matrix = counts.matrix.astype(float)
    sampled = np.bincount(index, minlength=len(drawn.values) + 1)[1:]
    drawn_of = np.array([np.count_nonzero(labels == value) for value in drawn.values])
    weights = np.concatenate([[0.0], drawn_of / np.maximum(sampled, 1)])
    iou = iou_per_class(np.rint(1000 * matrix * weights[:, None]).astype(np.int64))
    tested = matrix.sum(axis=1)[1:] > 0
    iou = np.where(tested, iou, np.nan)
    mean = float(np.nanmean(iou)) if tested.any() else float("nan")
    description = f"{len(values)} pixels; {split.description}"
    return Quality(drawn.infos(), tuple(float(v) for v in iou), mean, description, drawn.version)


def _key(where: NDArray[np.int64], shape: Shape3) -> NDArray[np.int64]:
    """Return a number for each pixel ``(n, 4)`` that rises with z, y, x."""
    _, height, width = shape
    keys: NDArray[np.int64] = (where[:, 1] * height + where[:, 2]) * width + where[:, 3]
    return keys
