"""Clean a label volume block by block, on any engine, resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.analysis.cleaning.joining import Decisions, Pieces, decide
from hrvol.engine.check import check_engine
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, EngineError
from hrvol.progress import ProgressCallback, Tally, renamed
from hrvol.run.block_job import forget_input
from hrvol.run.cache_choice import choose_cache
from hrvol.run.changed_input import changed_blocks, input_place
from hrvol.run.clean.clean_block import CleanJob, clean_block, survey_block
from hrvol.run.clean.prepare_cleaning import CleanOptions, PreparedCleaning, prepare_cleaning
from hrvol.run.drive_blocks import LazyBlocks, Work, drive_blocks
from hrvol.run.ledger import Ledger
from hrvol.run.ledger_entries import DONE
from hrvol.run.report import FailedBlock, Run, stopped_error, summarise
from hrvol.run.resume import begin_output, recheck
from hrvol.run.stages import STAGES, SURVEY, StageStore, discard_if_empty, stage_place
from hrvol.volume.ome.documents import Documents
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels

LOG = logging.getLogger("hrvol.run")


@dataclass(frozen=True)
class CleanReport:
    """Result of a cleaning, and of the earlier runs that it resumed.

    Attributes
    ----------
    voxels, before
        Voxels of the output, and those of them that earlier runs wrote.
    seconds
        Wall time of this run.
    fractions
        Class name -> share of the labelled voxels, in 0..1; empty if nothing was left to do.
    stages
        Number of passages over the labels.
    failed
        Failed blocks. The output is not complete if there are any; the same call tries them again.
    peak
        Peak memory of a worker process, in bytes.
    """

    voxels: int
    before: int
    seconds: float
    fractions: Mapping[str, float]
    stages: int
    failed: tuple[FailedBlock, ...] = ()
    peak: int = 0

    @property
    def voxels_per_s(self) -> float:
        """Voxels written per second of wall time, in this run."""
        return (self.voxels - self.before) / self.seconds if self.seconds > 0 else 0.0


def clean_labels(
    labels: Any,
    out: str | Path | Location,
    steps: Sequence[str],
    *,
    background: bool = False,
    name: str | None = None,
    block_shape: tuple[int, int, int] | None = None,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> CleanReport:
    """Clean labels of any size: remove small components, fill holes, open, close, smooth.

    The result does not depend on blocks: it is that of the same steps on the whole array in memory. An
    unfinished output is resumed if it was started with the same labels and steps.

    Parameters
    ----------
    labels
        Path, URL or array of whole numbers; an output of hrvol, or labels of any format that hrvol reads.
    out
        The OME-Zarr group to write, a path or URL: labels with their names and colours, and coarser levels.
    steps
        What to do, in order: ``remove CLASSES SIZE [into CLASS]``, ``keep-largest CLASSES [into CLASS]``,
        ``fill CLASSES [SIZE]``, ``open CLASSES RADIUS [into CLASS]``, ``close CLASSES RADIUS``, ``majority
        RADIUS``. ``CLASSES`` are names or numbers, separated by commas, or ``all``. Sizes are volumes
        (``500um3``; of an image areas, ``500um2``) and radii lengths (``2um``), or both are in voxels.
        Components are voxels of one class that touch by faces, edges or corners; holes are what a class
        encloses, connected by faces. Removed components get the class they share most faces with, what an
        opening removes the nearest one, or ``into``.
    background
        Whether 0 is the background, a class like others. Otherwise it is what was not labelled: it has no
        vote in a majority, and replaces other classes only where there is nothing else.
    name
        Name of the labels, if the image has several.
    block_shape
        Voxels (z, y, x) of a block, and of a shard.
    engine, workers, scheduler_file, engine_options, storage_options
        As in :func:`hrvol.segment_volume`.
    overwrite
        Delete an earlier output of hrvol and start over.
    stop
        When requested, blocks in progress are finished and :class:`StoppedError` is raised.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    CleanReport
        Check ``failed``: a failed block does not end the run.

    Raises
    ------
    UsageError
        A step cannot be read, or needs a voxel size that the labels do not have.
    InputError
        The labels cannot be read.
    OutputExistsError
        The output exists with other settings (:class:`OtherRunError`), is being written (:class:`BusyError`),
        or was not written by this function.
    StoppedError
        The run was stopped and can be resumed.
    BlockError
        No other block would succeed.
    """
    if isinstance(steps, str):
        steps = [steps]
    spec = EngineSpec(
        engine, workers, None if scheduler_file is None else str(scheduler_file), dict(engine_options or {})
    )
    options = CleanOptions(
        tuple(steps),
        spec,
        background,
        name,
        block_shape,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    return clean(labels, out, options, stop, progress)


def clean(
    labels: Any,
    out: str | Path | Location,
    options: CleanOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> CleanReport:
    """Clean labels as :func:`clean_labels` does, with its keywords as one object."""
    began, stop = round(time.time(), 3), stop or Stop()
    # No features: no torch.
    spec = replace(options.engine, imports=("hrvol.engine.dask_engine", "hrvol.run.clean.clean_block"))
    check_engine(spec)
    options = replace(options, engine=spec)
    prepared = prepare_cleaning(labels, out, options)
    store, _ = _begin(prepared, prepared.location, overwrite=options.overwrite)
    grid = _job(prepared, len(prepared.stages) - 1, store, options).grid
    driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
    ledger = Ledger(store.location, len(grid), about=driver)
    last = _job(prepared, len(prepared.stages) - 1, store, options)
    run = Run(grid, grid.order(), grid.order(), last, ledger)
    try:
        with ledger:
            if store.complete:
                recheck(ledger, store, grid, run.blocks, progress=progress)
            if not store.complete:
                store.location.tidy()
                _all_stages(prepared, run, options, stop, progress)
            report = summarise(run, prepared.classes, began)
            if store.complete and STAGES in store.location.children():
                store.location.remove(STAGES)
    except Abandoned:
        raise stopped_error(run, stop) from None
    except (BlockError, EngineError):
        discard_if_empty(store, ledger)
        raise
    finally:
        forget_input()
    if report.failed:
        discard_if_empty(store, ledger)
    seconds, count = time.time() - began, len(prepared.stages)
    return CleanReport(
        report.voxels, report.before, seconds, report.fractions, count, report.failed, report.peak
    )


def _all_stages(
    prepared: PreparedCleaning,
    final: Run,
    options: CleanOptions,
    stop: Stop,
    progress: ProgressCallback | None,
) -> None:
    """Do one stage after the other; the last one writes the output."""
    count = len(prepared.stages)
    for number in range(count):
        shown = progress if count == 1 else renamed(progress, suffix=f" {number + 1}/{count}")
        store = final.job.store
        assert isinstance(store, LabelStore)
        if number == count - 1:
            job = _job(prepared, number, store, options)
            _drive(job, final.ledger, options, stop, shown)
            return
        place = stage_place(store.location, number)
        between, _ = _begin(prepared, place, number)
        job = _job(prepared, number, StageStore(between.location), options)
        with Ledger(place, len(job.grid)) as ledger:
            run = _drive(job, ledger, options, stop, shown)
            failed = summarise(run, (), 0).failed
        if failed:
            raise BlockError(
                f"{store.location}: {len(failed)} blocks failed; block {failed[0].index}: {failed[0].reason}"
            )


def _drive(
    job: CleanJob, ledger: Ledger, options: CleanOptions, stop: Stop, progress: ProgressCallback | None
) -> Run:
    """Do the blocks of a stage that are not done, or not as the ledger has them."""
    grid, store = job.grid, job.store
    blocks = grid.order()
    run = Run(grid, blocks, blocks, job, ledger, input_place(job))
    changed = changed_blocks(job, grid, ledger, blocks, run.place)
    recheck(ledger, store, grid, blocks, changed, progress=progress)
    if job.stage.step is not None and not np.all(run.states == DONE):
        job = replace(job, decisions=_survey(run, job, options, stop, progress))
        assert job.decisions is not None
        digest = job.decisions.digest.encode()
        if store.read_file(SURVEY) not in (None, digest):
            # Whole components depend on all blocks: those of another survey are done again.
            done = blocks[ledger.state.of_block[blocks] == DONE].tolist()
            recheck(ledger, store, grid, blocks, done)
            store.location.remove(SURVEY)
        store.write_file(SURVEY, digest)
        run = replace(run, job=job)
    drive_blocks(run, Work(clean_block, "clean"), options.engine, stop, progress)
    return run


def _survey(
    run: Run, job: CleanJob, options: CleanOptions, stop: Stop, progress: ProgressCallback | None
) -> Decisions:
    """Label all blocks, and decide what becomes of components that span several."""
    blocks = LazyBlocks(run.grid, run.blocks)
    tally = Tally(progress, "survey", math.prod(job.volume.shape))
    step = job.stage.step
    assert step is not None

    def reports() -> Iterator[Pieces]:
        with open_engine(options.engine.limited(len(blocks)), job) as engine:
            stop.working = True
            for outcome in engine.map_bounded(survey_block, blocks, stop=stop):
                if outcome.value is None:
                    raise BlockError(f"{job.volume.source}: block {outcome.task.index}: {outcome.error}")
                tally.finish(outcome.task.index, math.prod(outcome.task.shape))
                yield outcome.value
        if stop.requested:
            raise stopped_error(run, stop)

    return decide(step, reports())


def _begin(
    prepared: PreparedCleaning, location: Location, number: int | None = None, *, overwrite: bool = False
) -> tuple[LabelStore, bool]:
    """Create an output, or find the one that is resumed."""
    attributes = dict(prepared.attributes) | ({} if number is None else {"stage": number})

    def create(exists: bool, written: Documents | None) -> LabelStore:
        return create_labels(
            location,
            prepared.labels,
            classes=prepared.classes,
            block_shape=prepared.block_shape,
            attributes=attributes,
            resume=exists,
            written=written,
        )

    return begin_output(location, attributes, create, overwrite=overwrite)


def _job(prepared: PreparedCleaning, number: int, store: LabelStore, options: CleanOptions) -> CleanJob:
    """Return what workers need for a stage."""
    volume = prepared.labels
    if number:
        place = stage_place(prepared.location, number - 1)
        volume = open_labels(place) if place.attributes() is not None else volume
    dtype = "uint8" if max(info.value for info in prepared.classes) < 256 else "uint16"
    stage = prepared.stages[number]
    job = CleanJob(volume, store, prepared.block_shape, stage, dtype, options.background)
    grid = job.grid
    cache = choose_cache(volume, grid, grid.order(), job.region, options.engine, options.scratch)
    return replace(job, cache=cache)
