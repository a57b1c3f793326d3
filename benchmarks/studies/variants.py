"""Features taken or treated in ways that the package does not offer; used by ``benchmarks.studies.pareto``.

Features are hybrid ones; only their deep columns are treated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from benchmarks.quality.crops import Seen, planes_of
from hrvol.features.featuriser import Featuriser
from hrvol.features.filters.bank import grey_columns
from hrvol.segment.strokes import Samples

SEEN_WINDOWS = 24
"""Windows averaged to estimate the mean features at each position in a window."""


@dataclass(frozen=True, eq=False)
class Windowed:
    """Hybrid features whose deep ones are of windows of ``side`` pixels: the input of one pass.

    Windows smaller than ``needed`` lie side by side; larger ones are returned whole, for the caller to cut
    out the middle.
    """

    deep: Featuriser
    filters: Featuriser
    side: int
    needed: int

    @property
    def groups(self) -> Mapping[str, slice]:
        """Return the columns of the deep and of the classical features."""
        deep, filters = self.deep.groups["deep"], self.filters.groups["classical"]
        return {"deep": deep, "classical": slice(deep.stop, deep.stop + filters.stop)}

    @property
    def grey(self) -> tuple[int, ...]:
        """Return the columns of grey values."""
        return grey_columns(self.filters.spec.classical, self.groups["classical"].start)

    def __call__(self, image: NDArray[np.float32]) -> Tensor:
        """Return features ``(C, y, x)``."""
        side = max(self.side, self.needed)
        off = (len(image) - side) // 2
        image = np.ascontiguousarray(image[off : off + side, off : off + side])
        starts = range(0, side, self.side)
        rows = [
            torch.cat([self.deep(_window(image, y, x, self.side)) for x in starts], dim=2) for y in starts
        ]
        return torch.cat([torch.cat(rows, dim=1), self.filters(image)])


def _window(image: NDArray[np.float32], y: int, x: int, side: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def reduced(seen: Seen, components: int) -> Seen:
    """Replace deep features by their first principal components, fitted on the test pixels."""
    deep = seen.groups["deep"]
    pca = PCA(components, random_state=0).fit(seen.test[:, deep])

    def shorter(features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([pca.transform(features[:, deep]), features[:, deep.stop :]], axis=1)

    groups = {
        "deep": slice(0, components),
        "classical": slice(components, components + seen.test.shape[1] - deep.stop),
    }
    training = {
        seed: Samples(shorter(samples.features), samples.labels, samples.image)
        for seed, samples in seen.training.items()
    }
    grey = tuple(column - deep.stop + components for column in seen.grey)
    return replace(seen, training=training, test=shorter(seen.test), groups=groups, grey=grey)


def mean_window(name: str, featuriser: Featuriser, side: int) -> NDArray[np.float32]:
    """Return the mean deep features ``(side, side, C)`` of windows anywhere on the training planes."""
    data, rng = planes_of(name), np.random.default_rng(0)
    total = np.zeros((side, side, featuriser.groups["deep"].stop), np.float32)
    for i in range(SEEN_WINDOWS):
        plane = data.images[data.train[i % len(data.train)]]
        y, x = (int(rng.integers(length - side + 1)) for length in plane.shape)
        window = plane[y : y + side, x : x + side].astype(np.float32) / 255
        total += featuriser(window)[featuriser.groups["deep"]].permute(1, 2, 0).numpy(force=True)
    return total / SEEN_WINDOWS


def unbiased(seen: Seen, mean: NDArray[np.float32], step: int) -> Seen:
    """Subtract from deep features the mean at their position, see :func:`mean_window`."""
    deep = seen.groups["deep"]
    crops = len(seen.test) // mean[::step, ::step, 0].size
    test = seen.test.copy()
    test[:, deep] -= np.tile(mean[::step, ::step].reshape(-1, mean.shape[-1]), (crops, 1))
    training = {}
    for seed, samples in seen.training.items():
        features = samples.features.copy()
        y, x = seen.drawn[seed].T
        features[:, deep] -= mean[y, x]
        training[seed] = Samples(features, samples.labels, samples.image)
    return replace(seen, training=training, test=test)
