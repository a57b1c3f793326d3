"""Measure on images of which only strokes, or results of the paper, are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Stroked
from benchmarks.quality.contest import Contest, Entry
from benchmarks.quality.sampling import SAMPLING, plane_stripes, samples_of
from hrvol.quality.metrics import Confusion
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.strokes import Samples
from hrvol.volume.volume import open_volume


def leave_one_out(
    data: Stroked,
    featuriser: Any,
    classifiers: Mapping[str, ClassifierSpec],
    *,
    preset: str = "balanced",
    recipe: Recipe = SAMPLING,
    seed: int = 0,
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> dict[Entry, list[Confusion]]:
    """Train on the strokes of all images but one and compare with the strokes of that one, for each.

    Parameters
    ----------
    data
        Images and strokes.
    featuriser
        Of hybrid features.
    classifiers
        By name.
    preset, recipe, threads, log
        See :func:`benchmarks.quality.dense.measure_dense`.
    seed
        Of the classifiers and of the choice of at most ``samples_per_class`` pixels to train on.

    Returns
    -------
    dict
        Entry -> counts of each image left out.
    """
    # Training sets are capped after an image is left out, and tested on all of its stroke pixels.
    uncapped = recipe.with_(**{"classifier.samples_per_class": None})
    everything = samples_of(data.images, {seed: data.strokes}, featuriser, recipe=uncapped)[seed]
    found: dict[Entry, list[Confusion]] = {}
    for out in range(len(data.images)):
        log(f"{data.name}: {preset}: image {out + 1} of {len(data.images)} left out")
        apart = everything.image == out
        training = _capped(everything, np.flatnonzero(~apart), recipe.classifier.samples_per_class, seed)
        for name, spec in classifiers.items():
            contest = Contest.fit(
                training, featuriser.groups, spec, grey=featuriser.grey, seed=seed, threads=threads
            )
            for kind, labels in contest.predict(everything.features[apart], threads=threads).items():
                counted = Confusion.of(labels, everything.labels[apart], len(data.classes))
                found.setdefault(Entry(preset, kind, name), []).append(counted)
    return found


def label_image(
    data: Stroked,
    featuriser: Any,
    classifiers: Mapping[str, ClassifierSpec],
    *,
    seeds: Sequence[int],
    preset: str = "balanced",
    recipe: Recipe = SAMPLING,
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> dict[Entry, list[NDArray[np.uint8]]]:
    """Train on the strokes of the first image and label all of it.

    Parameters
    ----------
    data, featuriser, classifiers, preset, recipe, threads, log
        See :func:`leave_one_out`.
    seeds
        Of the classifiers, and of the choice of pixels where a class has more than the cap.

    Returns
    -------
    dict
        Entry -> labels ``(Y, X)`` uint8 with each seed.
    """
    strokes = dict.fromkeys(seeds, data.strokes)
    samples = samples_of(data.images, strokes, featuriser, recipe=recipe)
    contests = {
        (seed, name): Contest.fit(
            training, featuriser.groups, spec, grey=featuriser.grey, seed=seed, threads=threads
        )
        for seed, training in samples.items()
        for name, spec in classifiers.items()
    }
    volume = open_volume(data.images)
    maps: dict[tuple[Entry, int], NDArray[np.uint8]] = {}
    log(f"{data.name}: {preset}: labelling")
    for place, features in plane_stripes(volume, 0, featuriser, recipe=recipe):
        pixels = np.ascontiguousarray(features).reshape(-1, features.shape[-1])
        for (seed, name), contest in contests.items():
            for kind, labels in contest.predict(pixels, threads=threads).items():
                key = Entry(preset, kind, name), seed
                maps.setdefault(key, np.zeros(volume.shape[1:], np.uint8))
                maps[key][place] = labels.reshape(features.shape[:2])
    found: dict[Entry, list[NDArray[np.uint8]]] = {}
    for (entry, _), whole in maps.items():
        found.setdefault(entry, []).append(whole)
    return found


def _capped(samples: Samples, rows: NDArray[np.intp], per_class: int | None, seed: int) -> Samples:
    """Return some rows, at most ``per_class`` of a class, chosen at random."""
    rng = np.random.default_rng(seed)
    kept = []
    for value in np.unique(samples.labels[rows]):
        of_class = rows[samples.labels[rows] == value]
        more = per_class is not None and len(of_class) > per_class
        kept.append(rng.choice(of_class, per_class, replace=False) if more else of_class)
    chosen = np.sort(np.concatenate(kept))
    return Samples(samples.features[chosen], samples.labels[chosen], samples.image[chosen])
