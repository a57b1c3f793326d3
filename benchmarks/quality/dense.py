"""Train on strokes of training planes, compare every pixel of test planes, over several drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Dense
from benchmarks.quality.contest import Contest, Entry
from benchmarks.quality.sampling import SAMPLING, plane_stripes, plane_tiles, samples_of
from hrvol.quality.metrics import Confusion
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.volume.volume import open_volume


@dataclass(eq=False)
class DenseResult:
    """Measurements on a data set.

    Attributes
    ----------
    confusions
        Entry -> seed -> counts over the test planes.
    maps
        Entry -> labels of the first test plane with the first seed, every ``step``-th row and column.
    """

    confusions: dict[Entry, dict[int, Confusion]] = field(default_factory=dict)
    maps: dict[Entry, NDArray[np.uint8]] = field(default_factory=dict)

    def update(self, other: DenseResult) -> None:
        """Add the entries of another result."""
        self.confusions.update(other.confusions)
        self.maps.update(other.maps)


def measure_dense(
    data: Dense,
    strokes: Mapping[int, NDArray[np.uint8]],
    featuriser: Any,
    classifiers: Mapping[str, ClassifierSpec],
    *,
    preset: str = "balanced",
    recipe: Recipe = SAMPLING,
    step: int = 1,
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> DenseResult:
    """Train on each drawing and compare with the truth.

    Each tile is featurised once for all drawings, kinds of features and classifiers.

    Parameters
    ----------
    data
        Planes and truth.
    strokes
        Seed -> strokes; the seed is that of the classifiers too.
    featuriser
        Of hybrid features.
    classifiers
        By name.
    preset
        Name of the featuriser's settings in the entries.
    recipe
        For the intensity window, the tiles and the cap of samples.
    step
        Compare every ``step``-th row and column of the test planes only.
    threads
        Threads of fits and predictions.
    log
        Called with messages about the progress.
    """
    samples = samples_of(data.images, strokes, featuriser, recipe=recipe, progress=_report(data.name, log))
    contests: dict[tuple[int, str], Contest] = {}
    for seed, training in samples.items():
        counts = ", ".join(f"{count} of class {value}" for value, count in training.counts().items())
        log(f"{data.name}: seed {seed}: fitting on {counts}")
        for name, spec in classifiers.items():
            contests[seed, name] = Contest.fit(
                training, featuriser.groups, spec, grey=featuriser.grey, seed=seed, threads=threads
            )
    del samples

    result = DenseResult()
    volume = open_volume(data.images)
    shown = next(iter(strokes))
    tiles = len(plane_tiles(volume.shape, recipe))
    for z in data.test:
        log(f"{data.name}: {preset}: test plane {data.test.index(z) + 1} of {len(data.test)}, {tiles} tiles")
        truth = data.truth[z, ::step, ::step]
        for pixels_at, features in plane_stripes(volume, z, featuriser, recipe=recipe, step=step):
            true = truth[pixels_at]
            pixels = np.ascontiguousarray(features).reshape(-1, features.shape[-1])
            for (seed, name), contest in contests.items():
                for kind, labels in contest.predict(pixels, threads=threads).items():
                    entry = Entry(preset, kind, name)
                    counted = Confusion.of(labels, true.ravel(), len(data.classes))
                    so_far = result.confusions.setdefault(entry, {})
                    so_far[seed] = so_far[seed] + counted if seed in so_far else counted
                    if z == data.test[0] and seed == shown:
                        picture = result.maps.setdefault(entry, np.zeros(truth.shape, np.uint8))
                        picture[pixels_at] = labels.reshape(true.shape)
    return result


def _report(name: str, log: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """Return a progress callback that logs every tenth."""
    last = -1

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // total
        if tenth != last:
            last = tenth
            log(f"{name}: {stage}: {done / 1e6:.1f} of {total / 1e6:.1f} megapixels")

    return report
