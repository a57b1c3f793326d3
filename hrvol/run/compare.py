"""Two label volumes compared, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.quality.metrics import Confusion
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.volume.store import class_info, open_labels
from hrvol.volume.tiling import grid

EVALUATE = (64, 512, 512)
"""Voxels (z, y, x) of labels compared at once."""


def evaluate_volumes(
    pred: Any,
    truth: Any,
    *,
    classes: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Compare two label volumes, block by block: neither is ever whole in memory.

    Parameters
    ----------
    pred, truth
        Paths (OME-Zarr with labels, Zarr, TIFF) or arrays of integers, of one shape. Where the truth is 0
        nothing is counted.
    classes
        Names in order of value: one for each value there is, or one for each of 1, 2, ... ``None``: those in
        the metadata of ``pred``, else of ``truth``.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    dict
        ``miou``, ``iou`` and ``dice`` (name -> value, ``None`` for a class that the truth lacks),
        ``accuracy``, ``confusion`` (rows: true class), ``unlabelled``.

    Raises
    ------
    InputError
        The shapes differ, or the truth has no labels.
    """
    found, true = open_labels(pred), open_labels(truth)
    if found.shape != true.shape:
        raise InputError(
            f"{found.source}: labels have shape {found.shape}, expected {true.shape} (Z, Y, X)"
            f" as {true.source}"
        )
    names: Sequence[str] | dict[int, str] | None = classes
    if names is None:
        infos = class_info(pred) or class_info(truth) or ()
        names = {info.value: info.name for info in infos}
    total = Confusion(np.zeros((1, 1), np.int64))
    pieces = grid(found.shape, EVALUATE)
    tally = Tally(progress, "evaluate", math.prod(found.shape))
    for piece in pieces:
        total += Confusion.of(found.read(piece.core), true.read(piece.core))
        tally.finish(piece.index, math.prod(piece.shape))
    if classes is not None:  # as in training: a name for each value there is, or for each of 1, 2, ...
        counts = total.matrix
        values = [int(v) for v in np.flatnonzero(counts.any(axis=0) | counts.any(axis=1)) if v]
        names = dict(zip(values, classes, strict=True)) if len(values) == len(classes) else classes
    return total.to_dict(names)
