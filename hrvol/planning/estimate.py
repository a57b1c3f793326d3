"""From a few blocks tried to all figures of a run."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrvol.device import cpus
from hrvol.engine.spec import EngineSpec
from hrvol.planning import forecast
from hrvol.planning import resources as room
from hrvol.planning.cache_simulation import MaskSample, ReadForecast, look_at_mask, simulate_reads
from hrvol.planning.calibrate import IDLE_BYTES, Measured, measure
from hrvol.planning.gpu_memory import GpuNeed, gpu_need
from hrvol.planning.plan import Plan
from hrvol.planning.probe import TrialJob, scratch_store
from hrvol.run.job import SegmentJob
from hrvol.run.segment import PreparedRun
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.volume.chunk_cache import CAPACITY
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import box_shape
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import Location

_BOOK_BYTES = 64  # of a block, in the driver

_OFTEN = 3.0  # a volume that is decoded more often is better stored in another way

_SLURM_MEMORY = "8GB"  # of a job, unless it is said


@dataclass(frozen=True, eq=False)
class Task:
    """What a run has to do.

    Attributes
    ----------
    ready, spec
        The run, checked, and its engine.
    grid
        Of blocks.
    numbers, todo, done
        All blocks of the region, those to do, and those of this run that are done.
    was_there
        Whether the output is gone on with.
    """

    ready: PreparedRun
    spec: EngineSpec
    grid: BlockGrid
    numbers: NDArray[np.int64]
    todo: NDArray[np.int64]
    done: NDArray[np.int64]
    was_there: bool

    @property
    def job(self) -> SegmentJob:
        """What workers are told."""
        return self.ready.job

    @property
    def workers(self) -> int:
        """How many there will be."""
        spec = self.spec.limited(max(1, len(self.todo)))
        return spec.workers or 1


def estimate(task: Task, seconds: float, prepare_s: float) -> Plan:
    """Try some blocks of a run, and work out the rest.

    Parameters
    ----------
    task
        The run.
    seconds
        How long to try.
    prepare_s
        Seconds that it took to check what was asked for, which the run will do too.
    """
    job = task.job
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    looked = look_at_mask(job.mask, task.grid, task.todo, job.region)
    memory = room.free_memory() + room.held_memory()[0]
    gpu = gpu_need(task.spec, task.ready.model)  # before blocks are tried there
    notes = [*_notes(task, looked, load), *gpu.notes]
    with tempfile.TemporaryDirectory(
        prefix="hrvol-plan-", dir=_scratch_place(task), ignore_cleanup_errors=True
    ) as folder:
        scratch = Location(folder)
        store = scratch_store(TrialJob(job, scratch), task.ready.model, "plan")
        metadata = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
        measured = None
        if len(task.todo) and looked.blocks > 0:
            measured = _try(task, looked, scratch, seconds, memory)
        return _work_out(task, looked, measured, store, metadata, prepare_s, memory, gpu, load, notes)


def _scratch_place(task: Task) -> Path | None:
    """Return a folder on the output's disk with room to try things; ``None`` for the system's choice."""
    path = task.ready.location.path
    if path is None:
        return None
    place = room.existing_parent(path.absolute().parent)
    depth, height, width = task.grid.side
    kinds = (
        2
        + task.job.predicting.uncertainty
        + len(task.ready.model.classes) * task.job.predicting.probabilities
    )
    wanted = 4 * task.workers * depth * height * width * kinds
    free, _ = room.free_disk(Location(str(place)))
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return None  # only the output itself may be written
    return place if free is not None and free > wanted else None


def _try(task: Task, looked: MaskSample, scratch: Location, seconds: float, memory: int) -> Measured:
    """Try the fullest blocks, spread evenly."""
    sizes = forecast.block_sizes(task.grid, task.todo, task.job.region)
    full = task.todo[sizes.voxels >= 0.9 * sizes.voxels.max()]
    if looked.some is not None:
        inside = np.array(looked.some, np.int64)
        both = inside[np.isin(inside, full)]
        full = both if len(both) else inside
    spec, workers = task.spec, task.workers
    if not spec.serial:
        most = max(1, memory // IDLE_BYTES)
        if spec.remote:
            spec = EngineSpec("cuda" if spec.device == "cuda" else "local", device=spec.device)
            most = min(most, spec.count)
        spec = replace(spec, workers=min(workers, most))
    count = min(len(full), 2 * (spec.workers or 1))
    chosen = [int(full[(2 * i + 1) * len(full) // (2 * count)]) for i in range(count)]
    uneven = len(np.unique(sizes.classified / sizes.tiles)) > 1
    return measure(task.job, task.grid, spec, chosen, scratch, seconds=seconds, uneven=uneven, memory=memory)


def _work_out(
    task: Task,
    looked: MaskSample,
    measured: Measured | None,
    store: LabelStore,
    metadata: Sequence[int],
    prepare_s: float,
    memory: int,
    gpu: GpuNeed,
    load: float,
    notes: Sequence[str],
) -> Plan:
    """Put all figures together; without anything measured there is nothing to do."""
    job, workers = task.job, task.workers
    sizes = forecast.block_sizes(task.grid, task.todo, job.region)
    voxels = round(int(sizes.voxels.sum()) * looked.voxels)
    reading = ReadForecast(0, 0, 0) if measured is None else _reading(task, looked, measured)
    times = {workers: _Times()} if measured is None else _times(task, looked, measured, sizes, reading, store)
    start_s = prepare_s + (0.0 if measured is None else measured.start_s)
    stamped = forecast.block_sizes(task.grid, task.done, job.region).voxels.sum() if len(task.done) else 0
    check_s = 0.0 if measured is None else measured.stamp_s * float(stamped)
    peak = 0 if measured is None else _peak(task, measured, reading, store)
    shared = 0 if measured is None else measured.shared
    driver = 0 if task.spec.serial else room.held_memory()[0] + _BOOK_BYTES * len(task.numbers)
    memory_free, where = _memory(task.spec, memory)
    disk_free, files_free = room.free_disk(task.ready.location)
    nbytes, files = _output(task, looked, measured, store, metadata)
    if measured is not None:
        notes = [*notes, *_notes_of_trial(task, measured, reading)]
    return Plan(
        volume=job.volume.source,
        output=str(task.ready.location),
        engine=task.spec.scheduler_file or task.spec.name,
        workers=workers,
        shape=task.grid.shape,
        block_shape=task.grid.side,
        blocks=len(task.todo),
        done=len(task.done),
        voxels=voxels,
        start_s=start_s,
        check_s=check_s,
        segment_s=times[workers].blocks,
        pyramid_s=times[workers].coarser,
        block_s=times[workers].block,
        by_workers=tuple(
            (count, start_s + check_s + found.blocks + found.coarser)
            for count, found in sorted(times.items())
        ),
        read=reading.decoded,
        wanted=voxels * job.volume.dtype.itemsize,
        worker_memory=peak,
        driver_memory=driver,
        shared_memory=shared,
        memory_needed=peak if task.spec.remote else workers * (peak - shared) + shared + driver,
        memory_free=memory_free,
        memory_where=where,
        gpu_needed=gpu.needed,
        gpu_free=gpu.free,
        output_bytes=nbytes,
        disk_free=disk_free,
        files=files,
        files_free=files_free,
        load=load,
        cpus=cpus(),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Times:
    """Seconds for all blocks, for the coarser levels, and that one worker computes a full block."""

    blocks: float = 0.0
    coarser: float = 0.0
    block: float = 0.0


def _times(
    task: Task,
    looked: MaskSample,
    measured: Measured,
    sizes: forecast.BlockSizes,
    reading: ReadForecast,
    store: LabelStore,
) -> dict[int, _Times]:
    """Return the times by number of workers: of powers of two, and of those asked for."""
    workers, blocks = task.workers, len(task.todo)
    most = max(workers, 64 if task.spec.remote else cpus())
    counts = {2**n for n in range(most.bit_length()) if 2**n <= blocks and not task.spec.serial} | {workers}
    filled = math.prod(box_shape(task.job.region)) * looked.voxels / math.prod(task.grid.shape)
    times = {}
    for count in counts:
        units = _units(task, looked, measured, sizes, reading, count)
        times[count] = _Times(
            forecast.makespan(units, count, measured.pace),
            forecast.pyramid_seconds(
                store.images[0].levels, filled, measured.reduce_s, measured.empty_s, count, measured.pace
            ),
            float(units.max()) * measured.pace(count),
        )
    return times


def _output(
    task: Task, looked: MaskSample, measured: Measured | None, store: LabelStore, metadata: Sequence[int]
) -> tuple[int, int]:
    """Return the bytes and the number of files that will be written."""
    region = task.job.region
    blocks = looked.blocks * len(task.todo)
    parts = sum(plan.parts for image in store.images for plan in image.levels)
    files = blocks * len(store.keys((0, 0, 0)))
    coarser = sum(forecast.level_objects(image.levels, region) for image in store.images)
    files += math.ceil(looked.blocks * coarser)
    files += sum(len(image.levels) for image in store.images)
    files += forecast.ledger_objects(len(task.todo), parts) + (0 if task.was_there else len(metadata))
    nbytes = float(forecast.ENTRY_BYTES * (len(task.todo) + parts) + 2 * sum(metadata))
    if measured is not None:
        raw = sum(1 if image.axes[0] != "c" else len(task.ready.model.classes) for image in store.images)
        voxels = looked.blocks * float(forecast.block_sizes(task.grid, task.todo, region).voxels.sum())
        nbytes += voxels * measured.stored
        nbytes += forecast.level_bytes(store.images[0].levels, voxels, measured.stored, raw)
    clusters = isinstance(task.ready.model.classifier, ClusterClassifier)
    if not task.was_there and (task.spec.remote or clusters):  # a copy of the model is kept
        nbytes, files = nbytes + Path(task.job.model_source.model_file).stat().st_size, files + 2
    return round(nbytes), round(files)


def _reading(task: Task, looked: MaskSample, measured: Measured) -> ReadForecast:
    """Return what is decoded in all; without chunks that are known, the windows that are read."""
    job = task.job
    itemsize = job.volume.dtype.itemsize
    if measured.decode_s:
        found = simulate_reads(
            task.grid, task.todo, job.region, itemsize, workers=task.workers, capacity=CAPACITY
        )
        return replace(found, decoded=round(found.decoded * looked.blocks))
    windows = math.prod(
        sum(stop - start for start, stop in axis) for axis in task.grid.read_spans(job.region)
    )
    read = round(windows * itemsize * looked.blocks * len(task.todo) / len(task.numbers))
    return ReadForecast(read, read, 0)


def _units(
    task: Task,
    looked: MaskSample,
    measured: Measured,
    sizes: forecast.BlockSizes,
    reading: ReadForecast,
    workers: int,
) -> NDArray[np.float64]:
    """Return the work of each block, in planes of one tile: what is computed, read and stored."""
    work = sizes.work(measured.tile_share, measured.pixels) * looked.planes
    voxels = sizes.voxels.astype(np.float64)
    read = voxels * measured.read_s * looked.blocks
    if measured.decode_s:
        read = np.full(len(work), reading.decoded * measured.decode_s / len(work))
    others = (read + voxels * (measured.store_s * looked.blocks + looked.seconds)) / measured.pace.alone
    if task.spec.serial or (workers >= cpus() and not task.spec.remote):
        return work + others  # what one thread does the other has to wait for
    return np.maximum(work, (work + others) / 2)


def _peak(task: Task, measured: Measured, reading: ReadForecast, store: LabelStore) -> int:
    """Return the most memory that a worker will hold: with its cache full, or making coarser levels."""
    tried = simulate_reads(
        task.grid,
        np.array(measured.tried, np.int64),
        task.job.region,
        task.job.volume.dtype.itemsize,
        workers=1,
        capacity=CAPACITY,
    )
    held = max(0, reading.held - tried.held) if measured.decode_s else 0
    at_once = 1 if task.spec.serial else 2
    coarser = max(
        (
            forecast.part_bytes(plan, image.reduction, store.dtype.itemsize)
            for image in store.images
            for plan in image.levels
        ),
        default=0,
    )
    return max(measured.peak + held, measured.loaded + reading.held + at_once * coarser)


def _memory(spec: EngineSpec, memory: int) -> tuple[int | None, str]:
    """Return how much memory there is for the workers, and where."""
    if not spec.remote:
        return memory, "on this machine"
    if spec.name == "slurm" and spec.scheduler_file is None:
        from dask.utils import parse_bytes  # Dask takes a while to import

        job = int(parse_bytes(spec.options.get("memory", _SLURM_MEMORY)))
        return job // int(spec.options.get("processes", 1)), "to a worker in a SLURM job"
    return None, "where the workers are"


def _notes(task: Task, looked: MaskSample, load: float) -> list[str]:
    notes = []
    if task.spec.remote:
        notes.append(
            "Measured on this machine, not on those of the workers: their times are as different as they are."
        )
    if task.ready.location.path is None:
        notes.append("Whether there is room at a URL, and whether it may be written, is not known before.")
    if looked.some == ():
        notes.append(f"No voxel of the mask was found in {looked.count} of {len(task.todo)} blocks.")
    elif looked.some is not None and looked.count < len(task.todo):
        share = f"{100 * looked.voxels:.0f} % of their voxels"
        notes.append(
            f"The mask was looked at in {looked.count} of {len(task.todo)} blocks: {share} are in it."
        )
    if load > max(1.0, 0.5 * cpus()):
        notes.append(
            f"The machine was busy with other work (load {load:.1f}, {cpus()} CPUs): times are beside it."
        )
    if not len(task.todo) and not (task.was_there and task.job.store.complete):
        notes.append(
            "All blocks are done, only coarser levels may be left; how long they take was not measured."
        )
    return notes


def _notes_of_trial(task: Task, measured: Measured, reading: ReadForecast) -> list[str]:
    notes = []
    if not measured.complete:
        notes.append(
            f"Measured with one worker, for lack of time or memory (a plane of one tile took"
            f" {measured.pace.alone:.1f} s): what several do is estimated."
        )
    often = reading.decoded / max(1, reading.once)
    if often > _OFTEN:
        chunks = " x ".join(map(str, task.job.volume.chunks))
        notes.append(
            f"The chunks of the volume ({chunks}) do not suit: each is decoded {often:.0f} times."
            " Chunks of about 64 x 64 x 64 are decoded once."
        )
    return notes
