"""Draw the classes of a scene in the colours of the true classes they are matched to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cas.data import Scene
from benchmarks.cas.fit import KINDS, Fit
from benchmarks.cas.scores import PUBLISHED, merged, merges
from hrvol.classes import default_classes
from hrvol.figures.panels import draw_planes
from hrvol.quality.matching import match_classes
from hrvol.quality.metrics import Confusion

COLUMNS = 3
COLOURS = 6
"""Classes with a colour of their own, the true ones first; the others share the last colour."""


def draw_scene(path: Path, scene: Scene, fits: Mapping[str, Fit]) -> Path:
    """Draw image, truth, the classes of each kind of features (lambda 1, the first seed), and attention.

    Of a volume the first and the last plane are drawn, one after the other. *Attention density* is the mean
    attention of the sampled pixels of a cluster, shown at all its pixels, of the first kind of features.

    Parameters
    ----------
    path
        PNG to write.
    scene
        The clustered images.
    fits
        Kind of features -> clusters.
    """
    count = len(scene.classes)
    truth = next(iter(scene.truths.values()))
    maps: dict[str, NDArray[np.uint16]] = {}
    for kind, fit in fits.items():
        partition = next(iter(fit.partitions.values()))
        found = merged(partition, merges(KINDS[kind].cluster, scene.n_classes)[PUBLISHED])
        title = f"{kind}: {found.n_classes} class{'es' * (found.n_classes > 1)}"
        maps[title] = as_true(found.labels(partition), truth, count)
    first = next(iter(next(iter(fits.values())).partitions.values()))
    density = first.tally.density[first.assigned]
    panels: dict[str, tuple[NDArray[Any], NDArray[Any] | None]] = {}
    for z in dict.fromkeys((0, len(scene.images) - 1)):
        which = "" if len(scene.images) == 1 else f", plane {z}"
        image = scene.images[z]
        panels[f"{scene.name}{which}"] = image, None
        panels[f"{next(iter(scene.truths))}{which}"] = image, truth[z]
        panels |= {f"{title}{which}": (image, labels[z]) for title, labels in maps.items()}
        panels[f"attention density{which}"] = density[z], None
    most = max(count, *(int(labels.max()) for labels in maps.values()))
    names = [*scene.classes, *(f"surplus {i}" for i in range(1, most - count + 1))]
    if most == COLOURS:
        names[-1] = "further ones"
    classes = default_classes(range(1, len(names) + 1), names)
    return draw_planes(path, panels, classes, columns=COLUMNS)


def as_true(labels: NDArray[np.uint16], truth: NDArray[np.uint8], count: int) -> NDArray[np.uint16]:
    """Return classes found ``(Z, Y, X)`` with the number of the true class they are matched to.

    Those left over get ``count + 1``, ``count + 2``, ... in order, up to :data:`COLOURS`.
    """
    mapping = match_classes(Confusion.of(labels, truth).matrix)
    values = np.zeros(int(labels.max()) + 1, np.uint16)
    following = count
    for label in np.unique(labels).tolist():
        if label not in mapping:
            following = min(following + 1, COLOURS)
        values[label] = mapping.get(label, following)
    return values[labels]
