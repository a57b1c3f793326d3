"""Compute the class probabilities of a tile's pixels: by a classifier or by clusters, refined by a CRF.

Probabilities stay on the device of the features, the CPU or a GPU; a CRF works on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, beside, namespace, to_host, where_is
from hrvol.run.options import PredictOptions
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import refine, unary_from_probabilities
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.student.student import StudentClassifier

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
    options: PredictOptions = PredictOptions(),
) -> Array:
    """Return the probabilities of the pixels inside a window.

    Parameters
    ----------
    image
        ``(Y, X)`` float32 in [0, 1], the whole window with its context.
    inside
        The pixels to classify.
    model, featuriser
        The model and its features.
    options
        CRF (which sees the context too), threads of the classifier, images per pass of the network.

    Returns
    -------
    Array
        ``(y, x, K)`` float32, in order of classes, with sum 1. NumPy's on the CPU and after a CRF, else on
        the device of the features. In memory each class is a plane, as later steps use them.
    """
    crf = options.crf
    pixels = inside if crf is None else (slice(0, image.shape[0]), slice(0, image.shape[1]))
    if isinstance(model.classifier, ClusterClassifier):
        proba = _by_clusters(image, pixels, model.classifier, featuriser, options.batch_size)
    else:
        assert not isinstance(model.classifier, StudentClassifier)  # it has no features
        proba = _by_strokes(image, pixels, model.classifier, featuriser, options)
    if crf is None:
        return proba
    refined = refine(unary_from_probabilities(to_host(proba)), image, crf)[inside]
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


def cluster_scores(
    image: NDArray[np.float32],
    inside: Inside,
    clusters: ClusterClassifier,
    featuriser: Featuriser,
    batch_size: int,
) -> Iterator[tuple[slice, Array]]:
    """Yield the scores of clusters of the pixels inside a window, stripe by stripe.

    Parameters are those of :func:`classify`.

    Yields
    ------
    tuple
        Rows inside, and their scores ``(rows, x, C)`` float32: the nearest cluster has the highest one.
    """
    scores = featuriser.scores(image, cluster_maps(clusters, featuriser), batch_size=batch_size)
    pixels = namespace(scores).moveaxis(scores, 0, -1)[(*inside, ...)]
    if str(where_is(scores)) == "cpu":
        pixels = to_host(pixels)
    height, start = pixels.shape[0], inside[0].start
    for row in range(0, height, STRIPE):
        rows = slice(row, min(row + STRIPE, height))
        stripe = pixels[rows, ...]
        if "deep" in featuriser.groups:
            in_window = slice(start + rows.start, start + rows.stop)
            position = clusters.position_scores(
                featuriser.groups["deep"], in_window, inside[1], image.shape[:2]
            )
            stripe = stripe if position is None else stripe - beside(position, stripe)
        yield rows, stripe


def _by_clusters(
    image: NDArray[np.float32],
    inside: Inside,
    clusters: ClusterClassifier,
    featuriser: Featuriser,
    batch_size: int,
) -> Array:
    height, planes = inside[0].stop - inside[0].start, None
    for rows, scores in cluster_scores(image, inside, clusters, featuriser, batch_size):
        planes = _put(planes, rows, clusters.class_probabilities(scores), height)
    return _pixel_by_pixel(planes)


def _by_strokes(
    image: NDArray[np.float32],
    inside: Inside,
    classifier: PixelClassifier,
    featuriser: Featuriser,
    options: PredictOptions,
) -> Array:
    height = inside[0].stop - inside[0].start
    planes = None
    for rows, features in featuriser.stripes(image, inside, rows=STRIPE, batch_size=options.batch_size):
        *pixels, channels = features.shape
        xp = namespace(features)
        proba = classifier.predict_proba(xp.reshape(features, (-1, channels)), threads=options.threads)
        planes = _put(planes, rows, xp.reshape(proba, (*pixels, len(classifier.classes))), height)
    return _pixel_by_pixel(planes)


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
