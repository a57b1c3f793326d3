"""Compare two label volumes, block by block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import class_names
from hrvol.errors import InputError
from hrvol.progress import ProgressCallback, Tally
from hrvol.quality.matching import match_classes, purity
from hrvol.quality.metrics import MOST_CLASSES, Confusion
from hrvol.volume.grid.tiling import Box, box_shape, grid
from hrvol.volume.storage.location import located
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.volume import Volume, class_info, open_labels

EVALUATE = (64, 512, 512)
"""Voxels (z, y, x) of labels compared at once."""

MOST_VOXELS = 2**44
"""Most voxels of labels to compare: all of them are read."""


def evaluate_volumes(
    pred: Any,
    truth: Any,
    *,
    classes: Sequence[str] | None = None,
    match: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Compare two label volumes, block by block: neither is held in memory as a whole.

    Parameters
    ----------
    pred, truth
        Paths (OME-Zarr with labels, Zarr, TIFF) or arrays of integers, of one shape; the truth may also be a
        crop, points, polygons, ROIs or an ilastik project, as strokes may: see :class:`hrvol.StrokesSource`.
        Voxels whose truth is 0 are not counted.
    classes
        Names in order of value: one for each value that occurs, or one for each of 1, 2, ... ``None``: those
        in the metadata of ``pred``, else of ``truth``; of ``truth`` alone if classes are matched.
    match
        Assign each predicted class to the true one that it overlaps best, one to one over the whole volume,
        before scoring: for classes found without labels.
    storage_options
        Keywords of the fsspec file system of URLs.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    dict
        ``miou``, ``iou`` and ``dice`` (name -> value, ``None`` for a class that the truth lacks),
        ``accuracy``, ``confusion`` (rows: true class), ``unlabelled``. With ``match``, these
        are after matching, and there are also ``matching`` (predicted value as a string -> name of the true
        class, ``None`` for an unmatched class, whose voxels ``unlabelled`` includes) and ``purity`` (before
        matching; see :func:`hrvol.quality.matching.purity`).

    Raises
    ------
    InputError
        The shapes differ, or the truth has no labels.
    """
    pred, truth = located(pred, storage_options), located(truth, storage_options)
    predicted = open_labels(pred)
    infos = (None if match else class_info(pred)) if classes is None else None
    given = classes if classes is not None else class_names(infos) if infos else None
    true = open_strokes(truth, predicted, names=given, storage_options=storage_options)
    if true.voxels > MOST_VOXELS:
        raise InputError(
            f"{true.source}: found shape {true.shape}, expected at most {MOST_VOXELS:.1e} voxels"
        )
    names: Sequence[str] | dict[int, str] | None = classes
    if names is None:
        # The name of a predicted class is not that of the true class it is matched to.
        names = {info.value: info.name for info in infos or true.classes or ()}
    total = Confusion(np.zeros((1, 1), np.int64))
    whole = (piece.core for piece in grid(predicted.shape, EVALUATE))
    boxes = list(whole if true.dense else true.boxes())  # of sparse strokes nothing else counts
    tally = Tally(progress, "evaluate", sum(math.prod(box_shape(box)) for box in boxes))
    for number, box in enumerate(boxes):
        total += Confusion.of(_classes_of(predicted, box), _classes_of(true, box))
        tally.finish(number, math.prod(box_shape(box)))
    scored = total.matched() if match else total
    if classes is not None:  # as in training: a name for each value that occurs, or for each of 1, 2, ...
        counts = scored.matrix
        values = [int(v) for v in np.flatnonzero(counts.any(axis=0) | counts.any(axis=1)) if v]
        names = dict(zip(values, classes, strict=True)) if len(values) == len(classes) else classes
    try:
        figures = scored.to_dict(names)
    except InputError as error:
        raise InputError(f"{predicted.source} against {true.source}: {error}") from None
    if match:
        name_of = dict(enumerate(figures["iou"], start=1))
        true_of = match_classes(total.matrix)
        occurring = (int(v) for v in np.flatnonzero(total.matrix.any(axis=0)) if v)
        figures["matching"] = {str(v): name_of[true_of[v]] if v in true_of else None for v in occurring}
        figures["purity"] = purity(total.matrix)
    return figures


def _classes_of(labels: Volume | Strokes, box: Box) -> NDArray[Any]:
    """Read a box of labels; counting needs memory for the square of the highest one."""
    values = labels.read(box)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > MOST_CLASSES:
        raise InputError(
            f"{labels.source}: found label {low if low < 0 else high}, expected 0 to {MOST_CLASSES}"
            " (classes, not objects)"
        )
    return values
