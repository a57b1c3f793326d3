"""Segment a volume block by block; runs can be interrupted and resumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.engine.check import check_engine
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, DeviceError, EngineError, UsageError
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback
from hrvol.run.block_job import forget_input
from hrvol.run.changed_input import changed_blocks, input_place
from hrvol.run.into_input import segment_into_input
from hrvol.run.job import COMPANION_FILE, MODEL_FILE
from hrvol.run.ledger import Ledger
from hrvol.run.ledger_entries import DONE, lane_of
from hrvol.run.options import InputOptions, OutputOptions, RunOptions, engine_spec
from hrvol.run.prepare import prepare, with_drift, with_factors
from hrvol.run.report import Run, SegmentReport, stopped_error, summarise
from hrvol.run.resume import begin_output, clear_earlier, partition, recheck
from hrvol.run.run_blocks import run_blocks
from hrvol.run.students.slow_notice import recommendation, with_notice
from hrvol.segment.class_weights import ClassWeights
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.model import Model
from hrvol.volume.background.coarse_mask import save_mask
from hrvol.volume.grid.tiling import block_shape
from hrvol.volume.ome.documents import Documents
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.region import Region
from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.run")


def segment_volume(
    volume: Any,
    out: str | Path | Location | None,
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
    into_input: bool = False,
    class_weights: Mapping[str, float] | None = None,
    fractions: Sequence[float] | Mapping[str, float] | None = None,
    companion: str | Path | Model | None = None,
    backend: str = "auto",
    scratch: str | Path | None = None,
    drift: bool = True,
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
        shape. ``None`` with ``into_input``.
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
        array. Blocks outside the mask are not computed. ``auto``: skip the rim of a round reconstruction and
        air around the sample, see :func:`hrvol.volume.background.find.find_material`; the mask is kept in
        ``mask`` of the output.
    level
        Resolution of a multiscale volume, 0 the finest; the output has its shape.
    overwrite
        Delete an earlier output of hrvol and start over.
    name
        Of the labels in ``out``.
    into_input
        Write into the volume's own OME-Zarr (a local image, 0.4 or 0.5) instead: ``labels/<name>`` appears
        there, and in the list of its labels, when all blocks are done. Until then the run is in
        ``labels/<name>.unfinished``. Nothing else in the image is changed, except for a consolidated copy of
        its metadata, if it has one. ``probabilities`` and ``uncertainty`` are inside of the labels' group.
    class_weights
        Factor above 0 by name (or number, as text) of a class, 1 for the others: probabilities are multiplied
        by it and normalised again before labels, probabilities and uncertainty are made, after blending and
        CRF. A factor below 1 makes a class rarer. The output records the factors and can be resumed with
        the same ones only.
    fractions
        Measured volume fractions of all classes in order of value, or by name or number; normalised by their
        sum. Class weights are chosen with which the labels of a sample of the volume, inside ``roi`` and
        ``mask``, have these fractions: see :mod:`hrvol.run.fractions.match_fractions`. The output records
        both, and a resumed run takes the weights from there. Excludes ``class_weights``.
    companion
        A student of the model (:func:`hrvol.distil_model`) or its file: labels, probabilities and uncertainty
        are those of the mean of both models' probabilities, for volumes that are small enough for the model.
        Both must have the same classes. Excludes ``crf`` and ``fractions``. The output records it and can be
        resumed with the same one only.
    backend
        What computes the network of the model on the CPU, see :func:`hrvol.backend.choose_backend`:
        ``torch``, ``openvino``, ``openvino-bf16``, or ``auto``, the fastest that is installed. The output
        records it and can be resumed with the same one only.
    scratch
        Folder on a local disk of the workers. Where chunks of the input are whole planes, and those of a
        layer of blocks have more than 512 MiB, each worker keeps them in a file there, which has no name and
        is gone when the worker ends. ``None``: in memory, up to a third of what is free, or not.
    drift
        Compare some tiles, 3 to 6, with the strokes that the model was trained on, before blocks are
        computed: a warning names planes that look unlike them, and the output records the distances
        (``drift`` in its attributes). Labels do not depend on it. Nothing is compared with models of earlier
        versions and with students.
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
            into_input,
        ),
        WeightsSource.of(weights_path, offline),
        storage_options,
        companion,
        backend,
        scratch,
        drift,
    )
    return segment(volume, out, model, options, stop, progress)


def segment(
    volume: Any,
    out: str | Path | Location | None,
    model: str | Path | Model,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> SegmentReport:
    """Label a volume as :func:`segment_volume` does, with its keywords as one object."""
    if options.output.into_input != (out is None):
        raise UsageError("out: found an output and into_input, or neither, expected one of them")
    if out is None:
        return segment_into_input(
            lambda run: _segment(volume, run, model, options, stop, progress),
            volume,
            model,
            options,
            stop,
            progress,
        )
    return _segment(volume, out, model, options, stop, progress)


def _segment(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    options: RunOptions,
    stop: Stop | None,
    progress: ProgressCallback | None,
) -> SegmentReport:
    options, choice = options.placed()
    output = options.output
    began = round(time.time(), 3)
    with ExitStack() as stack:
        prepared = prepare(volume, out, model, stack, options)
        check_engine(options.engine)
        prepared = with_factors(prepared, options, stop, progress)
        if output.overwrite:  # what is in the way is refused before a volume is compared with the strokes
            clear_earlier(prepared.location)
        prepared = with_drift(prepared, options, stop, progress)
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

        store, exists = begin_output(location, prepared.attributes, create)
        save_mask(location, job.mask)
        if options.engine.remote or isinstance(prepared.model.classifier, ClusterClassifier):
            store.write_file(MODEL_FILE, prepared.content.data)
        if options.engine.remote and prepared.companion is not None:
            store.write_file(COMPANION_FILE, prepared.companion.content.data)
        grid = job.grid
        blocks = grid.inside(job.region)
        spec = options.engine
        driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
        ledger = Ledger(location, len(grid), lane_of(output.part), driver)
        run = Run(grid, blocks, partition(blocks, output.part), job, ledger, input_place(job))
        stop = stop or Stop()
        LOG.info("%s", choice)
        if job.lattice is None and job.companion is None:
            progress = with_notice(progress, recommendation(job, options))
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
