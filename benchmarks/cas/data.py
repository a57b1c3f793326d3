"""Load the images on which classes are found without labels, with their truths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import STROKED, load_dense, load_stroked
from hrvol.errors import UsageError

DATASETS = (STROKED, "super1", "ebc2", "needle_block", "vnc")

VNC_PLANES = range(0, 4)
VNC_SIDE = 512
"""Of vnc, the middle square of these planes is clustered as one volume: a plane of it is one tile."""

DRAWN = {
    STROKED: ("nucleus", "cell", "background"),
    "needle_block": ("alpha blocks", "liquor", "beta needles"),
}
"""What strokes 1..3 lie on, as the micrographs show: on T-cells 3 is all round the cells, and brightest."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """One thing to cluster: an image, or the planes of a volume.

    Attributes
    ----------
    name, data
        Its own name, and that of its data set.
    images
        ``(Z, Y, X)`` uint8 grey values.
    truths
        By name ``(Z, Y, X)`` uint8: classes 1..K, 0 where unknown. Figures compare with the first.
    classes
        Names of classes 1..K.
    foreground
        True classes that are objects; empty where unknown.
    objects
        Name of an object -> its true classes.
    """

    name: str
    data: str
    images: NDArray[np.uint8]
    truths: Mapping[str, NDArray[np.uint8]]
    classes: tuple[str, ...]
    foreground: tuple[int, ...] = ()
    objects: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """How many classes the first truth has here."""
        truth = next(iter(self.truths.values()))
        return len(np.unique(truth[truth > 0]))


def load_scenes(only: Sequence[str] = ()) -> tuple[Scene, ...]:
    """Return the scenes, or those named: by their name (``tcells-0``) or by their data set's.

    Raises
    ------
    UsageError
        There is no scene of such a name.
    """
    data_sets = {name.split("-")[0] for name in only} or set(DATASETS)
    scenes = [scene for data in DATASETS if data in data_sets for scene in _LOADERS.get(data, _planes)(data)]
    names = {name for scene in scenes for name in (scene.name, scene.data)}
    for name in only:
        if name not in names:
            raise UsageError(
                f"--only {name}: found no such image, expected {', '.join(DATASETS)}, or one of them as"
                f" {STROKED}-0"
            )
    return tuple(scene for scene in scenes if not only or {scene.name, scene.data} & set(only))


def reduced_scenes(scenes: Sequence[Scene], side: int) -> tuple[Scene, ...]:
    """Return the scenes for the published settings: all T-cells, one plane of each other data set.

    Images are reduced by the whole number that brings their longer side nearest to ``side`` px; those that
    need none are taken as they are. Where planes are chosen, the first one is.
    """
    found: dict[str, Scene] = {}
    for scene in scenes:
        if scene.data == STROKED or scene.data not in {other.data for other in found.values()}:
            first = replace(
                scene,
                name=scene.name if len(scene.images) == 1 else f"{scene.name}-0",
                images=scene.images[:1],
                truths={name: truth[:1] for name, truth in scene.truths.items()},
            )
            factor = max(1, round(max(scene.images.shape[1:]) / side))
            found[first.name] = reduced(first, factor)
    return tuple(found.values())


def reduced(scene: Scene, factor: int) -> Scene:
    """Return a scene whose pixels are means of ``factor`` x ``factor``, rounded; of truths, every n-th pixel.

    Rows and columns that make no whole pixel are left out.
    """
    if factor == 1:
        return scene
    height, width = (side // factor for side in scene.images.shape[1:])
    truths = {name: truth[:, ::factor, ::factor][:, :height, :width] for name, truth in scene.truths.items()}
    return replace(scene, images=_area_mean(scene.images, factor), truths=truths)


def stroke_box(strokes: NDArray[Any], values: Sequence[int]) -> Box | None:
    """Return the half-open box ``(y0, x0, y1, x1)`` around strokes ``(Y, X)`` of some classes, if any."""
    there = np.isin(strokes, values)
    if not there.any():
        return None
    y, x = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
    return int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1


def _area_mean(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    depth, height, width = (n // f for n, f in zip(images.shape, (1, factor, factor), strict=True))
    cut = images[:, : height * factor, : width * factor]
    means = np.rint(cut.reshape(depth, height, factor, width, factor).mean(axis=(2, 4)))
    whole: NDArray[np.uint8] = means.astype(np.uint8)  # 8 bits: a recipe sees 0..255 as [0, 1] still
    return whole


def _tcells(data: str) -> list[Scene]:
    loaded = load_stroked(data)
    return [
        Scene(
            f"{data}-{i}",
            data,
            loaded.images[i : i + 1],
            {"strokes": loaded.strokes[i : i + 1]},
            DRAWN[data],
            foreground=(1, 2),
            objects={"cell": (1, 2), "nucleus": (1,)},
        )
        for i in range(len(loaded.images))
    ]


def _needles(data: str) -> list[Scene]:
    loaded = load_stroked(data)
    reference = "hybrid_crf"
    truths = {"strokes": loaded.strokes, f"reference_{reference}": loaded.references[reference][None]}
    return [Scene(data, data, loaded.images, truths, DRAWN[data])]


def _planes(data: str) -> list[Scene]:
    """Return the test planes, each on its own; ebc2 at half the resolution: a plane is then one tile."""
    loaded = load_dense(data)
    whole = [
        Scene(
            f"{data}-{i}",
            data,
            loaded.images[z : z + 1],
            {"dense": loaded.truth[z : z + 1]},
            loaded.classes,
        )
        for i, z in enumerate(loaded.test)
    ]
    return [reduced(scene, 2) for scene in whole] if data == "ebc2" else whole


def _vnc(data: str) -> list[Scene]:
    loaded = load_dense(data)
    rows, columns = (
        slice((side - VNC_SIDE) // 2, (side + VNC_SIDE) // 2) for side in loaded.images.shape[1:]
    )
    part = (slice(VNC_PLANES.start, VNC_PLANES.stop), rows, columns)
    return [Scene(data, data, loaded.images[part], {"dense": loaded.truth[part]}, loaded.classes)]


_LOADERS = {STROKED: _tcells, "needle_block": _needles, "vnc": _vnc}
