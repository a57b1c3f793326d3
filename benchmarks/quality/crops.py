"""Small crops of the dense data sets, and scores of features on them: strokes on some, truth on others.

Whole planes would take hours with settings as slow as the published ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.transform import downscale_local_mean
from torch import Tensor

from benchmarks.data import Dense, load_dense
from benchmarks.quality.contest import KINDS, Contest
from benchmarks.quality.strokes import draw
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.strokes import Samples, StrokeBlock, choose_pixels

SIDE = 336
"""Pixels of a side of a crop: 24 patches."""

POSITIONS = 5
"""Candidate positions of a crop along each axis; the one with most pixels of its rarest class is taken."""


def planes_of(name: str) -> Dense:
    """Return a dense data set, ``ebc2`` at half its resolution."""
    data = load_dense(name)
    if name != "ebc2":
        return data
    images = np.stack([downscale_local_mean(plane, (2, 2)) for plane in data.images])
    return replace(data, images=images.round().astype(np.uint8), truth=data.truth[:, ::2, ::2])


def crops_of(name: str, *, train: int, test: int, side: int = SIDE, around: int = 0) -> Dense:
    """Return a stack of crops, the first ``train`` to draw strokes on, the others to compare with the truth.

    Each is of another plane, evenly spaced, so that there are no more than planes. ``ebc2`` is taken at half
    its resolution. ``around`` adds pixels on every side of the images, not of the truth, mirrored where a
    plane ends.
    """
    data = planes_of(name)
    tests = _spaced(data.test, test)
    planes = [*_spaced(data.train, train), *tests]
    corners = [_corner(data.truth[z], side, len(data.classes)) for z in planes]
    images, truth = [], []
    for z, (y, x) in zip(planes, corners, strict=True):
        truth.append(data.truth[z, y : y + side, x : x + side])
        wide = np.pad(data.images[z], around, mode="reflect")
        images.append(wide[y : y + side + 2 * around, x : x + side + 2 * around])
    first = len(planes) - len(tests)
    split = tuple(range(first)), tuple(range(first, len(planes)))
    return Dense(name, np.stack(images), np.stack(truth), *split, data.classes)


def _spaced(planes: Sequence[int], count: int) -> list[int]:
    indices = np.linspace(0, len(planes) - 1, min(count, len(planes))).round().astype(int)
    return [planes[i] for i in indices]


def _corner(truth: NDArray[np.uint8], side: int, classes: int) -> tuple[int, int]:
    """Return row and column of the crop with most pixels of its rarest class."""
    rows, columns = (np.linspace(0, length - side, POSITIONS).astype(int) for length in truth.shape)

    def rarest(corner: tuple[int, int]) -> int:
        y, x = corner
        counts = np.bincount(truth[y : y + side, x : x + side].ravel(), minlength=classes + 1)
        return int(counts[1:].min())

    return max(((int(y), int(x)) for y in rows for x in columns), key=rarest)


class Features(Protocol):
    """A featuriser of hybrid features."""

    @property
    def groups(self) -> Mapping[str, slice]:
        """Return the columns of the deep and of the classical features."""

    @property
    def grey(self) -> tuple[int, ...]:
        """Return the columns of grey values."""

    def __call__(self, image: NDArray[np.float32]) -> Tensor:
        """Return features ``(C, y, x)``."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Hybrid features of the pixels drawn on with some seed, and of those compared with the truth.

    Attributes
    ----------
    training
        Seed -> samples.
    drawn
        Seed -> rows and columns ``(n, 2)`` of these samples in their crops.
    test, truth
        ``(n, C)`` float32 and ``(n,)``: every ``step``-th row and column of the crops to compare.
    groups
        Columns of the deep and of the classical features.
    grey
        Columns of grey values.
    seconds, cpu_seconds
        Of the features of one crop, median: from the clock, and of all cores.
    """

    training: Mapping[int, Samples]
    drawn: Mapping[int, NDArray[np.int64]]
    test: NDArray[np.float32]
    truth: NDArray[np.uint8]
    groups: Mapping[str, slice]
    grey: tuple[int, ...]
    seconds: float
    cpu_seconds: float


def look(data: Dense, featuriser: Features, seeds: Sequence[int], *, step: int = 3, cap: int = 1000) -> Seen:
    """Compute the features of all crops, one by one, and keep those of the pixels that are used.

    Parameters
    ----------
    data
        Crops, see :func:`crops_of`.
    featuriser
        Computes hybrid features ``(C, y, x)`` of a crop's image, with or without its surroundings.
    seeds
        Of drawings.
    step
        Compare every ``step``-th row and column.
    cap
        Most samples of a class.
    """
    chosen = {seed: choose_pixels([StrokeBlock(0, (0, 0, 0), draw(data, seed))], cap, seed) for seed in seeds}
    chunks: dict[int, list[Any]] = {seed: [] for seed in seeds}
    test, clocks = [], []
    for z in (*data.train, *data.test):
        began = time.perf_counter(), time.process_time()
        features = featuriser(data.images[z].astype(np.float32) / 255)
        clocks.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        by_pixel = np.moveaxis(features.numpy(force=True), 0, -1)
        around = (len(by_pixel) - data.truth.shape[1]) // 2
        by_pixel = by_pixel[around : len(by_pixel) - around, around : len(by_pixel) - around]
        if z in data.test:
            test.append(by_pixel[::step, ::step].reshape(-1, by_pixel.shape[-1]))
            continue
        for seed, positions in chosen.items():
            inside = positions.where[:, 1] == z
            y, x = positions.where[inside, 2:].T
            chunks[seed].append((by_pixel[y, x], positions.labels[inside], positions.where[inside, 2:]))
    training, drawn = {}, {}
    for seed, parts in chunks.items():
        features, labels, drawn[seed] = (np.concatenate([part[i] for part in parts]) for i in (0, 1, 2))
        training[seed] = Samples(features, labels, np.zeros(len(labels), np.int32))
    seconds, cpu = np.median(clocks, axis=0)
    truth = data.truth[list(data.test), ::step, ::step].ravel()
    return Seen(
        training,
        drawn,
        np.concatenate(test),
        truth,
        featuriser.groups,
        featuriser.grey,
        float(seconds),
        float(cpu),
    )


def scores(seen: Seen, spec: ClassifierSpec, *, threads: int, classes: int) -> dict[str, list[float]]:
    """Return the mIoU of each drawing by kind of features, and of the product of forests."""
    mious: dict[str, list[float]] = {}
    for seed, samples in seen.training.items():
        contest = Contest.fit(samples, seen.groups, spec, grey=seen.grey, seed=seed, threads=threads)
        for kind, labels in contest.predict(seen.test, threads=threads).items():
            matrix = Confusion.of(labels, seen.truth, classes).matrix
            mious.setdefault(kind, []).append(round(mean_iou(matrix), 4))
    assert set(KINDS) <= set(mious)
    return mious
