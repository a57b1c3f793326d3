"""Features for the benchmark of doubt, kept in files: of strokes, of test pixels, and of compared tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import REFERENCED, STROKED, load_dense, load_stroked
from benchmarks.quality.strokes import draw
from hrvol.recipe.recipe import Recipe
from hrvol.run.drift import compared_tiles, sampled_rows
from hrvol.segment.strokes import Samples, StrokePixels, choose_pixels
from hrvol.training.strokes import TrainingPair, gather, stroke_blocks
from hrvol.training.tile_features import TileFeatures
from hrvol.training.tuning.folds import number_strokes
from hrvol.training.tuning.pixel_folds import capped
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import whole
from hrvol.volume.intensity import common_window, read_unit
from hrvol.volume.strokes.open_strokes import open_strokes, whole_strokes
from hrvol.volume.volume import open_volume

RECIPE = Recipe.load("fast").with_(**{"classifier.samples_per_class": 2000})
"""Settings of all models; fewer samples of a class than the package's cap, to save time."""

PIXELS = 2000
"""Pixels of a test tile that are compared with the truth."""

TESTED = 8
"""Most test planes, and most tiles of them whose pixels are compared with the truth."""

_KEPT = 0.75  # of a person's strokes in a drawing


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawing with the features of its pixels."""

    pair: TrainingPair
    pixels: StrokePixels
    samples: Samples
    window: tuple[float, float]


def images_of(name: str, *, test: bool) -> NDArray[Any]:
    """Return the planes of a data set: all, or the test planes only, of which there are some."""
    if name in (*REFERENCED, STROKED):
        return load_stroked(name).images
    data = load_dense(name)
    return data.images[list(_tested(data.test))] if test else data.images


def _tested(planes: Sequence[int]) -> tuple[int, ...]:
    return tuple(planes[:: -(-len(planes) // TESTED)])


def strokes_of(name: str, seed: int) -> NDArray[np.uint8]:
    """Return a drawing: made from the truth, or three quarters of a person's strokes at random."""
    if name not in REFERENCED:
        return draw(load_dense(name), seed)
    strokes = load_stroked(name).strokes
    z, y, x = np.nonzero(strokes)
    labels = strokes[z, y, x]
    numbers = number_strokes(np.stack([np.zeros_like(z), z, y, x], axis=1).astype(np.int64), labels)
    rng = np.random.default_rng(seed)
    drawn = np.zeros_like(strokes)
    for value in np.unique(labels):
        of_class = np.unique(numbers[labels == value])
        kept = rng.permutation(of_class)[: max(1, round(_KEPT * len(of_class)))]
        some = np.isin(numbers, kept) & (labels == value)
        drawn[z[some], y[some], x[some]] = value
    return drawn


def drawings(name: str, seeds: Sequence[int], featuriser: Any, folder: Path) -> dict[int, Drawing]:
    """Return drawings on a data set; the features of all their pixels are computed once."""
    volume = open_volume(images_of(name, test=False))
    pairs = {seed: TrainingPair(volume, open_strokes(strokes_of(name, seed))) for seed in seeds}
    most = RECIPE.classifier.samples_per_class
    chosen = {seed: choose_pixels(stroke_blocks([pair]), most, seed) for seed, pair in pairs.items()}
    where = np.unique(np.concatenate([pixels.where for pixels in chosen.values()]), axis=0)
    window = common_window([volume], RECIPE.intensity, RECIPE.seed)

    def compute() -> dict[str, NDArray[Any]]:
        together = StrokePixels(where, np.zeros(len(where), np.uint16), {})
        pair = TrainingPair(volume, whole_strokes(volume))
        found = gather([pair], together, TileFeatures(featuriser, window, RECIPE.tiles), None)
        return {"where": where, "features": found.features}

    kept = cached(folder / f"train_{name}.npz", compute)
    assert np.array_equal(kept["where"], where), f"{name}: {folder} has features of other strokes; delete it"
    places = flat(where, volume.shape)
    found = {}
    for seed, pixels in chosen.items():
        rows = kept["features"][np.searchsorted(places, flat(pixels.where, volume.shape))]
        samples = Samples(rows, pixels.labels, np.zeros(len(rows), np.int32))
        found[seed] = Drawing(pairs[seed], pixels, samples, window)
    return found


def only_one_plane(drawing: Drawing, seed: int) -> Drawing:
    """Return what of a drawing is in one of its planes."""
    planes = np.unique(drawing.pixels.where[:, 1])
    z = int(planes[seed % len(planes)])
    some = drawing.pixels.where[:, 1] == z
    volume = drawing.pair.volume
    strokes = np.zeros(volume.shape, np.uint8)
    box = (slice(z, z + 1), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    strokes[z] = drawing.pair.strokes.read(box)[0]
    pixels = StrokePixels(drawing.pixels.where[some], drawing.pixels.labels[some], drawing.pixels.drawn)
    samples = drawing.samples
    rows = Samples(samples.features[some], samples.labels[some], samples.image[some])
    return Drawing(TrainingPair(volume, open_strokes(strokes)), pixels, rows, drawing.window)


def fewer(drawing: Drawing, most: int, seed: int) -> Drawing:
    """Return a drawing with at most so many pixels of a class, drawn at random."""
    labels = drawing.pixels.labels
    kept = capped(labels, np.ones(len(labels), bool), most, seed)
    pixels = StrokePixels(drawing.pixels.where[kept], labels[kept], drawing.pixels.drawn)
    samples = drawing.samples
    rows = Samples(samples.features[kept], samples.labels[kept], samples.image[kept])
    return Drawing(drawing.pair, pixels, rows, drawing.window)


def flat(where: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return rows of image, z, y, x as one number each."""
    return np.asarray(np.ravel_multi_index(tuple(where[:, 1:].T), shape), np.int64)


def test_pixels(
    name: str, window: tuple[float, float], featuriser: Any, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the features ``(n, C)`` and the classes ``(n,)`` of random pixels of the test planes."""
    data = load_dense(name)
    planes = list(_tested(data.test))
    volume, classes = open_volume(data.images[planes]), data.truth[planes]

    def compute() -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng(1)
        features, truth = [], []
        for z, _, tile in stratified_tiles(volume.shape, whole(volume.shape), RECIPE.tiles, TESTED, 0):
            y0, y1, x0, x1 = tile.core
            y, x = rng.integers(y0, y1, PIXELS), rng.integers(x0, x1, PIXELS)
            found = featuriser(read_unit(volume, z, tile, window))
            features.append(found[:, y - tile.window[0], x - tile.window[2]].numpy(force=True).T.copy())
            truth.append(classes[z, y, x])
        return {"features": np.concatenate(features), "truth": np.concatenate(truth)}

    kept = cached(folder / f"test_{name}.npz", compute)
    return kept["features"], kept["truth"]


def compared(
    name: str, window: tuple[float, float], featuriser: Any, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what a run compares of the test planes: features ``(n, C)`` and planes ``(n,)``."""
    volume = open_volume(images_of(name, test=True))

    def compute() -> dict[str, NDArray[Any]]:
        region = whole(volume.shape)
        count = compared_tiles(volume.shape, region, RECIPE.tiles)
        rows, planes = [], []
        for z, box, tile in stratified_tiles(volume.shape, region, RECIPE.tiles, count, RECIPE.seed):
            top, _, left, _ = tile.window
            inside = (
                slice(box[1].start - top, box[1].stop - top),
                slice(box[2].start - left, box[2].stop - left),
            )
            found = list(sampled_rows(read_unit(volume, z, tile, window), inside, featuriser))
            rows.append(np.concatenate(found))
            planes.append(np.full(len(rows[-1]), z))
        return {"features": np.concatenate(rows), "planes": np.concatenate(planes)}

    key = f"{window[0]:.0f}-{window[1]:.0f}"
    kept = cached(folder / f"compared_{name}_{key}.npz", compute)
    return kept["features"], kept["planes"]


def cached(file: Path, compute: Any) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a file, computed and written if there is none."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part.npz")
        np.savez(partial, **compute())
        partial.rename(file)
    with np.load(file) as arrays:
        return dict(arrays)
