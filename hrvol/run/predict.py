"""Labels of one block from its grey values: plane by plane, tile by tile, blended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.quality.metrics import SeamDisagreement, seam_disagreement
from hrvol.recipe import CrfSpec
from hrvol.run.classify import classify
from hrvol.segment.model import Model
from hrvol.specs import BATCH
from hrvol.volume.intensity import check_finite, to_unit
from hrvol.volume.store import Reader, Volume
from hrvol.volume.tiling import (
    Block,
    Box,
    Tile,
    blend_weight,
    box_shape,
    intersection,
    overlap_pairs,
    tiles_of,
    whole,
)

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in a part of a block.

    Attributes
    ----------
    labels
        ``(z, y, x)`` uint16 class values.
    probabilities
        ``(K, z, y, x)`` uint8, 255 = certain, or ``None``.
    uncertainty
        ``(z, y, x)`` uint8, 0 = certain, or ``None``.
    seams
        How far tiles disagreed where they overlap, before they were blended.
    """

    labels: NDArray[np.uint16]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None
    seams: SeamDisagreement


def read_window(
    volume: Volume, block: Block, part: Box, model: Model, reader: Reader | None = None
) -> NDArray[Any]:
    """Read the grey values that a part of a block is predicted from, context included.

    Parameters
    ----------
    volume, block, part, model
        As for :func:`predict_part`.
    reader
        As for :meth:`hrvol.volume.store.Volume.read`.

    Returns
    -------
    NDArray
        ``(z, y, x)``: the windows of all tiles that reach into the part.

    Raises
    ------
    InputError
        A grey value is not finite, or cannot be read.
    """
    bounds = _bounds(_views(block, part, volume.shape, model))
    raw = volume.read((part[0], *bounds), reader)
    check_finite(raw, volume.source, (part[0].start, bounds[0].start, bounds[1].start))
    return raw


def predict_part(
    raw: NDArray[Any],
    volume: Volume,
    block: Block,
    part: Box,
    model: Model,
    featuriser: Featuriser,
    *,
    crf: CrfSpec | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    mask: NDArray[np.bool_] | None = None,
    threads: int = 1,
    batch_size: int = BATCH,
    on_plane: Callable[[int], None] | None = None,
) -> Prediction:
    """Predict a part of a block, plane by plane, tile by tile, blending tiles of the block.

    Parameters
    ----------
    raw
        What :func:`read_window` returned for it.
    volume, block, part
        The voxels: ``part`` lies in the block.
    model, featuriser, crf, threads, batch_size
        As for :func:`hrvol.run.classify.classify`.
    probabilities, uncertainty
        What is wanted besides labels.
    mask
        ``(z, y, x)`` of the part: where it is false everything stays 0, and planes without it are left out.
    on_plane
        Called with the number of planes done.
    """
    views = _views(block, part, volume.shape, model)
    top, left = (bound.start for bound in _bounds(views))
    neighbours = [(i, j) for i, j, _ in overlap_pairs([view.tile for view in views])]
    seams = SeamDisagreement()
    depth, height, width = box_shape(part)
    values = np.asarray([info.value for info in model.classes], np.uint16)
    labels = np.zeros((depth, height, width), np.uint16)
    several = (len(values), depth, height, width)
    chances = np.zeros(several, np.uint8) if probabilities else None
    doubts = np.zeros((depth, height, width), np.uint8) if uncertainty else None
    for k in range(depth):
        if mask is None or mask[k].any():
            found = []
            for view in views:
                y0, y1, x0, x1 = view.tile.window
                image = to_unit(raw[k, y0 - top : y1 - top, x0 - left : x1 - left], model.window)
                found.append(
                    classify(
                        image,
                        view.in_window,
                        model,
                        featuriser,
                        crf=crf,
                        threads=threads,
                        batch_size=batch_size,
                    )
                )
            seams += _seams(views, found, neighbours)
            plane = _blend(views, found, (height, width))
            labels[k] = _likeliest(plane, values)
            if chances is not None:
                chances[:, k] = np.rint(255 * plane).astype(np.uint8)
            if doubts is not None:
                doubts[k] = np.rint(255 * entropy(np.moveaxis(plane, 0, -1))).astype(np.uint8)
        if on_plane is not None:
            on_plane(k + 1)
    if mask is not None:
        for written in (labels, chances, doubts):
            if written is not None:
                written[..., ~mask] = 0
    return Prediction(labels, chances, doubts, seams)


def _blend(
    views: Sequence[_View], found: Sequence[NDArray[np.float32]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the probabilities (K, y, x) of a plane from those of its tiles, which are (y, x, K).

    They add up to 1. Class by class, because along an axis as short as K numpy is many times slower.
    """
    if len(views) == 1:
        plane = np.ascontiguousarray(np.moveaxis(found[0], -1, 0))  # its weights are 1
    else:
        plane = np.zeros((found[0].shape[-1], *shape), np.float32)
        for view, proba in zip(views, found, strict=True):
            for whole_plane, of_tile in zip(plane, np.moveaxis(proba, -1, 0), strict=True):
                whole_plane[view.in_part] += view.weight * of_tile
    normalised: NDArray[np.float32] = plane / plane.sum(axis=0)  # the weights add up to 1 but for rounding
    return normalised


def _likeliest(plane: NDArray[np.float32], values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the values (y, x) of the classes with the highest probabilities (K, y, x); of equals, the first.

    Values ascend. A class at a time, as in :func:`_blend`.
    """
    labels = np.full(plane.shape[1:], values[0])
    highest = plane[0].copy()
    for value, proba in zip(values[1:], plane[1:], strict=True):
        np.maximum(labels, (proba > highest) * value, out=labels)
        np.maximum(highest, proba, out=highest)
    return labels


def _bounds(views: Sequence[_View]) -> tuple[slice, slice]:
    """Return the rows and columns that all windows together cover."""
    top, bottom = (end(view.tile.window[i] for view in views) for i, end in ((0, min), (1, max)))
    left, right = (end(view.tile.window[i] for view in views) for i, end in ((2, min), (3, max)))
    return slice(top, bottom), slice(left, right)


def label_plane(
    volume: Volume, z: int, model: Model, featuriser: Featuriser, *, crf: CrfSpec | None = None
) -> NDArray[np.uint16]:
    """Return the labels (Y, X) of one whole plane in memory: all its tiles, blended."""
    _, rows, columns = whole(volume.shape)
    part = (slice(z, z + 1), rows, columns)
    block = Block((0, 0, 0), part)
    raw = read_window(volume, block, part, model)
    labels: NDArray[np.uint16] = predict_part(raw, volume, block, part, model, featuriser, crf=crf).labels[0]
    return labels


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how unsure probabilities (..., K) are: entropy over log K, 0 sure, 1 all classes equal."""
    classes = probabilities.shape[-1]
    logs = np.log(np.maximum(probabilities, np.float32(1e-12)))
    share: NDArray[np.float32] = -(probabilities * logs).sum(axis=-1) / np.float32(np.log(max(classes, 2)))
    return np.clip(share, 0.0, 1.0)


@dataclass(frozen=True)
class _View:
    """A tile and the pixels of it that count in a part of a block.

    Attributes
    ----------
    tile
        The tile.
    in_window, in_part
        Those pixels, as slices of the tile's window and of the part's planes.
    weight
        Their blend weights, float32.
    """

    tile: Tile
    in_window: tuple[slice, slice]
    in_part: tuple[slice, slice]
    weight: NDArray[np.float32]


def _views(block: Block, part: Box, shape: tuple[int, int, int], model: Model) -> list[_View]:
    """Return the tiles that reach into a part of a block, blend ramps included."""
    views = []
    for tile in tiles_of(block, shape[1:], model.recipe.tiles):
        weight = blend_weight(tile, block)
        rows, columns = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
        y0, _, x0, _ = tile.window
        reach = (
            part[0],
            slice(y0 + int(rows[0]), y0 + int(rows[-1]) + 1),
            slice(x0 + int(columns[0]), x0 + int(columns[-1]) + 1),
        )
        shared = intersection(reach, part)
        if shared is None:
            continue
        in_window = (_shift(shared[1], y0), _shift(shared[2], x0))
        in_part = (_shift(shared[1], part[1].start), _shift(shared[2], part[2].start))
        views.append(_View(tile, in_window, in_part, np.ascontiguousarray(weight[in_window])))
    return views


def _shift(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)


def _seams(
    views: Sequence[_View], found: Sequence[NDArray[np.float32]], neighbours: Sequence[tuple[int, int]]
) -> SeamDisagreement:
    """Compare the probabilities (y, x, K) that neighbouring tiles give where both count."""
    total = SeamDisagreement()
    for i, j in neighbours:
        spans = zip(views[i].in_part, views[j].in_part, strict=True)
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in spans]
        if any(span.start >= span.stop for span in shared):
            continue
        a, b = (
            np.moveaxis(
                proba[tuple(_shift(s, o.start) for s, o in zip(shared, view.in_part, strict=True))], -1, 0
            )
            for view, proba in ((views[i], found[i]), (views[j], found[j]))
        )
        total += seam_disagreement(a.argmax(axis=0) + 1, b.argmax(axis=0) + 1, a, b)
    return total
