"""From strokes to training samples: which tiles are read, and what is taken from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import RecipeError, StrokesError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import Samples, StrokeBlock, StrokePixels, collect_samples
from hrvol.volume.grid.tiling import Tile, blocks, grid, tiles_of
from hrvol.volume.intensity import Window, read_unit
from hrvol.volume.volume import Volume, class_info

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


SCAN = (64, 512, 512)
"""Voxels of strokes read at once, at most, per axis (z, y, x)."""


@dataclass(frozen=True)
class TrainingPair:
    """A volume and the strokes drawn on it, both (Z, Y, X)."""

    volume: Volume
    strokes: Volume


def check_pairs(pairs: Sequence[TrainingPair]) -> None:
    """Refuse strokes that do not fit their volume; the :class:`StrokesError` names both."""
    for pair in pairs:
        if pair.volume.shape != pair.strokes.shape:
            raise StrokesError(
                f"{pair.strokes.source}: strokes have shape {pair.strokes.shape}, expected"
                f" {pair.volume.shape} (Z, Y, X) as {pair.volume.source}"
            )


def check_context(featuriser: Featuriser, volumes: Sequence[Volume], tiles: TileSpec) -> None:
    """Refuse filters that reach further than the context of tiles: they would draw seams.

    Raises
    ------
    RecipeError
        A plane needs several tiles, and ``tiles.overlap`` is less than the filters' reach.
    """
    side = max(max(volume.shape[1:]) for volume in volumes)
    if featuriser.halo > tiles.overlap and side > tiles.core + 2 * tiles.overlap:
        raise RecipeError(
            f"tiles.overlap: filters reach {featuriser.halo} px, found an overlap of {tiles.overlap} px;"
            f" expected at least {featuriser.halo}, or smaller sigmas"
        )


def stroke_blocks(pairs: Sequence[TrainingPair]) -> Iterator[StrokeBlock]:
    """Yield the pieces of strokes in which something is drawn, reading one piece at a time."""
    for image, pair in enumerate(pairs):
        for piece in grid(pair.strokes.shape, SCAN):
            labels = pair.strokes.read(piece.core)
            if labels.any():
                z, y, x = (axis.start for axis in piece.core)
                yield StrokeBlock(image, (z, y, x), labels)


def gather(
    pairs: Sequence[TrainingPair],
    positions: StrokePixels,
    featuriser: Featuriser,
    window: Window,
    tiles: TileSpec,
    progress: ProgressCallback | None,
) -> Samples:
    """Return the features of the chosen pixels.

    They are the ones that a segmentation will see: the same tiles are read, and a pixel's features come
    from the tile whose core owns it. Tiles without a chosen pixel are not read.
    """
    layouts = [_tiles(pair.volume.shape, tiles) for pair in pairs]
    work = sum(
        sum(_area(tile) for tile, _ in _owners(layouts[image], y, x)) for image, _, y, x in positions.planes()
    )
    tally = Tally(progress, "features of strokes", work)

    def features_at(image: int, z: int, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        found = np.empty((len(y), len(featuriser.channels)), np.float32)
        for tile, mine in _owners(layouts[image], y, x):
            features = featuriser(read_unit(pairs[image].volume, z, tile, window))
            rows, columns = y[mine] - tile.window[0], x[mine] - tile.window[2]
            found[mine] = features[:, rows, columns].numpy(force=True).T
            tally.finish((image, z, tile.core), _area(tile))
        return found

    return collect_samples(positions, features_at)


def _tiles(shape: tuple[int, int, int], tiles: TileSpec) -> tuple[Tile, ...]:
    """Return the tiles of one plane of a volume."""
    plane = (1, shape[1], shape[2])
    return tuple(tile for block in blocks(plane, tiles) for tile in tiles_of(block, plane[1:], tiles))


def _owners(
    layout: Sequence[Tile], y: NDArray[Any], x: NDArray[Any]
) -> Iterator[tuple[Tile, NDArray[np.intp]]]:
    """Yield the tiles whose core owns some of the pixels, and the numbers of these pixels."""
    for tile in layout:
        y0, y1, x0, x1 = tile.core
        mine = np.flatnonzero((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
        if len(mine):
            yield tile, mine


def _area(tile: Tile) -> int:
    """Return the pixels of a tile's window."""
    height, width = tile.window_shape
    return height * width


def name_classes(
    values: Sequence[int], names: Sequence[str] | None, strokes: Sequence[Any]
) -> tuple[ClassInfo, ...]:
    """Return the classes to train: named by the user, else by the strokes' metadata, else numbered."""
    infos = default_classes(values, names)
    if names is not None:
        return infos
    known = {info.value: info for source in reversed(strokes) for info in class_info(source) or ()}
    return tuple(known.get(info.value, info) for info in infos)
