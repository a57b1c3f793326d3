"""Label a sample of tiles with a teacher, and keep a part of it back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.distil.choose import Candidates, Turns
from hrvol.distil.examples import LabelledTile
from hrvol.distil.label import Labeller
from hrvol.distil.options import DistilOptions
from hrvol.distil.planes import PlaneTile
from hrvol.errors import InputError
from hrvol.run.predict import entropy
from hrvol.segment.model.model import Model
from hrvol.segment.student.spec import Dimensions
from hrvol.volume.volume import Volume

MINUTES, GPU_MINUTES = 10.0, 2.0
"""Default time of a distillation on CPUs and on a GPU."""

LABELLING = 0.6
"""Share of the time in which tiles are labelled."""

FIRST = 16
"""Tiles that are labelled before the teacher's doubt decides on further ones, and whose time is measured."""

FEWEST = 10
"""Fewest tiles that are labelled, however long it takes."""


def label_sample(
    found: Candidates, labeller: Labeller, distilling: DistilOptions
) -> tuple[list[LabelledTile], list[float]]:
    """Label tiles in turn, as many as are requested or fit the time.

    Returns
    -------
    tuple
        The tiles, and how many candidates that look alike each of them stands for.
    """
    turns = Turns(found, distilling.seed)
    labelled: list[LabelledTile] = []
    chosen: list[int] = []
    key = {
        "volume": labeller.job.volume.identity()["sha256"],
        "minutes": distilling.minutes,
        "seed": distilling.seed,
        "candidates": [tile.describe() for tile in found.tiles],
    }

    def take(count: int) -> None:
        numbers = turns.take(count)
        of_tile = {found.tiles[number]: number for number in numbers}
        known: dict[PlaneTile, LabelledTile] = {}

        def keep(tile: PlaneTile, probabilities: NDArray[np.float16]) -> None:
            known[tile] = LabelledTile(tile, probabilities)

        labeller.label([found.tiles[number] for number in numbers], keep)
        for tile, number in of_tile.items():  # in order, not as they arrived
            labelled.append(known[tile])
            chosen.append(number)
            turns.report(number, entropy_of(known[tile].probabilities))

    began, before = time.monotonic(), labeller.computed
    wanted = distilling.tiles
    take(min(FIRST, wanted or FIRST))
    if wanted is None:
        note = labeller.cache.read_note(key)
        wanted = note.get("tiles") if note else None
        if not isinstance(wanted, int):
            computed = labeller.computed - before
            per_tile = _pace(labeller, (time.monotonic() - began) / computed if computed else None)
            default = GPU_MINUTES if labeller.engine.device == "cuda" else MINUTES
            seconds = 60 * LABELLING * (distilling.minutes or default)
            wanted = FIRST if per_tile is None else max(FEWEST, int(seconds / per_tile))
            labeller.cache.write_note(key, {"tiles": wanted})
    take(max(0, wanted - len(labelled)))
    if len(labelled) < 2:
        raise InputError(
            f"{labeller.job.volume.source}: found {len(labelled)} tile, expected at least 2, because one is"
            " kept back to check the student: the volume is too small to need one"
        )
    clusters = found.cluster[chosen]
    sizes, taken = np.bincount(found.cluster), np.bincount(clusters)
    return labelled, [float(sizes[cluster] / taken[cluster]) for cluster in clusters]


def _pace(labeller: Labeller, measured: float | None) -> float | None:
    """Return the seconds per tile: as measured now, or by an earlier call; ``None`` if never."""
    key = {"pace": labeller.engine.count}
    if measured is not None:
        labeller.cache.write_note(key, {"seconds": measured})
        return measured
    found = (labeller.cache.read_note(key) or {}).get("seconds")
    return found if isinstance(found, float) and found > 0 else None


def entropy_of(probabilities: NDArray[np.float16]) -> float:
    """Return the mean entropy of probabilities ``(K, ...)`` over log K: 0 certain, 1 not at all."""
    return float(entropy(probabilities.astype(np.float32)).mean())


@dataclass(frozen=True, eq=False)
class TeacherSample:
    """Labelled tiles, with the volume and the teacher that they are from.

    Attributes
    ----------
    volume, teacher
        The volume and the model.
    tiles
        The labelled tiles, in the order in which they were chosen.
    weights
        How many tiles of the volume each of them stands for, up to a factor.
    identity
        Of the volume, see :meth:`hrvol.volume.volume.Volume.identity`.
    sha256
        Of the teacher's file.
    sees
        What the student should see.
    spacing
        How far apart neighbouring planes look, in pixels.
    """

    volume: Volume
    teacher: Model
    tiles: Sequence[LabelledTile]
    weights: Sequence[float]
    identity: Mapping[str, Any]
    sha256: str
    sees: Dimensions = "planes"
    spacing: float = float("inf")

    @property
    def kept_back(self) -> tuple[LabelledTile, ...]:
        """One in five tiles, at least one; of planes along z, as labels are compared there.

        Of all planes, if there are not two tiles along z.
        """
        flat = [tile for tile in self.tiles if tile.where.axis == 0]
        flat = flat if len(flat) > 1 else list(self.tiles)
        count = min(max(1, -(-len(self.tiles) // 5)), max(1, len(flat) - 1))
        return tuple(flat[int((number + 0.5) * len(flat) / count)] for number in range(count))

    @property
    def training(self) -> tuple[LabelledTile, ...]:
        """The others."""
        kept = {id(tile) for tile in self.kept_back}
        return tuple(tile for tile in self.tiles if id(tile) not in kept)

    @property
    def shares(self) -> NDArray[np.float64]:
        """``(K,)``: mean probability of each class in the volume, as the teacher sees it."""
        means = [tile.probabilities.mean(axis=(1, 2), dtype=np.float64) for tile in self.tiles]
        share = np.average(means, axis=0, weights=self.weights)
        return np.asarray(share / share.sum(), np.float64)


def check_classes(sample: TeacherSample, distilling: DistilOptions) -> None:
    """Check that the teacher finds each class in some tile."""
    counts = np.zeros(len(sample.teacher.classes), np.int64)
    for tile in sample.tiles:
        counts += np.bincount(tile.probabilities.argmax(axis=0).ravel(), minlength=len(counts))
    missing = [info.name for info, count in zip(sample.teacher.classes, counts, strict=True) if not count]
    if missing and not distilling.accept:
        raise InputError(
            f"{sample.volume.source}: found no pixel of {', '.join(missing)} in {len(sample.tiles)} tiles,"
            " expected some of each class: label more tiles (--minutes), choose a region (--roi), or --accept"
            " a student that does not know the class"
        )
