"""Check the request of a run, and prepare it, before anything is written."""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hrvol.device import cpus
from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback
from hrvol.recipe.specs import CrfSpec
from hrvol.run.attribute_names import CALIBRATION, CLASS_WEIGHTS, COMPANION, DRIFT
from hrvol.run.cache_choice import MASK_CAPACITY, choose_cache
from hrvol.run.drift import measure_drift
from hrvol.run.drift_entry import recorded_drift
from hrvol.run.find_mask import run_mask
from hrvol.run.fractions.match_fractions import matched_factors, settled_factors
from hrvol.run.job import ModelContent, ModelSource, SegmentJob
from hrvol.run.options import PredictOptions, RunOptions
from hrvol.run.provenance import of_classes, provenance
from hrvol.run.resume import check_output, partition
from hrvol.run.students.companion import PreparedCompanion, prepare_companion
from hrvol.run.students.predict_student import run_lattice
from hrvol.run.students.student_backend import of_backend, with_backend
from hrvol.run.students.student_notices import check_refinement, notices
from hrvol.segment.class_weights import named_factors
from hrvol.segment.crf import check_available
from hrvol.segment.fraction_factors import fraction_shares
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import student_tiles
from hrvol.segment.student.student import StudentClassifier
from hrvol.training.colour import check_input
from hrvol.volume.background.coarse_mask import mask_identity
from hrvol.volume.grid.order import check_blocks
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.region import region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import open_volume

LOG = logging.getLogger("hrvol.run")

DRIFT_SWITCH = "HRVOL_DRIFT"
"""Environment variable: with ``0``, runs do not compare volumes with the strokes."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that is checked and can start; nothing is written yet.

    Attributes
    ----------
    model
        The model; the tiles of its recipe are those of the run.
    content
        Its bytes.
    location
        Of the output.
    job
        What workers need; its store does not exist yet.
    attributes
        Provenance that the output will carry.
    fractions
        Volume fractions of the classes by which class weights are still to be chosen, if they are requested.
    companion
        The student that predicts beside the model; ``None``: none.
    """

    model: Model
    content: ModelContent
    location: Location
    job: SegmentJob
    attributes: dict[str, Any] = field(repr=False)
    fractions: tuple[float, ...] | None = None
    companion: PreparedCompanion | None = None


def prepare(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    stack: ExitStack,
    options: RunOptions,
) -> PreparedRun:
    """Check a request before anything is written.

    Parameters
    ----------
    volume, out, model
        As in :func:`hrvol.segment_volume`.
    stack
        Holds the temporary file of a model that has none.
    options
        The request, its engine placed on a device (:meth:`RunOptions.placed`). Where other processes
        compute, this one tries the network on the CPU, and takes no memory of a GPU.
    """
    spec, output = options.engine, options.output
    opened = open_volume(located(volume, options.storage_options), level=options.input.level)
    location = Location.of(out, options.storage_options)
    region = region_box(options.input.roi, opened)
    files = (options.companion, options.weights.path, spec.scheduler_file)
    keep_inputs(location, None if output.into_input else opened, options.input.mask, model, *files)
    mask = run_mask(location, opened, options)
    content = ModelContent.of(model)
    source = content.source(options.weights, spec.device, stack, workers=not spec.serial)
    source = with_backend(source, content.model, options)
    # A wrong model or missing weights are reported before anything is written.
    loaded, _ = _of_driver(source, options).load()
    if not isinstance(model, Model):  # cached by its content: it may be from another file of the same bytes
        loaded = replace(loaded, source=source.model_file)
    check_input(loaded, opened)
    lattice = None
    if isinstance(loaded.classifier, StudentClassifier):
        check_refinement(loaded, crf=output.crf)
        lattice = run_lattice(opened.shape, loaded.classifier, spec.device)
        loaded = replace(loaded, recipe=loaded.recipe.with_(tiles=student_tiles(lattice)))
    tiles = loaded.recipe.tiles
    check_blocks(opened.source, opened.shape, tiles)
    crf = loaded.recipe.crf or (CrfSpec() if output.crf else None)
    if crf is not None:
        check_available()
    companion = prepare_companion(loaded, opened, stack, options)
    weights = output.class_weights
    factors = named_factors(weights.factors, loaded.classes) if weights.factors else None
    fractions = None if weights.fractions is None else fraction_shares(weights.fractions, loaded.classes)
    attributes = provenance(loaded, content.sha256, opened, region, crf, factors, fractions)
    attributes |= {
        "device": spec.device,  # a GPU rounds otherwise
        "level": options.input.level,
        "mask": mask_identity(mask),
        "outputs": {
            "labels": output.name,
            "probabilities": output.probabilities,
            "uncertainty": output.uncertainty,
        },
    }
    attributes |= of_backend(source.backend)
    if companion is not None:
        attributes[COMPANION] = companion.attributes
    temperature = _temperature(loaded, options, crf)
    if temperature != 1:
        attributes[CALIBRATION] = {"temperature": temperature}
    predicting = PredictOptions(
        output.probabilities,
        output.uncertainty,
        crf,
        cpus() if spec.serial else 1,
        class_factors=factors,
        temperature=temperature,
    )
    store = LabelStore(location, output.name)
    beside = None if companion is None else companion.companion
    job = SegmentJob(opened, store, source, predicting, region, tiles, mask, lattice, beside)
    job = _with_caches(job, options)
    students = [] if lattice is None else [(loaded, lattice)]
    students += [] if companion is None else [(companion.model, companion.companion.lattice)]
    for student, of_student in students:
        for notice in notices(student, opened, attributes["input"]["sha256"], of_student):
            LOG.info("%s", notice)
    attributes = json.loads(json.dumps(attributes))
    return PreparedRun(loaded, content, location, job, attributes, fractions, companion)


def _with_caches(job: SegmentJob, options: RunOptions) -> SegmentJob:
    """Return a job whose workers decode each chunk of the input about once, if they can."""
    numbers = partition(job.grid.inside(job.region), options.output.part)
    spec, folder = options.engine, options.scratch
    cache = choose_cache(job.volume, job.grid, numbers, job.region, spec, folder)
    job = replace(job, cache=cache)
    if job.mask is not None:
        grid = job.mask_grid
        of_mask = choose_cache(job.mask, grid, numbers, job.region, spec, folder, MASK_CAPACITY)
        job = replace(job, mask_cache=of_mask)
    for volume, plan in ((job.volume, cache), (job.mask, job.mask_cache)):
        if volume is not None and (hint := plan.hint(volume.source)):
            LOG.warning("%s", hint)
    return job


def _of_driver(source: ModelSource, options: RunOptions) -> ModelSource:
    """Return the source of the model for this process, which uses a GPU only where no other computes."""
    return source if options.engine.serial else replace(source, device="cpu")


def _temperature(model: Model, options: RunOptions, crf: CrfSpec | None) -> float:
    """Return the temperature of the probabilities of a run; 1 where that of the model does not apply."""
    calibration, output = model.calibration, options.output
    if calibration is None:
        return 1.0
    what = "a CRF" if crf is not None else None if options.companion is None else "a second model"
    if what is None:
        return calibration.temperature
    if output.probabilities or output.uncertainty:
        LOG.warning(
            "%s: its calibration is not applied: it was fitted to the probabilities without %s",
            model.source,
            what,
        )
    return 1.0


def with_drift(
    prepared: PreparedRun, options: RunOptions, stop: Stop | None, progress: ProgressCallback | None
) -> PreparedRun:
    """Compare a volume with the training pixels of its model, and warn of planes that are far from them.

    An output that exists is resumed with what it records. The labels do not depend on it. Features at a
    stride below that of the network (recipe ``paper``) are not compared: a tile takes minutes.
    """
    record, job = prepared.model.drift, prepared.job
    features = prepared.model.recipe.features
    dense = features.uses_deep and features.deep.stride != "native"
    if record is None or dense or not options.drift or os.environ.get(DRIFT_SWITCH) == "0":
        return prepared
    settings, _ = check_output(prepared.location, prepared.attributes)
    if settings is not None:
        drift = recorded_drift(settings, str(prepared.location))
    else:
        source = _of_driver(job.model_source, options)
        drift = measure_drift(job, prepared.model, record, source, stop, progress)
    if drift is None:
        return prepared
    for line in drift.warnings(job.volume.source):
        LOG.warning("%s", line)
    return replace(prepared, attributes=prepared.attributes | {DRIFT: drift.to_dict()})


def with_factors(
    prepared: PreparedRun, options: RunOptions, stop: Stop | None, progress: ProgressCallback | None
) -> PreparedRun:
    """Return a run with the class weights by which its labels have the fractions requested, if any are."""
    job, model, fractions = prepared.job, prepared.model, prepared.fractions
    if fractions is None:
        return prepared

    def choose() -> tuple[float, ...]:
        source = _of_driver(job.model_source, options)
        return matched_factors(job, model, source, fractions, stop, progress)

    factors = settled_factors(
        prepared.location, prepared.attributes, model.classes, choose, overwrite=options.output.overwrite
    )
    job = replace(job, predicting=replace(job.predicting, class_factors=factors))
    attributes = prepared.attributes | {CLASS_WEIGHTS: of_classes(model.classes, factors)}
    return replace(prepared, job=job, attributes=attributes)
