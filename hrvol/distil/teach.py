"""Train students of the sizes requested, compare them with their teacher, and choose one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.distil.cache import DistilCache
from hrvol.distil.check import GAP, LOST, SEEN, WORSE, Agreement, agreement, fit_temperature
from hrvol.distil.cubes import steps_of
from hrvol.distil.examples import trimmed
from hrvol.distil.fit import FitSettings
from hrvol.distil.held_out import HeldOut
from hrvol.distil.options import AUTO, DistilOptions
from hrvol.distil.rarity import is_even, odds_factors, weighed
from hrvol.distil.sample import TeacherSample
from hrvol.distil.sources import Sources
from hrvol.distil.training import KeptBack, Trainer, few_threads
from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback
from hrvol.quality.calibration import tempered
from hrvol.segment.model.model import Model
from hrvol.segment.student.shapes import flop_per_voxel
from hrvol.segment.student.spec import NAMES, student_spec
from hrvol.segment.student.student import StudentClassifier, channel_names
from hrvol.volume.intensity import grey_statistics

LOG = logging.getLogger("hrvol.run")

TRIM = 256
"""Side of the part of a tile that serves students that see volumes: they need what is around it, too."""

COMPARED = 32
"""Most kept-back tiles on which students that see volumes are compared: each costs a slab of the volume."""

RARE = 0.5
"""Power of :attr:`hrvol.distil.fit.FitSettings.rare`."""

CLOSE = 0.005
"""The smallest student whose mean IoU with the teacher is that close to the best is chosen."""


@dataclass(frozen=True, eq=False)
class DistilReport:
    """A student, and how it compares with its teacher.

    Attributes
    ----------
    student
        The model.
    size
        Name of its size.
    tiles, kept_back
        Tiles labelled, and how many of them were kept back.
    labelled
        Tiles that were labelled by this call; the others were in the cache.
    agreement, on_training
        With the teacher, on kept-back tiles and on tiles of the training.
    on_strokes
        Mean IoU of the teacher and of the student on held-out strokes, if there are any.
    by_size
        Mean IoU with the teacher of each size that was trained.
    problems
        Why the student fails the check, a line each; empty if it passes.
    notes
        What else is worth knowing, a line each.
    examples
        Kept-back tiles, the worst first: grey values, and labels of the teacher and the student.
    seconds
        Of the whole call.
    """

    student: Model
    size: str
    tiles: int
    kept_back: int
    labelled: int
    agreement: Agreement
    on_training: Agreement
    on_strokes: tuple[float, float] | None
    by_size: Mapping[str, float]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    examples: tuple[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]], ...] = field(repr=False)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "size": self.size,
            "tiles": self.tiles,
            "kept_back": self.kept_back,
            "labelled": self.labelled,
            "agreement": self.agreement.to_dict(),
            "on_training": self.on_training.to_dict(),
            "on_strokes": None if self.on_strokes is None else list(self.on_strokes),
            "by_size": dict(self.by_size),
            "problems": list(self.problems),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def teach(
    sample: TeacherSample,
    distilling: DistilOptions,
    cache: DistilCache,
    stop: Stop,
    progress: ProgressCallback | None,
    device: str,
    held_out: HeldOut | None = None,
) -> DistilReport:
    """Train the sizes requested, and compare them with the teacher."""
    teacher = sample.teacher
    values = tuple(info.value for info in teacher.classes)
    names = NAMES if distilling.size == AUTO else (distilling.size,)
    volumetric = student_spec(names[0], sample.sees).is_3d
    kept_back, training = (
        tuple(trimmed(tile, TRIM) if volumetric else tile for tile in tiles)
        for tiles in (sample.kept_back, sample.training)
    )
    kept = KeptBack(sample.volume, teacher.window, kept_back)
    if volumetric:
        kept = kept.some(COMPARED)
    key = {
        "teacher": sample.sha256,
        "volume": sample.identity["sha256"],
        "tiles": [tile.describe() for tile in sample.tiles],
    }
    trainer = Trainer(values, kept, cache, key, stop, progress, device)
    # Voxels of rare classes count more only where these are made rarer at the end.
    rare = RARE if distilling.rarity and is_even(teacher) else 0.0
    settings = FitSettings(distilling.steps, rare=rare, seed=distilling.seed)
    found: dict[str, tuple[StudentClassifier, Agreement, float, list[NDArray[np.float32]]]] = {}
    truth = [tile.probabilities for tile in kept.tiles]
    sources = Sources(sample, training, trainer, settings)
    for name in names:
        spec = student_spec(name, sample.sees)
        with few_threads():
            fit = replace(settings, steps=steps_of(spec, settings.steps))
            trained = trainer.train(name, spec, partial(sources.of, spec), fit)
        predicted = kept.predict(trained, device)
        temperature = fit_temperature(truth, predicted, distilling.seed)
        found[name] = (trained, agreement(truth, predicted, temperature), temperature, predicted)
        LOG.info("%s: mean IoU with the teacher %.3f", name, found[name][1].mean_iou)
    best = max(entry[1].mean_iou for entry in found.values())
    chosen = next(name for name, entry in found.items() if entry[1].mean_iou >= best - CLOSE)
    trained, kept_agreement, temperature, on_kept = found[chosen]
    some = KeptBack(sample.volume, teacher.window, training[: max(1, len(kept.tiles))])
    on_some = some.predict(trained, device)
    on_training = agreement([tile.probabilities for tile in some.tiles], on_some, temperature)
    by_size = {name: round(entry[1].mean_iou, 4) for name, entry in found.items()}
    on_strokes = None
    if held_out is not None:
        drawn = KeptBack(sample.volume, teacher.window, held_out.tiles)
        by_student = held_out.mean_iou(drawn.predict(trained, device))
        on_strokes = (held_out.mean_iou([tile.probabilities for tile in held_out.tiles]), by_student)
    class_names = [info.name for info in teacher.classes]
    problems = problems_of(kept_agreement, on_training, class_names, on_strokes)
    mean, std = grey_statistics(sample.volume, teacher.window)
    taught: dict[str, Any] = {
        "teacher": {
            "source": teacher.source,
            "sha256": sample.sha256,
            "weights_sha256": teacher.weights_sha256,
        },
        "volume": dict(sample.identity),
        "grey": {"mean": round(mean, 5), "std": round(std, 5)},
        "sees": sample.sees,
        "spacing": None if np.isinf(sample.spacing) else round(sample.spacing, 2),
        "tiles": len(sample.tiles),
        "kept_back": len(sample.kept_back),
        "size": chosen,
        "kflop": round(flop_per_voxel(trained.spec, len(values)) / 1e3, 2),
        "agreement": kept_agreement.to_dict(),
        "on_training": on_training.to_dict(),
        "on_strokes": None if on_strokes is None else [round(value, 4) for value in on_strokes],
        "by_size": by_size,
        "seed": distilling.seed,
        "steps": distilling.steps,
        "problems": list(problems),
    }
    seen = [tempered(values, temperature) for values in (*on_kept, *on_some)]
    factors = odds_factors(sample, distilling.rarity, (*kept.tiles, *some.tiles), seen)
    if factors is not None:
        taught["class_weights"] = {
            info.name: float(f"{factor:.4g}") for info, factor in zip(teacher.classes, factors, strict=True)
        }
    student = replace(trained, temperature=temperature, taught=taught)
    student = student if factors is None else weighed(student, factors)
    model = Model(
        recipe=teacher.recipe.with_(crf=None),
        classes=teacher.classes,
        window=teacher.window,
        classifier=student,
        weights_sha256=None,
        channels=channel_names(student.spec),
        trained_on=teacher.trained_on,
    )
    weights = np.ones(len(values)) if factors is None else factors
    labels = [
        ((proba.T * weights).T.argmax(axis=0) + 1).astype(np.uint8) for proba in seen[: len(kept.tiles)]
    ]
    return DistilReport(
        model,
        chosen,
        len(sample.tiles),
        len(sample.kept_back),
        0,
        kept_agreement,
        on_training,
        on_strokes,
        by_size,
        problems,
        _notes(kept, kept_agreement),
        _pictures(kept, labels, kept_agreement),
    )


def problems_of(
    kept_back: Agreement,
    on_training: Agreement,
    class_names: Sequence[str],
    on_strokes: tuple[float, float] | None = None,
) -> tuple[str, ...]:
    """Return why a student should not be used, a line each; empty if it passes."""
    problems = []
    of_teacher, of_student = (
        one + other for one, other in zip(kept_back.found(), on_training.found(), strict=True)
    )
    for name, pixels, found in zip(class_names, of_teacher, of_student, strict=True):
        if pixels >= SEEN and found < LOST * pixels:
            problems.append(
                f"class {name}: the student finds {found:,} pixels, the teacher {pixels:,}, expected at least"
                f" {LOST:.0%} of them (label more tiles, or take another --size or --seed)"
            )
    gap = on_training.mean_iou - kept_back.mean_iou
    if gap > GAP:
        problems.append(
            f"mean IoU with the teacher is {on_training.mean_iou:.3f} on tiles of the training and"
            f" {kept_back.mean_iou:.3f} on others, expected a difference of at most {GAP:g}"
        )
    if on_strokes is not None and on_strokes[1] < on_strokes[0] - WORSE:
        problems.append(
            f"mean IoU on held-out strokes is {on_strokes[1]:.3f}, expected at least that of the teacher,"
            f" {on_strokes[0]:.3f}, less {WORSE:g}"
        )
    return tuple(problems)


def _notes(kept: KeptBack, found: Agreement) -> tuple[str, ...]:
    """Return tiles on which a student agrees much less than on others, a line each."""
    notes = []
    for number in found.far_tiles:
        where = kept.tiles[number].where
        y0, y1, x0, x1 = where.tile.core
        notes.append(
            f"agrees on {100 * found.tiles[number]:.1f} % of the pixels of {'zyx'[where.axis]} ="
            f" {where.position}, {y0}:{y1}, {x0}:{x1}, where the median tile has"
            f" {100 * float(np.median(found.tiles)):.1f} %"
        )
    return tuple(notes)


def _pictures(
    kept: KeptBack, labels: Sequence[NDArray[np.uint8]], found: Agreement
) -> tuple[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]], ...]:
    """Return the kept-back tiles, the worst first: grey values, the teacher's labels, the student's."""
    pictures = []
    for number in np.argsort(found.tiles):
        tile = kept.tiles[number]
        image = tile.where.image(kept.volume, kept.window)[tile.where.tile.core_in_window]
        by_teacher = (tile.probabilities.argmax(axis=0) + 1).astype(np.uint8)
        pictures.append((image, by_teacher, labels[number]))
    return tuple(pictures)
