"""A tile's pixels to probabilities: by a classifier trained on strokes, or by clusters; refined by a CRF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe import CrfSpec
from hrvol.segment.cas import ClusterClassifier
from hrvol.segment.crf import refine, unary_from_probabilities
from hrvol.segment.model import Model
from hrvol.segment.weak import PixelClassifier

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser
    from hrvol.features.upsample import Linear

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
) -> NDArray[np.float32]:
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
    NDArray[np.float32]
        ``(y, x, K)``, in order of classes; they add up to 1.
    """
    wanted = inside if crf is None else (slice(0, image.shape[0]), slice(0, image.shape[1]))
    if isinstance(model.classifier, ClusterClassifier):
        found = _by_clusters(image, wanted, model.classifier, featuriser, batch_size)
    else:
        found = _by_strokes(image, wanted, model.classifier, featuriser, threads, batch_size)
    if crf is None:
        return found
    return refine(unary_from_probabilities(found), image, crf)[inside]


def cluster_maps(clusters: ClusterClassifier, featuriser: Featuriser) -> dict[str, Linear]:
    """Return the maps from each kind of features to the scores of clusters."""
    import torch

    from hrvol.features.upsample import Linear  # torch: only where features are made

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
) -> NDArray[np.float32]:
    maps = cluster_maps(clusters, featuriser)
    scores = featuriser.scores(image, maps, batch_size=batch_size).numpy(force=True)
    pixels = np.moveaxis(scores, 0, -1)[wanted]
    height, width, _ = pixels.shape
    found = _class_by_class(height, width, len(clusters.classes))
    for row in range(0, len(found), STRIPE):
        stripe = pixels[row : row + STRIPE]
        if "deep" in featuriser.groups:
            start = wanted[0].start + row
            rows = slice(start, start + len(stripe))
            place = clusters.position_scores(featuriser.groups["deep"], rows, wanted[1], image.shape[:2])
            stripe = stripe if place is None else stripe - place
        found[row : row + STRIPE] = clusters.class_probabilities(stripe)
    return found


def _by_strokes(
    image: NDArray[np.float32],
    wanted: Inside,
    classifier: PixelClassifier,
    featuriser: Featuriser,
    threads: int,
    batch_size: int,
) -> NDArray[np.float32]:
    height, width = (span.stop - span.start for span in wanted)
    found = _class_by_class(height, width, len(classifier.classes))
    for rows, features in featuriser.stripes(image, wanted, rows=STRIPE, batch_size=batch_size):
        proba = classifier.predict_proba(features.reshape(-1, features.shape[-1]), threads=threads)
        found[rows] = proba.reshape(-1, width, len(classifier.classes))
    return found


def _class_by_class(height: int, width: int, classes: int) -> NDArray[np.float32]:
    """Return room for probabilities (y, x, K) in which each class is a plane of memory: so they are used."""
    return np.moveaxis(np.empty((classes, height, width), np.float32), 0, -1)
