"""Read the tiles that hold strokes, and compute the features of the stroke pixels in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import RecipeError, StrokesError, UsageError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import Samples, StrokeBlock, StrokePixels, check_drawn, collect_samples
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import Tile
from hrvol.volume.storage.location import located
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.volume import Volume, open_volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True)
class TrainingPair:
    """A volume and the strokes drawn on it, both (Z, Y, X)."""

    volume: Volume
    strokes: Strokes


def open_pairs(
    data: Sequence[tuple[Any, Any]],
    storage_options: Mapping[str, Any] | None,
    names: Sequence[str] | None = None,
) -> tuple[TrainingPair, ...]:
    """Open pairs of a volume and its strokes.

    Parameters
    ----------
    data
        Volumes and strokes, as for :func:`hrvol.train_model`.
    storage_options
        Keywords of the fsspec file system of URLs.
    names
        Names of the classes 1, 2, ... as the user gave them.

    Raises
    ------
    StrokesError
        Strokes do not fit their volume, or name the classes differently from each other.
    """
    pairs = []
    for source, drawn in data:
        volume = open_volume(located(source, storage_options))
        strokes = open_strokes(drawn, volume, names=names, storage_options=storage_options)
        strokes.check_size()
        pairs.append(TrainingPair(volume, strokes))
    _check_names(pairs)
    return tuple(pairs)


def _check_names(pairs: Sequence[TrainingPair]) -> None:
    """Check that a class has the same value in all strokes that name it."""
    seen: dict[str, tuple[int, str]] = {}
    for pair in pairs:
        for info in pair.strokes.classes or ():
            value, source = seen.setdefault(info.name, (info.value, pair.strokes.source))
            if value != info.value:
                raise StrokesError(
                    f"{pair.strokes.source}: found class {info.name} as {info.value}, expected {value} as in"
                    f" {source} (--classes a,b,c sets the order of names)"
                )


def check_data(data: Sequence[tuple[Any, Any]], command: str) -> None:
    """Raise a :class:`UsageError` if there are no pairs of a volume and its strokes."""
    if not data:
        raise UsageError(f"{command}: found no volumes, expected pairs of a volume and its strokes")


def sources_of(pairs: Sequence[TrainingPair]) -> str:
    """Return the names of all strokes, for messages."""
    return ", ".join(pair.strokes.source for pair in pairs)


def check_context(featuriser: Featuriser, volumes: Sequence[Volume], tiles: TileSpec) -> None:
    """Check that filters reach no further than the context of tiles: they would draw seams.

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
    """Yield the pieces of strokes that have drawn pixels, reading one piece at a time.

    Raises
    ------
    StrokesError
        The strokes look like a grey volume.
    """
    for image, pair in enumerate(pairs):
        for box, labels in pair.strokes.drawn():
            check_drawn(labels, pair.strokes.source)
            z, y, x = (axis.start for axis in box)
            yield StrokeBlock(image, (z, y, x), labels)


def gather(
    pairs: Sequence[TrainingPair],
    pixels: StrokePixels,
    features: TileFeatures,
    progress: ProgressCallback | None,
) -> Samples:
    """Compute the features of stroke pixels.

    They equal those of a segmentation: the same tiles are read, and a pixel's features come from the tile
    whose core owns it. Tiles without any of the pixels are not read.
    """
    layouts = [_Layout.of(tuple(plane_tiles(pair.volume.shape, features.tiles))) for pair in pairs]
    work = sum(
        sum(_area(tile) for tile, _ in _owners(layouts[image], y, x)) for image, _, y, x in pixels.planes()
    )
    tally = Tally(progress, "features of strokes", work)

    def features_at(image: int, z: int, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        values = np.empty((len(y), len(features.featuriser.channels)), np.float32)
        for tile, owned in _owners(layouts[image], y, x):
            rows, columns = y[owned] - tile.window[0], x[owned] - tile.window[2]
            values[owned] = features.at(pairs[image].volume, z, tile, rows, columns)
            tally.finish((image, z, tile.core), _area(tile))
        return values

    return collect_samples(pixels, features_at)


@dataclass(frozen=True, eq=False)
class _Layout:
    """The tiles of a plane, and their cores ``(n, 4)``: y0, y1, x0, x1."""

    tiles: Sequence[Tile]
    cores: NDArray[np.int64]

    @classmethod
    def of(cls, tiles: Sequence[Tile]) -> _Layout:
        return cls(tiles, np.array([tile.core for tile in tiles], np.int64))


def _owners(layout: _Layout, y: NDArray[Any], x: NDArray[Any]) -> Iterator[tuple[Tile, NDArray[np.intp]]]:
    """Yield the tiles whose cores own some of the pixels, and the indices of these pixels."""
    top, bottom, left, right = layout.cores.T
    near = (top <= y.max()) & (bottom > y.min()) & (left <= x.max()) & (right > x.min())
    for number in np.flatnonzero(near):
        tile = layout.tiles[int(number)]
        y0, y1, x0, x1 = tile.core
        owned = np.flatnonzero((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
        if len(owned):
            yield tile, owned


def _area(tile: Tile) -> int:
    """Return the pixels of a tile's window."""
    height, width = tile.window_shape
    return height * width


def name_classes(
    values: Sequence[int], names: Sequence[str] | None, strokes: Sequence[Strokes]
) -> tuple[ClassInfo, ...]:
    """Return the classes to train: named by the user, else by the strokes' source, else numbered."""
    infos = default_classes(values, names)
    if names is not None:
        return infos
    named = {info.value: info for source in reversed(strokes) for info in source.classes or ()}
    return tuple(named.get(info.value, info) for info in infos)
