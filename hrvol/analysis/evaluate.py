"""Two label volumes compared, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.progress import ProgressCallback, Tally
from hrvol.quality.matching import match_classes, purity
from hrvol.quality.metrics import Confusion
from hrvol.volume.grid.tiling import grid
from hrvol.volume.storage.location import located
from hrvol.volume.volume import class_info, open_labels

EVALUATE = (64, 512, 512)
"""Voxels (z, y, x) of labels compared at once."""


def evaluate_volumes(
    pred: Any,
    truth: Any,
    *,
    classes: Sequence[str] | None = None,
    match: bool = False,
    storage_options: Mapping[str, Any] | None = None,
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
        the metadata of ``pred``, else of ``truth``; of ``truth`` alone if classes are matched.
    match
        Take each predicted class for the true one that it overlaps best, one to one, before anything is
        scored: for classes found without labels. The matching is one for the whole of the volumes.
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
        class, ``None`` for a predicted class that is left over, whose voxels ``unlabelled`` includes) and
        ``purity`` (before matching; see :func:`hrvol.quality.matching.purity`).

    Raises
    ------
    InputError
        The shapes differ, or the truth has no labels.
    """
    pred, truth = located(pred, storage_options), located(truth, storage_options)
    found, true = open_labels(pred), open_labels(truth)
    if found.shape != true.shape:
        raise InputError(
            f"{found.source}: labels have shape {found.shape}, expected {true.shape} (Z, Y, X)"
            f" as {true.source}"
        )
    names: Sequence[str] | dict[int, str] | None = classes
    if names is None:
        # A name that a predicted class came with says nothing about the true class it is matched to.
        infos = (None if match else class_info(pred)) or class_info(truth) or ()
        names = {info.value: info.name for info in infos}
    total = Confusion(np.zeros((1, 1), np.int64))
    pieces = grid(found.shape, EVALUATE)
    tally = Tally(progress, "evaluate", math.prod(found.shape))
    for piece in pieces:
        total += Confusion.of(found.read(piece.core), true.read(piece.core))
        tally.finish(piece.index, math.prod(piece.shape))
    scored = total.matched() if match else total
    if classes is not None:  # as in training: a name for each value there is, or for each of 1, 2, ...
        counts = scored.matrix
        values = [int(v) for v in np.flatnonzero(counts.any(axis=0) | counts.any(axis=1)) if v]
        names = dict(zip(values, classes, strict=True)) if len(values) == len(classes) else classes
    figures = scored.to_dict(names)
    if match:
        of_value = dict(enumerate(figures["iou"], start=1))
        partner = match_classes(total.matrix)
        predicted = (int(v) for v in np.flatnonzero(total.matrix.any(axis=0)) if v)
        figures["matching"] = {str(v): of_value[partner[v]] if v in partner else None for v in predicted}
        figures["purity"] = purity(total.matrix)
    return figures
