"""Segment a volume block by block; runs can be interrupted and resumed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.device import cpus
from hrvol.engine.check import check_engine
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, DeviceError, EngineError, InputError
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback
from hrvol.recipe.specs import CrfSpec
from hrvol.run.changed_input import changed_blocks, input_place
from hrvol.run.job import MODEL_FILE, ModelContent, ModelSource, SegmentJob, forget_input
from hrvol.run.ledger import MAIN, Ledger
from hrvol.run.ledger_entries import DONE
from hrvol.run.match_fractions import matched_factors, settled_factors
from hrvol.run.options import InputOptions, OutputOptions, PredictOptions, RunOptions, engine_spec
from hrvol.run.predict_student import run_lattice
from hrvol.run.provenance import CLASS_WEIGHTS, of_classes, provenance
from hrvol.run.report import Run, SegmentReport, stopped_error, summarise
from hrvol.run.resume import begin_output, partition, recheck
from hrvol.run.run_blocks import run_blocks
from hrvol.run.student_notices import check_refinement, notices
from hrvol.segment.class_weights import ClassWeights, named_factors
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import check_available
from hrvol.segment.fraction_factors import fraction_shares
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import student_tiles
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.order import BlockGrid, check_blocks
from hrvol.volume.grid.tiling import block_shape
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.documents import Documents
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels, open_volume

LOG = logging.getLogger("hrvol.run")


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
    """

    model: Model
    content: ModelContent
    location: Location
    job: SegmentJob
    attributes: dict[str, Any] = field(repr=False)
    fractions: tuple[float, ...] | None = None


def segment_volume(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    *,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    crf: bool = False,
    roi: Region | None = None,
    mask: Any = None,
    level: int = 0,
    overwrite: bool = False,
    name: str = "hrvol",
    class_weights: Mapping[str, float] | None = None,
    fractions: Sequence[float] | Mapping[str, float] | None = None,
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> SegmentReport:
    """Label a volume with a trained model, block by block, into an OME-Zarr.

    An unfinished output is resumed if it was started with the same input, model and settings: finished
    blocks are checked and kept. A complete output is left as it is.

    Parameters
    ----------
    volume
        A path, a URL, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``. Engines other than
        ``serial`` send arrays in memory to each worker: large volumes belong on disk.
    out
        The OME-Zarr group to write, a path or URL; ``labels/<name>`` in it holds the result, in the volume's
        shape.
    model
        A model or its file.
    engine, workers, scheduler_file, engine_options
        Where blocks are computed, see :class:`hrvol.engine.spec.EngineSpec`. Labels are bit-for-bit identical
        on every engine. A script that uses ``local`` must keep its work under ``if __name__ == "__main__":``.
    device
        Where features are computed, ``cpu``, ``cuda`` or ``auto``: see :func:`hrvol.engine.placement.place`.
        The output records it and can be resumed on the same device only: a GPU rounds differently.
    devices
        GPUs that engine ``cuda`` uses, as in ``CUDA_VISIBLE_DEVICES``, such as ``["0", "2"]``; ``None``: all.
    part
        ``(k, n)``: compute the k-th of n parts of the blocks, from 1. Parts are independent and may run at
        the same time, on one machine or many; the last one completes the output.
    probabilities
        Also write the classes' probabilities, uint8: 255 = certain.
    uncertainty
        Also write the entropy of the probabilities, uint8: 0 = certain, 255 = all classes equally likely.
    crf
        Refine each tile with a dense CRF, with the settings of the model's recipe or else the published ones.
        A recipe with CRF settings is always refined. Needs the extra ``crf``.
    roi
        Label this region only, as ``(z, y, x)`` slices in voxels; the rest of the output stays 0. Its labels
        are those of the whole volume.
    mask
        Label only voxels where this is not 0: labels or a mask of the volume's shape, as a path, URL or
        array. Blocks outside the mask are not computed.
    level
        Resolution of a multiscale volume, 0 the finest; the output has its shape.
    overwrite
        Delete an earlier output of hrvol and start over.
    name
        Of the labels in ``out``.
    class_weights
        Factor above 0 by name (or number, as text) of a class, 1 for the others: probabilities are multiplied
        by it and normalised again before labels, probabilities and uncertainty are made, after blending and
        CRF. A factor below 1 makes a class rarer. The output records the factors and can be resumed with
        the same ones only.
    fractions
        Measured volume fractions of all classes in order of value, or by name or number; normalised by their
        sum. Class weights are chosen with which the labels of a sample of the volume, inside ``roi`` and
        ``mask``, have these fractions: see :mod:`hrvol.run.match_fractions`. The output records both, and a
        resumed run takes the weights from there. Excludes ``class_weights``.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Use weights on this machine only.
    storage_options
        Keywords of the fsspec file system of URLs.
    stop
        When requested, blocks in progress are finished and :class:`StoppedError` is raised; see
        :func:`hrvol.stop_signals`.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    SegmentReport
        Check ``failed``: a failed block does not end the run, but stays 0 in the output, which is not marked
        complete; the same call tries it again. An output without a single finished block is removed.

    Raises
    ------
    UsageError
        The model has no such class, or a factor or fraction cannot be used.
    InputError
        The volume cannot be read, or the model (:class:`ModelError`) is damaged or made with other weights.
    OutputExistsError
        The output exists with other settings (:class:`OtherRunError`), is being written (:class:`BusyError`),
        or was not written by hrvol.
    DeviceError
        A GPU is requested and none exists, or two workers share one.
    StoppedError
        The run was stopped and can be resumed.
    BlockError
        The run was ended because no other block would succeed.
    """
    options = RunOptions(
        engine_spec(engine, workers, scheduler_file, engine_options, devices),
        device,
        InputOptions(roi, mask, level),
        OutputOptions(
            name,
            probabilities,
            uncertainty,
            crf,
            overwrite,
            part,
            ClassWeights.of(class_weights, fractions),
        ),
        WeightsSource.of(weights_path, offline),
        storage_options,
    )
    return segment(volume, out, model, options, stop, progress)


def segment(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> SegmentReport:
    """Label a volume as :func:`segment_volume` does, with its keywords as one object."""
    options, choice = options.placed()
    output = options.output
    began = round(time.time(), 3)
    with ExitStack() as stack:
        prepared = prepare(volume, out, model, stack, options)
        check_engine(options.engine)
        prepared = _with_factors(prepared, options, stop, progress)
        job, location = prepared.job, prepared.location

        def create(exists: bool, written: Documents | None) -> LabelStore:
            return create_labels(
                location,
                job.volume,
                classes=prepared.model.classes,
                block_shape=block_shape(job.volume.shape, job.tiles),
                attributes=prepared.attributes,
                outputs=LabelOutputs(output.name, output.probabilities, output.uncertainty),
                resume=exists or output.part is not None,
                written=written,
            )

        store, exists = begin_output(location, prepared.attributes, create, overwrite=output.overwrite)
        if options.engine.remote or isinstance(prepared.model.classifier, ClusterClassifier):
            store.write_file(MODEL_FILE, prepared.content.data)
        grid = BlockGrid(job.volume.shape, job.tiles, job.volume.chunks)
        blocks = grid.inside(job.region)
        spec = options.engine
        driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
        ledger = Ledger(location, len(grid), output.lane or MAIN, driver)
        run = Run(grid, blocks, partition(blocks, output.part), job, ledger, input_place(job))
        stop = stop or Stop()
        LOG.info("%s", choice)
        try:
            with ledger:
                if exists:
                    if output.part is None:
                        location.tidy()
                    changed = changed_blocks(job, grid, ledger, run.own_blocks, run.place)
                    recheck(ledger, store, grid, run.own_blocks, changed, progress=progress)
                run_blocks(run, spec, stop, progress)
            report = summarise(run, prepared.model.classes, began)
        except Abandoned:
            raise stopped_error(run, stop) from None
        except (BlockError, DeviceError, EngineError):
            _discard_if_empty(run, store, output)
            raise
        finally:
            forget_input()
    if report.failed:
        _discard_if_empty(run, store, output)
    return report


def _discard_if_empty(run: Run, store: LabelStore, output: OutputOptions) -> None:
    """Delete an output of which no block was done."""
    if output.part is None and not np.any(run.ledger.state.of_block == DONE):
        store.discard()


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
        As in :func:`segment_volume`.
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
    keep_inputs(location, opened, options.input.mask, model, options.weights.path, spec.scheduler_file)
    mask = None
    if options.input.mask is not None:
        mask = _open_mask(located(options.input.mask, options.storage_options), opened)
    content = ModelContent.of(model)
    source = content.source(options.weights, spec.device, stack, workers=not spec.serial)
    # A wrong model or missing weights are reported before anything is written.
    loaded, _ = _of_driver(source, options).load()
    if not isinstance(model, Model):  # cached by its content: it may be from another file of the same bytes
        loaded = replace(loaded, source=source.model_file)
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
    weights = output.class_weights
    factors = named_factors(weights.factors, loaded.classes) if weights.factors else None
    fractions = None if weights.fractions is None else fraction_shares(weights.fractions, loaded.classes)
    attributes = provenance(loaded, content.sha256, opened, region, crf, factors, fractions)
    attributes |= {
        "device": spec.device,  # a GPU rounds otherwise
        "level": options.input.level,
        "mask": None if mask is None else mask.identity(),
        "outputs": {
            "labels": output.name,
            "probabilities": output.probabilities,
            "uncertainty": output.uncertainty,
        },
    }
    predicting = PredictOptions(
        output.probabilities,
        output.uncertainty,
        crf,
        cpus() if spec.serial else 1,
        class_factors=factors,
    )
    store = LabelStore(location, output.name)
    job = SegmentJob(opened, store, source, predicting, region, tiles, mask, lattice)
    if lattice is not None:
        for notice in notices(loaded, opened, attributes["input"]["sha256"], lattice):
            LOG.info("%s", notice)
    return PreparedRun(loaded, content, location, job, json.loads(json.dumps(attributes)), fractions)


def _of_driver(source: ModelSource, options: RunOptions) -> ModelSource:
    """Return the source of the model for this process, which uses a GPU only where no other computes."""
    return source if options.engine.serial else replace(source, device="cpu")


def _with_factors(
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


def _open_mask(mask: Any, volume: Volume) -> Volume:
    opened = open_labels(mask)
    if opened.shape != volume.shape:
        raise InputError(
            f"{opened.source}: found a mask of shape {opened.shape},"
            f" expected {volume.shape} as {volume.source}"
        )
    return opened
