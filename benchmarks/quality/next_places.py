"""Measure how many strokes "next place" saves: a simulated annotator draws where it is sent, or at random.

Run it with ``python -m benchmarks.quality.next_places benchmarks/quality/next_places.md``. Both ways begin
with the same stroke of each class. The random way draws a number of strokes at random pixels of the training
planes; its final score is the mean IoU on the test planes after its last five strokes. The other way draws
where :func:`hrvol.interactive.answers.find_places` sends it, until it reaches that score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import load_dense
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from hrvol.classes import default_classes
from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.answers import find_places
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.drawing import DrawnStrokes
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.region import Region
from hrvol.interactive.regions import TileKey, keys_of_region
from hrvol.interactive.stages import stages_of
from hrvol.interactive.tile_cache import TileCache
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import open_volume

DATA = ("vnc", "xct_fibres", "phantom")

AT_MOST = 0.6
"""Share of the random strokes that is aimed at."""

_LENGTH, _LAST = 25, 5


@dataclass(frozen=True, eq=False)
class Scene:
    """A data set with its features of training planes and of test pixels.

    Attributes
    ----------
    truth
        ``(Z, Y, X)`` classes 1..K.
    train
        Planes to draw on.
    parts, stage, recipe
        Features.
    rows, labels
        Features ``(n, C)`` and classes of test pixels.
    """

    truth: NDArray[np.uint8]
    train: tuple[int, ...]
    parts: TileParts
    stage: Any
    recipe: Recipe
    rows: NDArray[np.float32]
    labels: NDArray[np.uint8]


def prepare(name: str, options: argparse.Namespace) -> Scene:
    """Compute the features of the training planes and of test pixels."""
    data = load_dense(name)
    side = options.side
    images, truth = data.images[:, :side, :side], data.truth[:, :side, :side]
    recipe = Recipe.load(options.recipe)
    volume = open_volume(np.ascontiguousarray(images))
    parts = TileParts(
        volume,
        common_window([volume], recipe.intensity, recipe.seed),
        recipe.tiles,
        device="cpu",
        weights=WeightsSource(),
        disk=TileCache(options.folder),
        memory=options.memory * 2**30,
    )
    stage, gate = stages_of(recipe)[-1], Gate()
    train = data.train[: options.planes]
    for key in tiles_of(parts, train):
        parts.prepare(stage, key, gate)
    test = data.test[:: max(1, len(data.test) // options.tests)][: options.tests]
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for key in tiles_of(parts, test):
        parts.prepare(stage, key, gate)
        values = parts.get(stage, key)
        assert values is not None
        tile = parts.tile(key)
        y0, y1, x0, x1 = tile.core
        y, x = rng.integers(y0, y1, 1500), rng.integers(x0, x1, 1500)
        rows.append(values.at(y - tile.window[0], x - tile.window[2]))
        labels.append(truth[key[0], y, x])
        log(f"{name}: features of test tile {key}")
    return Scene(truth, train, parts, stage, recipe, np.concatenate(rows), np.concatenate(labels))


def tiles_of(parts: TileParts, planes: tuple[int, ...]) -> Iterator[TileKey]:
    """Yield all tiles of planes."""
    _, height, width = parts.volume.shape
    for z in planes:
        yield from keys_of_region(
            parts.volume.shape, parts.tiles, Region(z, slice(0, height), slice(0, width))
        )


class Annotator:
    """Draws strokes of the right class, and scores what they give.

    Parameters
    ----------
    scene
        The data set.
    seed
        Of the first strokes and of the directions of all.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene, self._rng = scene, np.random.default_rng(seed)
        values = tuple(int(v) for v in np.unique(scene.truth))
        self.drawing = ArrayDrawing(np.zeros_like(scene.truth), default_classes(values))
        self._strokes = DrawnStrokes(self.drawing)
        self._live = LivePreviews(scene.parts, (scene.stage,), scene.recipe, 1)
        self._scores = np.random.default_rng([seed, 1])
        first = next(tiles_of(scene.parts, scene.train))
        self._live.note_basis(scene.stage, first)
        for value in values:
            places = np.argwhere(scene.truth[list(scene.train)] == value)
            z, y, x = places[self._rng.integers(len(places))]
            self.draw(scene.train[z], int(y), int(x))

    def draw(self, z: int, y: int, x: int) -> None:
        """Draw a stroke three pixels wide through a pixel, where the class is that of the pixel."""
        angle = self._rng.uniform(0, np.pi)
        steps = np.arange(-_LENGTH // 2, _LENGTH // 2 + 1)
        _, height, width = self.scene.truth.shape
        rows = np.clip(np.rint(y + steps * np.sin(angle)).astype(int), 0, height - 1)
        columns = np.clip(np.rint(x + steps * np.cos(angle)).astype(int), 0, width - 1)
        value = self.scene.truth[z, y, x]
        same = self.scene.truth[z, rows, columns] == value
        middle = len(steps) // 2
        first = middle - int(np.argmin(np.append(same[middle::-1], False))) + 1
        last = middle + int(np.argmin(np.append(same[middle:], False)))
        for row, column in zip(rows[first:last], columns[first:last], strict=True):
            box = (slice(z, z + 1), slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            truth, held = self.scene.truth[box], self.drawing.read(box)
            self.drawing.paint(box, np.where(truth == value, value, held))

    def draw_at_random(self) -> None:
        """Draw a stroke at a random pixel of the training planes."""
        _, height, width = self.scene.truth.shape
        z = self.scene.train[self._rng.integers(len(self.scene.train))]
        self.draw(z, int(self._rng.integers(height)), int(self._rng.integers(width)))

    def draw_next(self) -> None:
        """Draw a stroke at the next place."""
        scene = self.scene
        region = Region(scene.train[0], slice(0, 64), slice(0, 64))
        train = Visited(scene)
        (place,) = find_places(
            train, self._live, self._strokes.read(), region, "visited", 1, Gate(), progress=_silent
        )
        self.draw(place.plane, place.row, place.column)

    def score(self) -> float:
        """Return the mean IoU on the test pixels."""
        fitted = self._live.fit(self.scene.stage, self._strokes.read(), Gate())
        assert fitted is not None
        values = np.asarray(fitted.classifier.classes)
        predicted = values[fitted.classifier.predict_rows(self.scene.rows).argmax(axis=1)]
        return mean_iou(Confusion.of(predicted, self.scene.labels, int(self.scene.truth.max())).matrix)


class Visited:
    """The tiles of the training planes as those that were visited."""

    def __init__(self, scene: Scene) -> None:
        self._parts = scene.parts
        self.visited = tuple(tiles_of(scene.parts, scene.train))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def compare(scene: Scene, seed: int, strokes: int) -> tuple[float, int | None, list[float], list[float]]:
    """Return the random way's final score, the strokes to reach it, and the scores of both ways."""
    random, chosen = Annotator(scene, seed), Annotator(scene, seed)
    scores: list[float] = []
    for _ in range(strokes):
        random.draw_at_random()
        scores.append(random.score())
    final = float(np.mean(scores[-_LAST:]))
    reached, found = None, list[float]()
    while reached is None and len(found) < strokes:
        chosen.draw_next()
        found.append(chosen.score())
        if found[-1] >= final:
            reached = len(found)
    return final, reached, scores, found


def render(rows: list[list[str]], machine: str, strokes: int) -> str:
    """Return the page."""
    head = ["data", "drawing", "mIoU of random", "strokes to reach it", "share"]
    return "\n".join(
        [
            "# Next place",
            "",
            f"{machine} `python -m benchmarks.quality.next_places`.",
            "",
            f"Mean IoU after {strokes} strokes at random places, and the strokes at next places that",
            f"reach it; aimed at: {AT_MOST:.0%} at most.",
            "",
            table(head, rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", help="Markdown page to write")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--drawings", type=int, default=5)
    parser.add_argument("--strokes", type=int, default=40)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--side", type=int, default=None, help="pixels of the planes that are used")
    parser.add_argument("--planes", type=int, default=4, help="planes to draw on")
    parser.add_argument("--tests", type=int, default=4, help="planes to test on")
    parser.add_argument("--memory", type=int, default=4, help="GiB of features")
    parser.add_argument("--folder", type=Path, default=Path("interactive-cache"), help="for tokens on disk")
    options = parser.parse_args()
    rows = []
    for name in options.data:
        scene = prepare(name, options)
        shares = []
        for seed in range(options.drawings):
            final, reached, scores, found = compare(scene, seed, options.strokes)
            share = None if reached is None else reached / options.strokes
            shares.append(2.0 if share is None else share)
            shown = "never" if share is None else f"{share:.0%}"
            rows.append([name, str(seed), f"{final:.3f}", str(reached or "-"), shown])
            log(f"{name}: drawing {seed}: {final:.3f}, {shown}; {scores[0]:.3f}, {found[-1]:.3f}")
        rows.append([name, "median", "", "", f"{np.median(shares):.0%}"])
    page = render(rows, describe_machine(1), options.strokes)
    print(page)
    if options.page is not None:
        options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
