"""Label whole planes with teachers of several drawings, and keep what they predict.

Features are computed once for all drawings. What is kept serves a benchmark of students: the tiles that a
distillation would label are cut out of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Dense
from benchmarks.quality.sampling import PER_CLASS, samples_of
from hrvol.classes import default_classes
from hrvol.distil.planes import PlaneTile, layout
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model, load_model, save_model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import Volume, open_volume

STRIPE = 64
"""Rows of a tile that are classified at once."""

SPACING = 12
"""Distance of the planes along y and x that are labelled, for students that see volumes."""


def is_cubic(data: Dense) -> bool:
    """Return whether the images of a data set are a volume of nearly cubic voxels."""
    return data.voxel_size is not None and data.voxel_size[0] <= 2 * data.voxel_size[1]


@dataclass(frozen=True, eq=False)
class Teachers:
    """Teachers of several drawings on one data set.

    Attributes
    ----------
    data
        The data set.
    volume
        Its images.
    models
        Drawing -> model.
    featuriser
        Of the models' features.
    folder
        Where predictions are kept.
    """

    data: Dense
    volume: Volume
    models: Mapping[int, Model]
    featuriser: Featuriser
    folder: Path

    @classmethod
    def train(
        cls, data: Dense, strokes: Mapping[int, NDArray[np.uint8]], recipe: Recipe, cache: Path
    ) -> Teachers:
        """Train a model on each drawing, or load those that a folder of labels holds already."""
        featuriser = load_featuriser(recipe.features)
        recipe = recipe.with_(**{"classifier.samples_per_class": PER_CLASS})
        volume = open_volume(data.images)
        key = json.dumps([data.name, recipe.to_dict(), sorted(strokes)], sort_keys=True)
        folder = cache / f"{data.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        files = {seed: folder / f"teacher-{seed}.hrvol" for seed in sorted(strokes)}
        if not all(file.is_file() for file in files.values()):
            window = common_window([volume], recipe.intensity, recipe.seed)
            for seed, samples in samples_of(data.images, strokes, featuriser, recipe=recipe).items():
                classifier = PixelClassifier.fit(
                    samples, recipe.classifier, grey=featuriser.grey, seed=seed, n_jobs=1
                )
                model = Model(
                    recipe.with_(seed=seed),
                    default_classes(list(range(1, len(data.classes) + 1)), list(data.classes)),
                    window,
                    classifier,
                    featuriser.weights_sha256,
                    featuriser.channels,
                    source=f"{data.name}, drawing {seed}",
                )
                save_model(model, files[seed])
        models = {seed: load_model(file) for seed, file in files.items()}
        return cls(data, volume, models, featuriser, folder)

    def planes(self) -> list[tuple[int, int]]:
        """Return the planes that are labelled, as axis and position: all, or a sample of a volume's."""
        if not is_cubic(self.data):
            return [(0, z) for z in range(len(self.data.images))]
        depth, height, width = self.data.images.shape
        along_z = sorted({*range(2, depth, 6), *self.data.train, *self.data.test})
        return [
            *((0, z) for z in along_z),
            *((1, y) for y in range(3, height, SPACING)),
            *((2, x) for x in range(5, width, SPACING)),
        ]

    def label(self, log: Callable[[str], None]) -> None:
        """Label the planes that are not labelled yet."""
        planes = self.planes()
        for number, (axis, position) in enumerate(planes):
            file = self._file(axis, position)
            if not file.is_file():
                np.save(file.with_suffix(".partial.npy"), self._label(axis, position))
                file.with_suffix(".partial.npy").rename(file)
            if number % 10 == 0:
                log(f"{self.data.name}: plane {number + 1} of {len(planes)} labelled")

    def has(self, axis: int, position: int) -> bool:
        """Return whether a plane is labelled."""
        return self._file(axis, position).is_file()

    def probabilities(self, seed: int, axis: int, position: int) -> NDArray[np.float16]:
        """Return the probabilities ``(K, rows, columns)`` of a plane."""
        planes = np.load(self._file(axis, position), mmap_mode="r")
        found: NDArray[np.float16] = planes[sorted(self.models).index(seed)]
        return found

    def _label(self, axis: int, position: int) -> NDArray[np.float16]:
        sides = [side for number, side in enumerate(self.volume.shape) if number != axis]
        classes = len(self.data.classes)
        out = np.zeros((len(self.models), classes, *sides), np.float16)
        window = next(iter(self.models.values())).window
        tiles = next(iter(self.models.values())).recipe.tiles
        for tile in layout(self.volume.shape, axis, tiles):
            image = PlaneTile(axis, position, tile).image(self.volume, window)
            features = self.featuriser(image).permute(1, 2, 0).numpy()[tile.core_in_window]
            y0, y1, x0, x1 = tile.core
            for row in range(0, y1 - y0, STRIPE):
                stripe = np.ascontiguousarray(features[row : row + STRIPE])
                pixels = stripe.reshape(-1, stripe.shape[-1])
                for number, seed in enumerate(sorted(self.models)):
                    proba = self.models[seed].classifier.predict_proba(pixels, threads=1)
                    proba = proba.reshape(*stripe.shape[:2], classes).transpose(2, 0, 1)
                    out[number, :, y0 + row : y0 + row + len(stripe), x0:x1] = proba
        return out

    def _file(self, axis: int, position: int) -> Path:
        return self.folder / f"{'zyx'[axis]}{position}.npy"


@dataclass
class Recorded:
    """Stands in for :class:`hrvol.distil.label.Labeller`: cuts tiles out of labelled planes.

    Attributes
    ----------
    teachers, seed
        Whose predictions.
    computed
        Tiles that were cut out so far.
    """

    teachers: Teachers
    seed: int
    computed: int = 0

    def label(
        self, tiles: Sequence[PlaneTile], on_tile: Callable[[PlaneTile, NDArray[np.float16]], Any]
    ) -> None:
        """Pass the probabilities of each tile to a function."""
        for tile in tiles:
            y0, y1, x0, x1 = tile.tile.core
            plane = self.teachers.probabilities(self.seed, tile.axis, tile.position)
            on_tile(tile, np.ascontiguousarray(plane[:, y0:y1, x0:x1]))
            self.computed += 1
