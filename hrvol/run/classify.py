"""A tile's pixels to probabilities: by a classifier trained on strokes, or by clusters; refined by a CRF.

Probabilities stay where the features are, on the CPU or on a GPU; but a CRF works on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, beside, namespace, to_host, where_is
from hrvol.recipe.specs import CrfSpec
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import refine, unary_from_probabilities
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier

if TYPE_CHECKING:
    from hrvol.features.deep.upsample import Linear
    from hrvol.features.featuriser import Featuriser

STRIPE = 64
"""Rows of a tile that are classified at once."""

Inside = tuple[slice, slice]
"""Rows and columns of a window."""


def classify(
    image: NDArray[np.float32],
    inside: Inside,
    model: Model,
    featuriser: Featuriser,
    *,
    crf: CrfSpec | None = None,
    threads: int = 1,
    batch_size: int = 4,
) -> Array:
    """Return the probabilities of the pixels inside a window.

    Parameters
    ----------
    image
        ``(Y, X)`` float32 in [0, 1], the whole window with its context.
    inside
        Which pixels of it are wanted.
    model, featuriser
        The model and its features.
    crf
        Refine with a CRF, which sees the context too.
    threads
        Threads that share a classifier's work.
    batch_size
        Images per pass of the network; fewer need less memory.

    Returns
    -------
    Array
        ``(y, x, K)`` float32, in order of classes; they add up to 1. NumPy's on the CPU and after a CRF, else
        of the device of the features. In memory each class is a plane: so they are used.
    """
    wanted = inside if crf is None else (slice(0, image.shape[0]), slice(0, image.shape[1]))
    if isinstance(model.classifier, ClusterClassifier):
        found = _by_clusters(image, wanted, model.classifier, featuriser, batch_size)
    else:
        found = _by_strokes(image, wanted, model.classifier, featuriser, threads, batch_size)
    if crf is None:
        return found
    refined = refine(unary_from_probabilities(to_host(found)), image, crf)[inside]
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(refined, -1, 0)), 0, -1)


def cluster_maps(clusters: ClusterClassifier, featuriser: Featuriser) -> dict[str, Linear]:
    """Return the maps from each kind of features to the scores of clusters."""
    import torch

    from hrvol.features.deep.upsample import Linear  # torch: only where features are made

    maps = {}
    for name, columns in featuriser.groups.items():
        weight, bias = clusters.linear(columns)
        maps[name] = Linear(torch.from_numpy(weight), torch.from_numpy(bias))
    return maps


def _by_clusters(
    image: NDArray[np.float32],
    wanted: Inside,
    clusters: ClusterClassifier,
    featuriser: Featuriser,
    batch_size: int,
) -> Array:
    scores = featuriser.scores(image, cluster_maps(clusters, featuriser), batch_size=batch_size)
    pixels = namespace(scores).moveaxis(scores, 0, -1)[(*wanted, ...)]
    if str(where_is(scores)) == "cpu":
        pixels = to_host(pixels)
    height, found = pixels.shape[0], None
    for row in range(0, height, STRIPE):
        rows = slice(row, min(row + STRIPE, height))
        stripe = pixels[rows, ...]
        if "deep" in featuriser.groups:
            start = wanted[0].start
            inside = slice(start + rows.start, start + rows.stop)
            place = clusters.position_scores(featuriser.groups["deep"], inside, wanted[1], image.shape[:2])
            stripe = stripe if place is None else stripe - beside(place, stripe)
        found = _put(found, rows, clusters.class_probabilities(stripe), height)
    return _pixel_by_pixel(found)


def _by_strokes(
    image: NDArray[np.float32],
    wanted: Inside,
    classifier: PixelClassifier,
    featuriser: Featuriser,
    threads: int,
    batch_size: int,
) -> Array:
    height = wanted[0].stop - wanted[0].start
    found = None
    for rows, features in featuriser.stripes(image, wanted, rows=STRIPE, batch_size=batch_size):
        *pixels, channels = features.shape
        xp = namespace(features)
        proba = classifier.predict_proba(xp.reshape(features, (-1, channels)), threads=threads)
        found = _put(found, rows, xp.reshape(proba, (*pixels, len(classifier.classes))), height)
    return _pixel_by_pixel(found)


def _put(planes: Array | None, rows: slice, proba: Array, height: int) -> Array:
    """Write the probabilities (y, x, K) of a stripe into planes (K, y, x), made with the first one."""
    xp = namespace(proba)
    if planes is None:
        _, width, classes = proba.shape
        planes = xp.empty((classes, height, width), dtype=xp.float32, device=where_is(proba))
    planes[:, rows, :] = xp.moveaxis(proba, -1, 0)
    return planes


def _pixel_by_pixel(planes: Array) -> Array:
    """Return planes (K, y, x) as (y, x, K), without a copy."""
    return namespace(planes).moveaxis(planes, 0, -1)
