"""Predict the labels of a block from its grey values: plane by plane, tile by tile, blended.

A plane is blended and labelled on the device of its probabilities, the CPU or a GPU; only labels, and the
bytes of probabilities and uncertainty if requested, leave a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, Shape3, added_up, beside, most_likely, namespace, to_host, where_is
from hrvol.quality.calibration import tempered
from hrvol.quality.metrics import SeamDisagreement, seam_disagreement
from hrvol.recipe.specs import CrfSpec, TileSpec
from hrvol.run.classify import classify
from hrvol.run.options import PredictOptions
from hrvol.segment.class_weights import weighted
from hrvol.segment.model.model import Model
from hrvol.volume.grid.tiling import (
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
from hrvol.volume.intensity import check_finite, to_unit
from hrvol.volume.volume import Reader, Volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels of a box of a block, with what else was requested.

    Attributes
    ----------
    labels
        ``(z, y, x)`` class values, uint16 or uint8.
    probabilities
        ``(K, z, y, x)`` uint8, 255 = certain, or ``None``.
    uncertainty
        ``(z, y, x)`` uint8, 0 = certain, or ``None``.
    seams
        Disagreement of tiles where they overlap, before blending and class weights.
    """

    labels: NDArray[np.uint16 | np.uint8]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None
    seams: SeamDisagreement


def read_window(
    volume: Volume, block: Block, part: Box, model: Model, reader: Reader | None = None
) -> NDArray[Any]:
    """Read the grey values from which a box of a block is predicted, context included.

    Parameters
    ----------
    volume, block, part, model
        As for :func:`predict_part`.
    reader
        As for :meth:`hrvol.volume.volume.Volume.read`.

    Returns
    -------
    NDArray
        ``(z, y, x)``: the windows of all tiles that reach into the box.

    Raises
    ------
    InputError
        A grey value is not finite, or cannot be read.
    """
    box = window_box(block, part, volume.shape, model)
    raw = volume.read(box, reader)
    check_finite(raw, volume.source, (box[0].start, box[1].start, box[2].start))
    return raw


def window_box(block: Block, part: Box, shape: Shape3, model: Model) -> Box:
    """Return the voxels of a volume of this shape that :func:`read_window` reads."""
    return (part[0], *_bounds(part_views(block, part, shape, model.recipe.tiles)))


def predict_part(
    raw: NDArray[Any],
    volume: Volume,
    block: Block,
    part: Box,
    model: Model,
    featuriser: Featuriser,
    options: PredictOptions = PredictOptions(),
    *,
    mask: NDArray[np.bool_] | None = None,
    on_plane: Callable[[int], None] | None = None,
) -> Prediction:
    """Predict a box of a block, plane by plane, tile by tile, blending tiles of the block.

    Parameters
    ----------
    raw
        Grey values as returned by :func:`read_window`.
    volume, block, part
        The voxels: the box ``part`` lies in the block.
    model, featuriser
        The model and its features.
    options
        What to return besides labels, and how to compute.
    mask
        ``(z, y, x)`` of the box: where it is false everything stays 0; planes without any are skipped.
    on_plane
        Called with the number of planes done.
    """
    views = part_views(block, part, volume.shape, model.recipe.tiles)
    neighbours = [(i, j) for i, j, _ in overlap_pairs([view.tile for view in views])]
    seams = SeamDisagreement()
    depth, height, width = box_shape(part)
    values = [info.value for info in model.classes]
    labels = np.zeros((depth, height, width), np.uint16)
    constant: dict[Hashable, Array] = {}
    probabilities, uncertainty = None, None
    if options.probabilities:
        probabilities = np.zeros((len(values), depth, height, width), np.uint8)
    if options.uncertainty:
        uncertainty = np.zeros((depth, height, width), np.uint8)
    for k in range(depth):
        if mask is None or mask[k].any():
            tiles = _classified(raw[k], views, model, featuriser, options, constant)
            seams += _seams(views, tiles, neighbours)
            plane = blend_views(views, tiles, (height, width))
            if options.companion is not None:
                plane = (plane + beside(options.companion(k), plane)) / 2
            if options.class_factors is not None:
                # After blending and once per plane: unlike blending, the shift is not linear.
                plane = weighted(plane, options.class_factors)
            labels[k] = to_host(most_likely(plane, values))
            if probabilities is not None or uncertainty is not None:
                plane = tempered(plane, options.temperature)  # keeps the order of classes
            if probabilities is not None:
                probabilities[:, k] = to_host(as_bytes(plane))
            if uncertainty is not None:
                uncertainty[k] = to_host(as_bytes(entropy(plane)))
        if on_plane is not None:
            on_plane(k + 1)
    if mask is not None:
        for array in (labels, probabilities, uncertainty):
            if array is not None:
                array[..., ~mask] = 0
    return Prediction(labels, probabilities, uncertainty, seams)


def plane_probabilities(
    volume: Volume,
    z: int,
    block: Block,
    part: Box,
    model: Model,
    featuriser: Featuriser,
    options: PredictOptions = PredictOptions(),
) -> NDArray[np.float32]:
    """Return the probabilities ``(K, y, x)`` of a plane of a part of a block, before class weights.

    Parameters are those of :func:`predict_part`, whose labels are the most likely classes of these.
    """
    _, rows, columns = part
    part = (slice(z, z + 1), rows, columns)
    views = part_views(block, part, volume.shape, model.recipe.tiles)
    raw = read_window(volume, block, part, model)
    tiles = _classified(raw[0], views, model, featuriser, options, {})
    plane: NDArray[np.float32] = to_host(blend_views(views, tiles, box_shape(part)[1:]))
    return plane


def _classified(
    raw: NDArray[Any],
    views: Sequence[PartView],
    model: Model,
    featuriser: Featuriser,
    options: PredictOptions,
    constant: dict[Hashable, Array],
) -> list[Array]:
    """Return the probabilities (y, x, K) of tiles of a plane, of whose windows the grey values are given.

    Windows of one value, as around a round reconstruction, are classified once: ``constant`` keeps the
    probabilities by what they depend on.
    """
    top, left = (bound.start for bound in _bounds(views))
    tiles = []
    for view in views:
        y0, y1, x0, x1 = view.tile.window
        window = raw[y0 - top : y1 - top, x0 - left : x1 - left]
        key = _constant_key(window, view.in_window)
        found = None if key is None else constant.get(key)
        if found is None:
            found = classify(to_unit(window, model.window), view.in_window, model, featuriser, options)
            if key is not None:
                constant[key] = found
        tiles.append(found)
    return tiles


def _constant_key(window: NDArray[Any], inside: tuple[slice, slice]) -> Hashable:
    """Return what the probabilities inside a window of one value depend on; ``None`` if it has several."""
    first = window[0, 0]  # of a colour volume (3,)
    if (window[-1, -1] != first).any() or (window != first).any():
        return None
    return (first.tobytes(), window.shape, *((span.start, span.stop) for span in inside))


def blend_views(views: Sequence[PartView], tiles: Sequence[Array], shape: tuple[int, int]) -> Array:
    """Return the probabilities (K, y, x) of a plane from those of its tiles, which are (y, x, K).

    They add up to 1. Computed class by class, because numpy is many times slower along an axis as short as K;
    and in order, because then every library adds up the same bits.
    """
    xp = namespace(*tiles)
    if len(views) == 1:
        plane = xp.moveaxis(tiles[0], -1, 0)  # its weights are 1
    else:
        classes = tiles[0].shape[-1]
        plane = xp.zeros((classes, *shape), dtype=xp.float32, device=where_is(tiles[0]))
        for view, proba in zip(views, tiles, strict=True):
            weight = beside(view.weight, proba)
            for k in range(classes):
                plane[(k, *view.in_part)] += weight * proba[..., k]
    return plane / added_up(plane)  # the weights add up to 1 but for rounding


def entropy(plane: Array) -> Array:
    """Return the uncertainty of probabilities (K, ...): entropy over log K, 0 certain, 1 uniform."""
    xp = namespace(plane)
    lowest, zero, one = (
        xp.asarray(value, dtype=xp.float32, device=where_is(plane)) for value in (1e-12, 0.0, 1.0)
    )
    share = -added_up(plane * xp.log(xp.maximum(plane, lowest))) / float(np.log(max(plane.shape[0], 2)))
    return xp.minimum(xp.maximum(share, zero), one)


def as_bytes(shares: Array) -> Array:
    """Return shares in 0..1 as uint8 in 0..255, rounded."""
    xp = namespace(shares)
    return xp.astype(xp.round(255 * shares), xp.uint8)


def _bounds(views: Sequence[PartView]) -> tuple[slice, slice]:
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
    labels: NDArray[np.uint16] = predict_part(
        raw, volume, block, part, model, featuriser, PredictOptions(crf=crf)
    ).labels[0]
    return labels


@dataclass(frozen=True)
class PartView:
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


def part_views(block: Block, part: Box, shape: Shape3, tiles: TileSpec) -> list[PartView]:
    """Return the tiles that reach into a part of a block, blend ramps included."""
    found = (part_view(tile, block, part) for tile in tiles_of(block, shape[1:], tiles))
    return [view for view in found if view is not None]


def part_view(tile: Tile, block: Block, part: Box) -> PartView | None:
    """Return the pixels of a tile of a block that count in a part of it, or ``None``."""
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
        return None
    in_window = (_shift(shared[1], y0), _shift(shared[2], x0))
    in_part = (_shift(shared[1], part[1].start), _shift(shared[2], part[2].start))
    return PartView(tile, in_window, in_part, np.ascontiguousarray(weight[in_window]))


def _shift(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)


def _seams(
    views: Sequence[PartView], found: Sequence[Array], neighbours: Sequence[tuple[int, int]]
) -> SeamDisagreement:
    """Compare the probabilities (y, x, K) that neighbouring tiles give where both count."""
    total = SeamDisagreement()
    for i, j in neighbours:
        spans = zip(views[i].in_part, views[j].in_part, strict=True)
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in spans]
        if any(span.start >= span.stop for span in shared):
            continue
        a, b = (_planes_of(found[n], views[n], shared) for n in (i, j))
        numbers = range(1, a.shape[0] + 1)
        total += seam_disagreement(most_likely(a, numbers), most_likely(b, numbers), a, b)
    return total


def _planes_of(proba: Array, view: PartView, shared: Sequence[slice]) -> Array:
    """Return the probabilities (K, y, x) of pixels of the part, of a tile's (y, x, K)."""
    rows, columns = (_shift(span, start.start) for span, start in zip(shared, view.in_part, strict=True))
    return namespace(proba).moveaxis(proba[rows, columns, :], -1, 0)
