"""Record what the training pixels look like, and how far other pixels of their kind are from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hrvol.segment.drift import DriftRecord, FeatureCloud
from hrvol.segment.strokes import Samples, StrokePixels
from hrvol.training.tuning.folds import UNUSED, Folds
from hrvol.training.tuning.pixel_folds import capped

MARGIN = 1.2
"""A plane is far if its distance is larger than that of the farthest held-out strokes by this factor."""

PIXELS = 2000
"""Most pixels of a class that are used: more of the same strokes change little."""

FEWEST = 20
"""Fewest held-out pixels of a plane or a fold whose median counts."""


def drift_record(
    samples: Samples, pixels: StrokePixels, folds: Folds, groups: Mapping[str, slice], seed: int
) -> DriftRecord | None:
    """Describe the training pixels, and set the threshold by cross-validation.

    The threshold is :data:`MARGIN` times the largest median distance of strokes to those of the other folds:
    of the strokes of a plane, where whole planes are held out, else of a fold.

    Parameters
    ----------
    samples, pixels
        Features and positions of the training pixels.
    folds
        Of these pixels.
    groups
        Columns of each kind of features. Deep ones are described alone if there are any: filters change more
        with brightness and noise.
    seed
        Of the choice of pixels.

    Returns
    -------
    DriftRecord or None
        ``None`` if there are too few pixels to hold out.
    """
    deep = "deep" in groups
    columns = groups["deep"] if deep else slice(0, samples.features.shape[1])
    chosen = capped(samples.labels, folds.of != UNUSED, PIXELS, seed)
    features, labels, of = samples.features[chosen], samples.labels[chosen], folds.of[chosen]
    part = np.unique(pixels.where[chosen, :2], axis=0, return_inverse=True)[1].reshape(-1)
    medians = []
    for fold in range(folds.count):
        test = of == fold
        if len(np.unique(labels[~test])) < 2:
            continue
        cloud = FeatureCloud.of(features[~test], labels[~test], columns, standardise=not deep)
        if cloud is None:
            return None
        distances, place = cloud.distances(features[test]), part[test] if folds.of_planes else of[test]
        medians += [
            float(np.median(distances[place == one]))
            for one in np.unique(place)
            if np.count_nonzero(place == one) >= FEWEST
        ]
    cloud = FeatureCloud.of(features, labels, columns, standardise=not deep)
    if not medians or cloud is None:
        return None
    farthest = max(medians)
    return DriftRecord(cloud, MARGIN * farthest, farthest, folds.description)
