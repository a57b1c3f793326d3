"""Measure what colour gives: labels of natural images trained on strokes in colour, and in grey.

Run it with ``python -m benchmarks.quality.colour benchmarks/quality/colour.md``. Images are every n-th of
``nat_ecssd``; strokes are drawn on the object and around it by its mask. Features of an image are computed
once, as training and segmentation compute them, and a classifier is trained on the strokes of each drawing.
The score is the mean IoU of object and background over the pixels that are not drawn on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data import Dense, data_dir
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.strokes import draw
from hrvol.arrays import luminance
from hrvol.features.weights.source import WeightsSource
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.colour import recipe_for
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import open_volume

WAYS = ("grey", "colour", "colour, filters of each channel")

KINDS = ("hybrid", "classical")
"""Features of the recipe: with the network, and of filters alone."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with an object.

    Attributes
    ----------
    name
        Of the file.
    colours
        ``(Y, X, 3)`` uint8.
    truth
        ``(1, Y, X)`` uint8: 1 around the object, 2 on it.
    """

    name: str
    colours: NDArray[np.uint8]
    truth: NDArray[np.uint8]


def pictures(count: int) -> Iterator[Picture]:
    """Yield some pictures, evenly spread over the names of all."""
    files = sorted((data_dir() / "nat_ecssd").glob("*.jpg"))
    for file in files[:: len(files) // count][:count]:
        mask = np.asarray(Image.open(file.with_name(f"{file.stem}_mask.png")).convert("L")) > 127
        truth = np.where(mask, 2, 1).astype(np.uint8)[None]
        yield Picture(file.stem, np.asarray(Image.open(file).convert("RGB")), truth)


def features_of(
    picture: Picture, way: str, recipe: Recipe
) -> tuple[NDArray[np.float32], dict[str, slice], tuple[int, ...]]:
    """Return the features ``(Y, X, C)`` of a picture, the columns of each kind, and those of grey values."""
    image = picture.colours
    if way == "grey":
        image = np.rint(luminance(image.astype(np.float32))).astype(np.uint8)
    elif way != "colour":
        recipe = recipe.with_(**{"features.classical.colour": "channels"})
    volume = open_volume(image)
    recipe = recipe_for(recipe, [volume])
    featuriser = load_features(recipe.features, "cpu", WeightsSource())
    features = TileFeatures(featuriser, common_window([volume], recipe.intensity, recipe.seed), recipe.tiles)
    values = np.empty((*picture.truth.shape[1:], len(featuriser.channels)), np.float32)
    for tile in plane_tiles(volume.shape, recipe.tiles):
        found = features.of(volume, 0, tile).numpy()[:, *tile.core_in_window]
        values[tile.core_slices] = np.moveaxis(found, 0, -1)
    return values, featuriser.groups, featuriser.grey


def scores(picture: Picture, way: str, recipe: Recipe, drawings: int, strokes: int, step: int) -> list[float]:
    """Return the mean IoU of each drawing, counted in every n-th row and column."""
    values, groups, grey = features_of(picture, way, recipe)
    classes = ("background", "object")
    data = Dense(picture.name, picture.colours[None, ..., 0], picture.truth, (0,), (0,), classes)
    found = []
    for seed in range(drawings):
        drawn = draw(data, seed, strokes=strokes)[0]
        where = drawn > 0
        samples = Samples(values[where], drawn[where], np.zeros(int(where.sum()), np.int32))
        classifier = PixelClassifier.fit(
            samples, recipe.classifier, combine=recipe.combine, groups=groups, grey=grey, seed=recipe.seed
        )
        left = ~where
        left[np.arange(len(left)) % step > 0] = False
        left[:, np.arange(left.shape[1]) % step > 0] = False
        predicted = classifier.predict(values[left], threads=1)
        found.append(mean_iou(Confusion.of(predicted, picture.truth[0][left], 2).matrix))
    return found


def render(rows: Sequence[tuple[str, str, str, list[float]]], options: argparse.Namespace) -> str:
    """Return the page."""
    names = list(dict.fromkeys(name for _, name, _, _ in rows))
    by_key = {(kind, name, way): found for kind, name, way, found in rows}
    text = [
        "# Colour\n",
        f"{describe_machine(1)} `python -m benchmarks.quality.colour`.\n",
        f"Mean IoU of object and background in {len(names)} natural images (`nat_ecssd`, evenly spread over"
        f" the names), trained on {options.strokes} strokes of each, {options.drawings} drawings: mean, and"
        " the least and the greatest. *grey* is luminance. Scored are all pixels without strokes, in every"
        f" {options.step}nd row and column.\n",
    ]
    for kind in KINDS:
        title = f"Recipe `{options.recipe}`" if kind == "hybrid" else "Filters alone"
        lines = []
        for name in names:
            lines.append([name, *(_cell(by_key[kind, name, way]) for way in WAYS)])
        each = [np.array([by_key[kind, name, way] for name in names]) for way in WAYS]
        lines.append(["mean of all", *(f"{values.mean():.3f}" for values in each)])
        better = [f"{int((values > each[0]).sum())} of {values.size}" for values in each[1:]]
        lines.append(["drawings better than grey", "", *better])
        text += [f"## {title}\n", table(["image", *WAYS], lines)]
    return "\n".join(text)


def _cell(found: Sequence[float]) -> str:
    return f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", help="Markdown page to write")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--drawings", type=int, default=5)
    parser.add_argument("--strokes", type=int, default=3, help="per class")
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--recipe", default="fast")
    options = parser.parse_args()
    base = Recipe.load(options.recipe)
    rows = []
    for picture in pictures(options.images):
        for kind in KINDS:
            recipe = base.with_(**{"features.kind": kind})
            for way in WAYS:
                found = scores(picture, way, recipe, options.drawings, options.strokes, options.step)
                rows.append((kind, picture.name, way, found))
                log(f"{picture.name}, {kind}, {way}: {np.mean(found):.3f}")
    page = render(rows, options)
    print(page)
    if options.page is not None:
        options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
