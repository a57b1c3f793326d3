"""Separate the touching objects of a label volume block by block, on any engine, resumable."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.analysis.classes_of_objects import OBJECTS, classes_file, classes_of_objects
from hrvol.analysis.separating.basins import CELL
from hrvol.analysis.separating.graph import Basins
from hrvol.analysis.separating.merging import Objects, merge_basins
from hrvol.engine.check import check_engine
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, EngineError
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.block_job import forget_input
from hrvol.run.cache_choice import choose_cache
from hrvol.run.changed_input import changed_blocks, input_place
from hrvol.run.drive_blocks import LazyBlocks, Work, drive_blocks
from hrvol.run.instances.instance_block import BasinJob, ObjectJob, survey_block, write_block
from hrvol.run.instances.prepare_instances import (
    DEPTH,
    DISTANCE,
    InstanceOptions,
    PreparedInstances,
    prepare_instances,
)
from hrvol.run.ledger import Ledger
from hrvol.run.ledger_entries import DONE
from hrvol.run.report import FailedBlock, Run, stopped_error, summarise
from hrvol.run.resume import begin_output, recheck
from hrvol.run.stages import STAGES, SURVEY, StageStore, discard_if_empty, stage_place
from hrvol.volume.ome.documents import Documents
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels


@dataclass(frozen=True)
class InstanceReport:
    """Result of a separation, and of the earlier runs that it resumed.

    Attributes
    ----------
    objects
        Class name -> number of objects, of those that are kept; empty if blocks failed.
    voxels, before
        Voxels of the output, and those of them that earlier runs wrote.
    seconds
        Wall time of this run.
    failed
        Failed blocks. The output is not complete if there are any; the same call tries them again.
    peak
        Peak memory of a worker process, in bytes.
    """

    objects: Mapping[str, int]
    voxels: int
    before: int
    seconds: float
    failed: tuple[FailedBlock, ...] = ()
    peak: int = 0

    @property
    def voxels_per_s(self) -> float:
        """Voxels written per second of wall time, in this run."""
        return (self.voxels - self.before) / self.seconds if self.seconds > 0 else 0.0


def separate_instances(
    labels: Any,
    out: str | Path | Location,
    classes: str | Sequence[str],
    *,
    depth: str = DEPTH,
    largest: str | None = None,
    min_size: str | None = None,
    border: bool = True,
    landscape: str = DISTANCE,
    probabilities: Any = None,
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
) -> InstanceReport:
    """Separate touching objects of labels of any size: particles, fibres, cells.

    Each object has a peak of the landscape, by default of the distance to the border of its class; objects
    meet where the landscape is lowest between peaks (a watershed from h-maxima). The result does not depend
    on blocks: it is that of the whole array in memory, voxel by voxel. Objects are numbered from 1 in the
    order of their first voxels. An unfinished output is resumed if it was started with the same labels and
    settings.

    Parameters
    ----------
    labels
        Path, URL or array of whole numbers; an output of hrvol, or labels of any format that hrvol reads.
    out
        The OME-Zarr group to write, a path or URL: numbers of objects, uint32 (uint64 where 32 bits may not
        do), and coarser levels.
    classes
        Names or numbers of the classes whose objects are separated; ``all``. No object is of two classes.
    depth
        How far a peak rises above the pass to a higher one, to be an object of its own: ``30%`` of its own
        height, a length (``0.5um``), or a number of voxels. Larger depths separate less. Of probabilities in
        percent.
    largest
        Diameter (a length, or a number of voxels) from which on all is equally thick: limits what is read
        around blocks. ``None``: 256 voxels.
    min_size
        Smaller objects are removed: a volume (``500um3``; of an image an area), or a number of voxels.
    border
        Whether objects that reach a border of the volume are kept.
    landscape
        ``distance``, or ``probability`` of the class, where a run has written it.
    probabilities
        Output of the run that has the probabilities, if not ``labels``.
    name
        Name of the labels, if the image has several.
    block_shape
        Voxels (z, y, x) of a block, and of a shard; rounded up to multiples of 128.
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
    InstanceReport
        Check ``failed``: a failed block does not end the run.

    Raises
    ------
    UsageError
        A setting cannot be read, or needs a voxel size that the labels do not have.
    InputError
        The labels cannot be read, or do not fit the probabilities.
    OutputExistsError
        The output exists with other settings (:class:`OtherRunError`), is being written (:class:`BusyError`),
        or was not written by this function.
    StoppedError
        The run was stopped and can be resumed.
    BlockError
        No other block would succeed.
    """
    spec = EngineSpec(
        engine, workers, None if scheduler_file is None else str(scheduler_file), dict(engine_options or {})
    )
    options = InstanceOptions(
        (classes,) if isinstance(classes, str) else tuple(classes),
        depth,
        largest,
        min_size,
        border,
        landscape,
        probabilities,
        spec,
        name,
        block_shape,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    return separate(labels, out, options, stop, progress)


def separate(
    labels: Any,
    out: str | Path | Location,
    options: InstanceOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
    *,
    cell: int = CELL,
) -> InstanceReport:
    """Separate objects as :func:`separate_instances` does, with its keywords as one object."""
    began, stop = round(time.time(), 3), stop or Stop()
    # No features: no torch.
    spec = replace(options.engine, imports=("hrvol.engine.dask_engine", "hrvol.run.instances.instance_block"))
    check_engine(spec)
    options = replace(options, engine=spec)
    prepared = prepare_instances(labels, out, options, cell)
    store = _begin(prepared, prepared.location, overwrite=options.overwrite)
    job = ObjectJob(prepared.labels, store, prepared.block_shape, prepared.landscape)
    grid = job.grid
    driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
    ledger = Ledger(store.location, len(grid), about=driver)
    run = Run(grid, grid.order(), grid.order(), job, ledger)
    try:
        with ledger:
            if store.complete:
                recheck(ledger, store, grid, run.blocks, progress=progress)
            if not store.complete:
                store.location.tidy()
                _both_passages(prepared, run, options, stop, progress)
            report = summarise(run, (), began)
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
    found = {} if report.failed else _counts(store, prepared)
    return InstanceReport(
        found, report.voxels, report.before, time.time() - began, report.failed, report.peak
    )


def _both_passages(
    prepared: PreparedInstances,
    final: Run,
    options: InstanceOptions,
    stop: Stop,
    progress: ProgressCallback | None,
) -> None:
    """Find basins, merge them to objects, and write these."""
    store = final.job.store
    assert isinstance(store, LabelStore)
    place = stage_place(store.location, 0)
    between = StageStore(_begin(prepared, place, stage=True).location)
    basins = BasinJob(prepared.labels, between, prepared.block_shape, prepared.landscape)
    basins = replace(basins, cache=_cache(basins, options))
    with Ledger(place, len(basins.grid)) as ledger:
        run = _checked(basins, ledger, progress)
        drive_blocks(run, Work(write_block, "basins"), options.engine, stop, progress)
        failed = summarise(run, (), 0).failed
    if failed:
        raise BlockError(
            f"{store.location}: {len(failed)} blocks failed; block {failed[0].index}: {failed[0].reason}"
        )
    job = ObjectJob(open_labels(place), store, prepared.block_shape, prepared.landscape)
    job = replace(job, cache=_cache(job, options))
    run = _checked(job, final.ledger, progress)
    if not np.all(run.states == DONE):
        objects = _survey(run, job, prepared, (options.engine, stop, progress))
        digest = objects.digest.encode()
        if store.read_file(SURVEY) not in (None, digest):
            # Objects depend on all blocks: those of another survey are written again.
            done = run.blocks[run.states == DONE].tolist()
            recheck(final.ledger, store, run.grid, run.blocks, done)
            store.location.remove(SURVEY)
        store.write_file(OBJECTS, classes_file(objects.classes))
        store.write_file(SURVEY, digest)
        run = replace(run, job=replace(job, objects=objects))
    drive_blocks(run, Work(write_block, "objects"), options.engine, stop, progress)


def _checked(job: BasinJob | ObjectJob, ledger: Ledger, progress: ProgressCallback | None) -> Run:
    """Return a run of which blocks are pending that are damaged, or whose input has changed."""
    grid = job.grid
    blocks = grid.order()
    run = Run(grid, blocks, blocks, job, ledger, input_place(job))
    changed = changed_blocks(job, grid, ledger, blocks, run.place)
    recheck(ledger, job.store, grid, blocks, changed, progress=progress)
    return run


def _survey(
    run: Run,
    job: ObjectJob,
    prepared: PreparedInstances,
    how: tuple[EngineSpec, Stop, ProgressCallback | None],
) -> Objects:
    """Describe the basins of all blocks, and merge them."""
    spec, stop, progress = how
    blocks = LazyBlocks(run.grid, run.blocks)
    tally = Tally(progress, "survey", math.prod(job.volume.shape))

    def reports() -> Iterator[Basins]:
        with open_engine(spec.limited(len(blocks)), job) as engine:
            stop.working = True
            for outcome in engine.map_bounded(survey_block, blocks, stop=stop):
                if outcome.value is None:
                    raise BlockError(f"{job.volume.source}: block {outcome.task.index}: {outcome.error}")
                tally.finish(outcome.task.index, math.prod(outcome.task.shape))
                yield outcome.value
        if stop.requested:
            raise stopped_error(run, stop)

    return merge_basins(reports(), prepared.landscape.depth, prepared.choice)


def _begin(
    prepared: PreparedInstances, location: Location, *, stage: bool = False, overwrite: bool = False
) -> LabelStore:
    """Create an output, or find the one that is resumed."""
    attributes = dict(prepared.attributes) | ({"stage": 0} if stage else {})

    def create(exists: bool, written: Documents | None) -> LabelStore:
        return create_labels(
            location,
            prepared.labels,
            classes=(),
            block_shape=prepared.block_shape,
            attributes=attributes,
            outputs=LabelOutputs(dtype="uint64" if stage else prepared.dtype),
            resume=exists,
            written=written,
        )

    return begin_output(location, attributes, create, overwrite=overwrite)[0]


def _cache(job: BasinJob | ObjectJob, options: InstanceOptions) -> Any:
    """Choose where workers keep decoded chunks."""
    grid = job.grid
    return choose_cache(job.volume, grid, grid.order(), job.region, options.engine, options.scratch)


def _counts(store: LabelStore, prepared: PreparedInstances) -> dict[str, int]:
    """Return the number of objects of each class."""
    found = Counter(classes_of_objects(store.location))
    return {info.name: found[info.name] for info in prepared.classes}
