"""Distil a model into a student that predicts a volume many times as fast."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hrvol.classes import class_names
from hrvol.device import choose_device, cpus
from hrvol.distil.cache import DistilCache, tidy
from hrvol.distil.choose import candidates
from hrvol.distil.dimensions import Wish, apparent_spacing, dimensions_of
from hrvol.distil.held_out import label_held_out
from hrvol.distil.label import LabelJob, Labeller
from hrvol.distil.options import AUTO, RARITY, STEPS, DistilOptions
from hrvol.distil.sample import TeacherSample, check_classes, label_sample
from hrvol.distil.teach import DistilReport, teach
from hrvol.engine.check import check_engine
from hrvol.engine.stop import Stop
from hrvol.errors import ModelError
from hrvol.features.arithmetic import ARITHMETIC
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback
from hrvol.run.job import ModelContent
from hrvol.run.options import InputOptions, RunOptions, engine_spec
from hrvol.run.students.student_backend import of_backend, with_backend
from hrvol.segment.model.model import Model
from hrvol.segment.student.student import StudentClassifier
from hrvol.training.colour import STUDENTS, check_input
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import located
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import expect_grey, open_volume

LOG = logging.getLogger("hrvol.run")


def distil_model(
    volume: Any,
    model: str | Path | Model,
    *,
    minutes: float | None = None,
    tiles: int | None = None,
    size: str = AUTO,
    seed: int = 0,
    volumetric: Wish = "auto",
    rarity: float = RARITY,
    steps: int = STEPS,
    accept: bool = False,
    held_out: Any = None,
    roi: Region | None = None,
    level: int = 0,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    backend: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> DistilReport:
    """Train a small convolutional network to predict what a model predicts, on tiles of a volume.

    Tiles spread over the volume are labelled with the model, the teacher, and kept in a cache, so that an
    interrupted call is resumed and another one on the same volume labels few. A fifth of them is kept back,
    to compare the student with its teacher.

    Parameters
    ----------
    volume
        The volume that will be segmented, as in :func:`hrvol.segment_volume`.
    model
        The teacher, of strokes or of clusters, or its file.
    minutes
        Time for labelling and training, about; ``None``: 10, or 2 on a GPU. The number of tiles depends on
        the speed of the machine: give ``tiles`` for a reproducible student.
    tiles
        Number of tiles to label.
    size
        ``small``, ``medium`` or ``large`` (about 6, 22 and 48 kFLOP a voxel); ``auto`` trains all, and takes
        the smallest whose mean IoU with the teacher is within 0.005 of the best.
    seed
        Of the choice of tiles and of the training.
    volumetric
        Whether the student sees neighbouring planes: ``auto``, if neighbouring planes differ no more than
        pixels of a plane at a distance of 4 do; ``on`` or ``off``. Where they are as near as pixels, the
        teacher labels planes along all three axes.
    rarity
        The teacher weighs all classes evenly, and so finds too much of rare ones. The student's odds of a
        class are multiplied by this power of the class's mean probability in the volume; 0 keeps the
        teacher's. Only for teachers trained with ``class_weight: balanced``.
    steps
        Optimisation steps of each student.
    accept
        Return the student even if it fails the check.
    held_out
        Strokes on the volume that the teacher was not trained on, as in :func:`hrvol.train_model`: teacher
        and student are compared on them.
    roi
        Take tiles from this region only.
    level
        Resolution of a multiscale volume, 0 the finest.
    engine, workers, scheduler_file, engine_options, device, devices
        Where tiles are labelled, as in :func:`hrvol.segment_volume`. The student is trained in this process.
    backend, weights_path, offline, storage_options, stop, progress
        As in :func:`hrvol.segment_volume`.

    Returns
    -------
    DistilReport
        ``student`` is a model for :func:`hrvol.segment_volume`.

    Raises
    ------
    ModelError
        The model is a student itself; or the student fails the check and ``accept`` is false; or the training
        diverged.
    InputError
        The volume cannot be read, or is too small to keep a tile back.
    StoppedError
        The call was stopped and can be resumed.
    """
    options = RunOptions(
        engine_spec(engine, workers, scheduler_file, engine_options, devices),
        device,
        InputOptions(roi, None, level),
        weights=WeightsSource.of(weights_path, offline),
        storage_options=storage_options,
        backend=backend,
    )
    return distil(
        volume,
        model,
        DistilOptions(minutes, tiles, size, seed, volumetric, rarity, steps, accept, held_out),
        options,
        stop,
        progress,
    )


def distil(
    volume: Any,
    model: str | Path | Model,
    distilling: DistilOptions,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> DistilReport:
    """Distil a model as :func:`distil_model` does, with its keywords as objects."""
    began = time.monotonic()
    options, choice = options.placed()
    check_engine(options.engine)
    stop = stop or Stop()
    with ExitStack() as stack:
        opened = open_volume(located(volume, options.storage_options), level=options.input.level)
        expect_grey(opened, STUDENTS)
        content = ModelContent.of(model)
        source = content.source(
            options.weights, options.engine.device, stack, workers=not options.engine.serial
        )
        source = with_backend(source, content.model, options)
        teacher, _ = (source if options.engine.serial else replace(source, device="cpu")).load()
        if isinstance(teacher.classifier, StudentClassifier):
            raise ModelError(f"{teacher.source}: found a student, expected a model of hrvol train or cluster")
        check_input(teacher, opened)
        LOG.info("%s", choice)
        identity = opened.identity()
        cache = DistilCache.of(
            {"teacher": content.sha256, "device": options.engine.device, "arithmetic": ARITHMETIC}
            | of_backend(source.backend)
        )
        region = region_box(options.input.roi, opened)
        spacing = apparent_spacing(opened, distilling.seed, region)
        sees, axes = dimensions_of(distilling.volumetric, spacing, box_shape(region))
        LOG.info(
            "neighbouring planes are as far apart as %.1f px of a plane: the student sees %s", spacing, sees
        )
        found = candidates(
            opened, teacher.window, teacher.recipe.tiles, axes, distilling.seed, region, progress, cache
        )
        threads = cpus() if options.engine.serial else 1
        labeller = Labeller(
            LabelJob(opened, teacher.window, source, threads),
            options.engine,
            cache,
            len(teacher.classes),
            stop,
            progress,
        )
        labelled, weights = label_sample(found, labeller, distilling)
        held_out = None
        if distilling.held_out is not None:
            strokes = open_strokes(
                distilling.held_out,
                opened,
                names=class_names(teacher.classes),
                storage_options=options.storage_options,
            )
            values = [info.value for info in teacher.classes]
            held_out = label_held_out(strokes, opened.shape, teacher.recipe.tiles, values, labeller)
    tidy(cache)
    sample = TeacherSample(opened, teacher, labelled, weights, identity, content.sha256, sees, spacing)
    check_classes(sample, distilling)
    # Where the workers with GPUs are on other machines, this one uses a GPU only if it has one.
    elsewhere = options.engine.remote and options.engine.device == "cuda"
    device = choose_device("auto" if elsewhere else options.engine.device).device
    report = teach(sample, distilling, cache, stop, progress, device, held_out)
    report = replace(
        report,
        student=_requested(report.student, distilling, region),
        labelled=labeller.computed,
        seconds=time.monotonic() - began,
    )
    if report.problems and not distilling.accept:
        raise ModelError(
            f"{teacher.source}: the student fails the check: {'; '.join(report.problems)}; label more tiles"
            " (--minutes), use --size large, draw strokes where they disagree, or --accept it"
        )
    return report


def request_of(distilling: DistilOptions, region: Box) -> dict[str, Any]:
    """Return what a student records of the request that it was made for, as JSON values."""
    return distilling.to_dict() | {"region": [[span.start, span.stop] for span in region]}


def _requested(model: Model, distilling: DistilOptions, region: Box) -> Model:
    """Return a student that records its request."""
    student = model.classifier
    assert isinstance(student, StudentClassifier)
    taught = {**student.taught, "request": request_of(distilling, region)}
    return replace(model, classifier=replace(student, taught=taught))
