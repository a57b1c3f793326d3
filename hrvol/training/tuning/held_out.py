"""What a cross-validation on strokes sees: some tiles, some of their stroke pixels, and folds of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import StrokeBlock, StrokePixels, choose_pixels
from hrvol.training.strokes import TrainingPair, stroke_blocks
from hrvol.training.tuning.folds import UNUSED, Folds, deal_folds
from hrvol.volume.grid.tiling import core_side, window_side
from hrvol.volume.intensity import Window, common_window

FOLDS = 4
"""Enough that three quarters of the strokes train, few enough to fit quickly."""

PIXELS = 6000
"""Pixels of all classes together, at most: more of the same strokes tell little more."""

Place = tuple[int, int, int, int]
"""Where a tile is: image, z, and its row and column in the plane."""

_VALUES = 1 << 16  # of classes, at most


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Pixels to cross-validate on.

    Attributes
    ----------
    pairs, window
        Volumes with strokes, and the grey values that become 0 and 1.
    positions, folds
        The pixels, and the fold of each.
    weights
        Pixels drawn for each of :attr:`positions`, by class in rising order: ``(K,)`` float64.
    windows
        Windows of tiles that hold the pixels.
    side
        Of the largest window, pixels.
    pixels_per_window
        Pixels of the volumes, for each window that segmenting all of them takes.
    how
        What was held out, in words.
    """

    pairs: Sequence[TrainingPair]
    window: Window
    positions: StrokePixels
    folds: Folds
    weights: NDArray[np.float64]
    windows: int
    side: int
    pixels_per_window: float
    how: str

    @property
    def tested(self) -> int:
        """Pixels that are tested, each in one fold."""
        return int((self.folds.of >= 0).sum())


def hold_out(pairs: Sequence[TrainingPair], recipe: Recipe, seed: int, most_tiles: int) -> HeldOut:
    """Choose tiles and pixels, and deal these to folds.

    Parameters
    ----------
    pairs
        Volumes and their strokes.
    recipe
        For the intensity window, the tiles, and the cap on pixels of a class.
    seed
        Of the choices.
    most_tiles
        So many tiles, unless there are fewer with strokes or it takes more to see every class.

    Raises
    ------
    StrokesError
        Nothing is drawn, or one class only, or what is drawn are no classes.
    """
    counts, drawn = _drawn_tiles(pairs, recipe.tiles, seed)
    chosen = choose_tiles(counts, most_tiles, seed)
    blocks = list(_read(pairs, chosen, recipe.tiles))
    where, labels = _pixels(blocks)
    dealt = deal_folds(where, labels, FOLDS, seed)
    used = dealt.of != UNUSED
    _erase(blocks, where[~used])
    cap = recipe.classifier.samples_per_class
    most = max(1, PIXELS // len(drawn))
    positions = choose_pixels(blocks, most if cap is None else min(cap, most), seed, source=_sources(pairs))
    folds = Folds(dealt.of[_places(where, positions.where)], dealt.count, dealt.how)
    sampled = np.bincount(np.searchsorted(list(drawn), positions.labels), minlength=len(drawn))
    shapes = [pair.volume.shape for pair in pairs]
    tiles = sum(z * _per_plane(y, x, recipe.tiles) for z, y, x in shapes)
    read = {_place(row, shapes[row[0]], recipe.tiles) for row in positions.where.tolist()}
    of = f" of {len(counts)}" if len(chosen) < len(counts) else ""
    return HeldOut(
        pairs=pairs,
        window=common_window([pair.volume for pair in pairs], recipe.intensity, recipe.seed),
        positions=positions,
        folds=folds,
        weights=np.array(list(drawn.values())) / np.maximum(sampled, 1),
        windows=len(read),
        side=max(window_side(max(shape[1:]), recipe.tiles) for shape in shapes),
        pixels_per_window=sum(math.prod(shape) for shape in shapes) / tiles,
        how=f"{len(positions)} pixels in {len(chosen)}{of} tiles with strokes; {dealt.how}",
    )


def mean_iou_of(held_out: HeldOut, predicted: NDArray[np.uint16], test: NDArray[np.intp]) -> float:
    """Return the mean IoU over the classes of some pixels, in which classes count as much as they are drawn.

    Parameters
    ----------
    held_out
        The truth.
    predicted
        ``(m,)`` class values.
    test
        ``(m,)`` numbers of the pixels.
    """
    classes = sorted(held_out.positions.drawn)
    true, found = (
        1 + np.searchsorted(classes, values) for values in (held_out.positions.labels[test], predicted)
    )
    counts = Confusion.of(found, true, len(classes)).matrix
    return mean_iou(
        np.rint(1000 * counts * np.concatenate([[0.0], held_out.weights])[:, None]).astype(np.int64)
    )


def choose_tiles(counts: Mapping[Place, Mapping[int, int]], most: int, seed: int) -> list[Place]:
    """Choose tiles that show much of every class, in many planes.

    One by one, each time the tile that adds most to the logarithms of the classes' pixels, divided by one
    more than the tiles that its plane has already.

    Parameters
    ----------
    counts
        For each tile the pixels drawn of each class.
    most
        How many, more only where a class would be missing.
    seed
        Decides between equals.
    """
    places = sorted(counts)
    classes = sorted({value for of_tile in counts.values() for value in of_tile})
    table = np.array([[counts[place].get(value, 0) for value in classes] for place in places], float)
    planes = np.unique([place[:2] for place in places], axis=0, return_inverse=True)[1].reshape(-1)
    rank = np.random.default_rng(seed).permutation(len(places))
    have, used = np.zeros(len(classes)), np.zeros(planes.max() + 1)
    chosen: list[int] = []
    while len(chosen) < len(places) and (len(chosen) < most or (have == 0).any()):
        gain = np.log1p(have + table) - np.log1p(have)
        if len(chosen) >= most:
            gain[:, have > 0] = 0  # only for the classes that are missing
        worth = gain.sum(axis=1) / (1 + used[planes])
        worth[chosen] = -1
        best = np.flatnonzero(worth == worth.max())
        number = int(best[np.argmin(rank[best])])
        chosen.append(number)
        have, used[planes[number]] = have + table[number], used[planes[number]] + 1
    return [places[number] for number in sorted(chosen)]


def _drawn_tiles(
    pairs: Sequence[TrainingPair], tiles: TileSpec, seed: int
) -> tuple[dict[Place, dict[int, int]], Mapping[int, int]]:
    """Return the pixels drawn of each class in each tile, and in all, in one pass over the strokes."""
    counts: dict[Place, dict[int, int]] = {}

    def noted() -> Iterator[StrokeBlock]:
        for block in stroke_blocks(pairs):
            yield block  # first it is checked by whom it is yielded to
            _note(counts, block, pairs[block.image].volume.shape, tiles)

    positions = choose_pixels(noted(), 1, seed, source=_sources(pairs))
    return counts, positions.drawn


def _note(
    counts: dict[Place, dict[int, int]], block: StrokeBlock, shape: tuple[int, int, int], tiles: TileSpec
) -> None:
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


def _read(pairs: Sequence[TrainingPair], places: Sequence[Place], tiles: TileSpec) -> Iterator[StrokeBlock]:
    """Yield the strokes in tiles."""
    for image, z, row, column in places:
        _, height, width = pairs[image].volume.shape
        spans = []
        for number, side in ((row, height), (column, width)):
            core = core_side(side, tiles)
            spans.append(slice(number * core, min(side, (number + 1) * core)))
        labels = pairs[image].strokes.read((slice(z, z + 1), spans[0], spans[1]))
        yield StrokeBlock(image, (z, spans[0].start, spans[1].start), labels)


def _pixels(blocks: Sequence[StrokeBlock]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return where all drawn pixels are, ``(n, 4)`` in order of image, z, y, x, and their classes."""
    where, labels = [], []
    for block in blocks:
        at = np.nonzero(block.labels)
        labels.append(block.labels[at])
        where.append(
            np.stack(
                [
                    np.full(len(at[0]), block.image),
                    *(np.add(a, o) for a, o in zip(at, block.origin, strict=True)),
                ],
                1,
            )
        )
    everywhere = np.concatenate(where).astype(np.int64)
    order = np.lexsort(everywhere.T[::-1])
    return everywhere[order], np.concatenate(labels)[order]


def _erase(blocks: Sequence[StrokeBlock], where: NDArray[np.int64]) -> None:
    """Take pixels off strokes."""
    for block in blocks:
        at = where[:, 1:] - block.origin
        inside = (where[:, 0] == block.image) & ((at >= 0) & (at < block.labels.shape)).all(axis=1)
        block.labels[tuple(at[inside].T)] = 0


def _places(where: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where in sorted ``(n, 4)`` positions some of them are."""
    sides = (where.max(axis=0) + 1).tolist()
    keys, wanted = (np.ravel_multi_index(tuple(part.T), sides) for part in (where, rows))
    return np.asarray(np.searchsorted(keys, wanted), np.intp)


def _place(row: Sequence[int], shape: tuple[int, int, int], tiles: TileSpec) -> Place:
    image, z, y, x = row
    return image, z, y // core_side(shape[1], tiles), x // core_side(shape[2], tiles)


def _per_plane(height: int, width: int, tiles: TileSpec) -> int:
    """Return the tiles of a plane."""
    return math.prod(-(-side // core_side(side, tiles)) for side in (height, width))


def _sources(pairs: Sequence[TrainingPair]) -> str:
    return ", ".join(pair.strokes.source for pair in pairs)
