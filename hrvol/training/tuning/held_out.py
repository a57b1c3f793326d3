"""Choose the tiles, stroke pixels and folds of a cross-validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import StrokeBlock, StrokePixels, choose_pixels
from hrvol.training.strokes import TrainingPair, sources_of, stroke_blocks
from hrvol.training.tuning.folds import UNUSED, Folds, split_strokes
from hrvol.volume.grid.tiling import core_side, window_side
from hrvol.volume.intensity import Window, common_window

FOLDS = 4
"""Three quarters of the strokes train, and there are few fits."""

PIXELS = 6000
"""Most pixels of all classes together: more pixels of the same strokes add little."""

TileKey = tuple[int, int, int, int]
"""A tile: image, z, and its row and column in the plane."""

_VALUES = 1 << 16  # more than any class value


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Pixels to cross-validate on.

    Attributes
    ----------
    pairs
        Volumes and their strokes.
    window
        Grey values (low, high) that become 0 and 1.
    pixels, folds
        The pixels, and the fold of each.
    weights
        Number of drawn pixels that each of :attr:`pixels` stands for, by class in rising order: ``(K,)``
        float64.
    tiles
        Number of tiles that hold the pixels.
    side
        Side of the largest tile, context included, in pixels.
    pixels_per_tile
        Pixels of the volumes per tile of a segmentation of all of them.
    description
        What is held out, in words.
    """

    pairs: Sequence[TrainingPair]
    window: Window
    pixels: StrokePixels
    folds: Folds
    weights: NDArray[np.float64]
    tiles: int
    side: int
    pixels_per_tile: float
    description: str

    @property
    def tested(self) -> int:
        """Number of pixels that are tested, each in one fold."""
        return int((self.folds.of >= 0).sum())


def hold_out(pairs: Sequence[TrainingPair], recipe: Recipe, seed: int, most_tiles: int) -> HeldOut:
    """Choose tiles and pixels, and split the pixels into folds.

    Parameters
    ----------
    pairs
        Volumes and their strokes.
    recipe
        Gives the intensity window, the tiles, and the most pixels of a class.
    seed
        Seed of all choices.
    most_tiles
        Most tiles to choose, more only where a class would be missing.

    Raises
    ------
    StrokesError
        No stroke pixels, one class only, or values that are no classes.
    """
    counts, drawn = _drawn_tiles(pairs, recipe.tiles, seed)
    chosen = choose_tiles(counts, most_tiles, seed)
    blocks = list(read_tiles(pairs, chosen, recipe.tiles))
    candidates, labels = drawn_pixels(blocks)
    split = split_strokes(candidates, labels, FOLDS, seed)
    _erase(blocks, candidates[split.of == UNUSED])
    cap = recipe.classifier.samples_per_class
    most = max(1, PIXELS // len(drawn))
    pixels = choose_pixels(blocks, most if cap is None else min(cap, most), seed, source=sources_of(pairs))
    folds = replace(split, of=split.of[indices_of(candidates, pixels.where)])
    sampled = np.bincount(np.searchsorted(list(drawn), pixels.labels), minlength=len(drawn))
    shapes = [pair.volume.shape for pair in pairs]
    all_tiles = sum(z * _tiles_per_plane(y, x, recipe.tiles) for z, y, x in shapes)
    read = {tile_of(row, shapes[row[0]], recipe.tiles) for row in pixels.where.tolist()}
    of = f" of {len(counts)}" if len(chosen) < len(counts) else ""
    return HeldOut(
        pairs=pairs,
        window=common_window([pair.volume for pair in pairs], recipe.intensity, recipe.seed),
        pixels=pixels,
        folds=folds,
        weights=np.array(list(drawn.values())) / np.maximum(sampled, 1),
        tiles=len(read),
        side=max(window_side(max(shape[1:]), recipe.tiles) for shape in shapes),
        pixels_per_tile=sum(math.prod(shape) for shape in shapes) / all_tiles,
        description=f"{len(pixels)} pixels in {len(chosen)}{of} tiles with strokes; {split.description}",
    )


def mean_iou_of(held_out: HeldOut, predicted: NDArray[np.uint16], test: NDArray[np.intp]) -> float:
    """Return the mean IoU over the classes of some pixels, with classes weighted by their drawn pixels.

    Parameters
    ----------
    held_out
        The truth.
    predicted
        ``(m,)`` class values.
    test
        ``(m,)`` indices of the pixels.
    """
    classes = sorted(held_out.pixels.drawn)
    true_index, predicted_index = (
        1 + np.searchsorted(classes, values) for values in (held_out.pixels.labels[test], predicted)
    )
    counts = Confusion.of(predicted_index, true_index, len(classes)).matrix
    return mean_iou(
        np.rint(1000 * counts * np.concatenate([[0.0], held_out.weights])[:, None]).astype(np.int64)
    )


def choose_tiles(counts: Mapping[TileKey, Mapping[int, int]], most: int, seed: int) -> list[TileKey]:
    """Choose tiles that have many pixels of every class, in many planes.

    Each time take the tile that adds most to the sum of the logarithms of the classes' pixels, divided by
    one more than the number of tiles already chosen in its plane.

    Parameters
    ----------
    counts
        Drawn pixels of each class in each tile.
    most
        Most tiles to choose, more only where a class would be missing.
    seed
        Decides between equals.
    """
    tiles = sorted(counts)
    classes = sorted({value for of_tile in counts.values() for value in of_tile})
    table = np.array([[counts[tile].get(value, 0) for value in classes] for tile in tiles], float)
    planes = np.unique([tile[:2] for tile in tiles], axis=0, return_inverse=True)[1].reshape(-1)
    rank = np.random.default_rng(seed).permutation(len(tiles))
    have, used = np.zeros(len(classes)), np.zeros(planes.max() + 1)
    chosen: list[int] = []
    while len(chosen) < len(tiles) and (len(chosen) < most or (have == 0).any()):
        gain = np.log1p(have + table) - np.log1p(have)
        if len(chosen) >= most:
            gain[:, have > 0] = 0  # only for the classes that are missing
        worth = gain.sum(axis=1) / (1 + used[planes])
        worth[chosen] = -1
        best = np.flatnonzero(worth == worth.max())
        number = int(best[np.argmin(rank[best])])
        chosen.append(number)
        have, used[planes[number]] = have + table[number], used[planes[number]] + 1
    return [tiles[number] for number in sorted(chosen)]


def _drawn_tiles(
    pairs: Sequence[TrainingPair], tiles: TileSpec, seed: int
) -> tuple[dict[TileKey, dict[int, int]], Mapping[int, int]]:
    """Return the drawn pixels of each class in each tile, and in all, in one pass over the strokes."""
    counts: dict[TileKey, dict[int, int]] = {}

    def counted() -> Iterator[StrokeBlock]:
        for block in stroke_blocks(pairs):
            yield block  # counted afterwards, because choose_pixels checks it
            _count(counts, block, pairs[block.image].volume.shape, tiles)

    pixels = choose_pixels(counted(), 1, seed, source=sources_of(pairs))
    return counts, pixels.drawn


def _count(counts: dict[TileKey, dict[int, int]], block: StrokeBlock, shape: Shape3, tiles: TileSpec) -> None:
    """Add the pixels of a piece of strokes to the counts of their tiles."""
    height, width = (core_side(side, tiles) for side in shape[1:])
    across = -(-shape[2] // width)
    for z, plane in enumerate(block.labels, start=block.origin[0]):
        y, x = np.nonzero(plane)
        tile = (y + block.origin[1]) // height * across + (x + block.origin[2]) // width
        keys, numbers = np.unique(tile * _VALUES + plane[y, x].astype(np.int64), return_counts=True)
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            of_tile = counts.setdefault((block.image, z, *divmod(key // _VALUES, across)), {})
            of_tile[key % _VALUES] = of_tile.get(key % _VALUES, 0) + number


def read_tiles(
    pairs: Sequence[TrainingPair], chosen: Sequence[TileKey], tiles: TileSpec
) -> Iterator[StrokeBlock]:
    """Yield the strokes in the cores of tiles."""
    for image, z, row, column in chosen:
        _, height, width = pairs[image].volume.shape
        spans = []
        for number, side in ((row, height), (column, width)):
            core = core_side(side, tiles)
            spans.append(slice(number * core, min(side, (number + 1) * core)))
        labels = pairs[image].strokes.read((slice(z, z + 1), spans[0], spans[1]))
        yield StrokeBlock(image, (z, spans[0].start, spans[1].start), labels)


def drawn_pixels(blocks: Sequence[StrokeBlock]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return all drawn pixels, ``(n, 4)`` in order of image, z, y, x, and their classes."""
    pixels, labels = [], []
    for block in blocks:
        inside = np.nonzero(block.labels)
        labels.append(block.labels[inside])
        image = np.full(len(inside[0]), block.image)
        zyx = (np.add(axis, start) for axis, start in zip(inside, block.origin, strict=True))
        pixels.append(np.stack([image, *zyx], axis=1))
    joined = np.concatenate(pixels).astype(np.int64)
    order = np.lexsort(joined.T[::-1])
    return joined[order], np.concatenate(labels)[order]


def _erase(blocks: Sequence[StrokeBlock], pixels: NDArray[np.int64]) -> None:
    """Set pixels ``(n, 4)`` of strokes to 0."""
    for block in blocks:
        zyx = pixels[:, 1:] - block.origin
        inside = (pixels[:, 0] == block.image) & ((zyx >= 0) & (zyx < block.labels.shape)).all(axis=1)
        block.labels[tuple(zyx[inside].T)] = 0


def indices_of(pixels: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the indices of some of the sorted pixels ``(n, 4)``."""
    sides = (pixels.max(axis=0) + 1).tolist()
    keys, some_keys = (np.ravel_multi_index(tuple(rows.T), sides) for rows in (pixels, some))
    return np.asarray(np.searchsorted(keys, some_keys), np.intp)


def tile_of(pixel: Sequence[int], shape: Shape3, tiles: TileSpec) -> TileKey:
    """Return the tile of a pixel: image, z, y, x."""
    image, z, y, x = pixel
    return image, z, y // core_side(shape[1], tiles), x // core_side(shape[2], tiles)


def _tiles_per_plane(height: int, width: int, tiles: TileSpec) -> int:
    return math.prod(-(-side // core_side(side, tiles)) for side in (height, width))
