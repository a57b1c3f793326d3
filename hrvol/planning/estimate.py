"""Compute all figures of a run's plan from a few trial blocks."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrvol.device import cpus
from hrvol.engine.spec import EngineSpec
from hrvol.memory import free_memory
from hrvol.planning import forecast, resources
from hrvol.planning.calibrate import IDLE_BYTES, Measured, measure
from hrvol.planning.gpu_memory import GpuNeed, gpu_need
from hrvol.planning.mask_sample import MaskSample, sample_mask
from hrvol.planning.plan import Plan
from hrvol.planning.probe import scratch_store
from hrvol.planning.task import Task
from hrvol.planning.trial_block import TrialJob
from hrvol.progress import format_size
from hrvol.run.cache_choice import slurm_memory
from hrvol.run.find_mask import describe
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.background.coarse_mask import NAME, CoarseMask
from hrvol.volume.grid.tiling import box_shape
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.read_forecast import ReadForecast, simulate_reads
from hrvol.volume.storage.location import Location

_BLOCK_BYTES = 64  # of the driver's memory, per block

_MOST_DECODES = 3.0  # per chunk; beyond that a note recommends other chunks


@dataclass(frozen=True, eq=False)
class _Basis:
    """Facts from which a plan is computed, apart from the trial blocks.

    Attributes
    ----------
    task, mask
        The run, and the sample of its mask.
    store, metadata
        An output like that of the run, and the bytes of each of its metadata files.
    prepare_s
        Seconds to prepare the run.
    memory, gpu
        Bytes of free memory on this machine, and the memory of the GPU.
    load
        Load average of this machine.
    """

    task: Task
    mask: MaskSample
    store: LabelStore
    metadata: tuple[int, ...]
    prepare_s: float
    memory: int
    gpu: GpuNeed
    load: float


def estimate(task: Task, seconds: float, prepare_s: float) -> Plan:
    """Run a few trial blocks and compute the plan from them.

    Parameters
    ----------
    task
        The run.
    seconds
        Time for the trial blocks.
    prepare_s
        Seconds that preparing the run took, which the run itself will take too.
    """
    job = task.job
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    mask = sample_mask(job.mask, task.grid, task.pending, job.region)
    memory = free_memory() + resources.held_memory()[0]
    # Before trial blocks use the GPU.
    gpu = gpu_need(task.spec, task.prepared.model, companion=job.companion is not None)
    notes = [*_notes(task, mask, load), *gpu.notes]
    with tempfile.TemporaryDirectory(
        prefix="hrvol-plan-", dir=_scratch_folder(task), ignore_cleanup_errors=True
    ) as folder:
        scratch = Location(folder)
        store = scratch_store(TrialJob(job, scratch), task.prepared.model, "plan")
        metadata = tuple(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        basis = _Basis(task, mask, store, metadata, prepare_s, memory, gpu, load)
        measured = None
        if len(task.pending) and mask.blocks > 0:
            measured = _measure(basis, scratch, seconds)
        return _plan(basis, measured, notes)


def _scratch_folder(task: Task) -> Path | None:
    """Return a folder with enough room on the disk of the output; ``None``: the system's default."""
    path = task.prepared.location.path
    if path is None:
        return None
    folder = resources.existing_parent(path.absolute().parent)
    depth, height, width = task.grid.side
    predicting = task.job.predicting
    kinds = 2 + predicting.uncertainty + len(task.prepared.model.classes) * predicting.probabilities
    needed = 4 * task.workers * depth * height * width * kinds
    free, _ = resources.free_disk(Location(str(folder)))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None  # only the output itself may be writable
    return folder if free is not None and free > needed else None


def _measure(basis: _Basis, scratch: Location, seconds: float) -> Measured:
    """Run trial blocks: the fullest, spread evenly."""
    task, memory = basis.task, basis.memory
    sizes = forecast.block_sizes(task.grid, task.pending, task.job.region)
    full = task.pending[sizes.voxels >= 0.9 * sizes.voxels.max()]
    if basis.mask.numbers is not None:
        inside = np.array(basis.mask.numbers, np.int64)
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
    student = isinstance(task.prepared.model.classifier, StudentClassifier)
    # A student predicts whole cells, whatever part of them counts.
    uneven = not student and len(np.unique(sizes.classified / sizes.tiles)) > 1
    return measure(task.job, task.grid, spec, chosen, scratch, seconds=seconds, uneven=uneven, memory=memory)


def _plan(basis: _Basis, measured: Measured | None, notes: list[str]) -> Plan:
    """Return the plan; without a measurement there is nothing to compute."""
    task = basis.task
    job, workers = task.job, task.workers
    sizes = forecast.block_sizes(task.grid, task.pending, job.region)
    voxels = round(int(sizes.voxels.sum()) * basis.mask.voxels)
    reading = ReadForecast(0, 0, 0) if measured is None else _reading(basis, measured)
    times = {workers: _Times()} if measured is None else _times(basis, measured, sizes, reading)
    start_s = basis.prepare_s + (0.0 if measured is None else measured.start_s)
    checked = forecast.block_sizes(task.grid, task.done, job.region).voxels.sum() if len(task.done) else 0
    check_s = 0.0 if measured is None else measured.checksum_s * float(checked)
    peak = 0 if measured is None else _peak(basis, measured, reading)
    shared = 0 if measured is None else measured.shared
    driver = 0 if task.spec.serial else resources.held_memory()[0] + _BLOCK_BYTES * len(task.numbers)
    memory_free, memory_where = _memory(task.spec, basis.memory)
    disk_free, files_free = resources.free_disk(task.prepared.location)
    nbytes, files = _output(basis, measured)
    if measured is not None:
        notes = [*notes, *_notes_of_trial(task, measured, reading)]
    return Plan(
        volume=job.volume.source,
        output=str(task.prepared.location),
        engine=task.spec.scheduler_file or task.spec.name,
        workers=workers,
        shape=task.grid.shape,
        block_shape=task.grid.side,
        blocks=len(task.pending),
        done=len(task.done),
        voxels=voxels,
        start_s=start_s,
        check_s=check_s,
        segment_s=times[workers].blocks,
        pyramid_s=times[workers].coarser,
        block_s=times[workers].block,
        by_workers=tuple(
            (count, start_s + check_s + seconds.blocks + seconds.coarser)
            for count, seconds in sorted(times.items())
        ),
        read=reading.decoded,
        wanted=voxels * job.volume.dtype.itemsize,
        worker_memory=peak,
        driver_memory=driver,
        shared_memory=shared,
        memory_needed=peak if task.spec.remote else workers * (peak - shared) + shared + driver,
        memory_free=memory_free,
        memory_where=memory_where,
        gpu_needed=basis.gpu.needed,
        gpu_free=basis.gpu.free,
        output_bytes=nbytes,
        disk_free=disk_free,
        files=files,
        files_free=files_free,
        load=basis.load,
        cpus=cpus(),
        notes=tuple(notes),
        machinery_s=0.0 if measured is None else measured.read_s + measured.store_s,
        decodes=reading.decoded / reading.once if reading.once and measured and measured.decode_s else 0.0,
        cache=reading.held,
        scratch=job.cache.scratch,
    )


@dataclass(frozen=True)
class _Times:
    """Seconds for all blocks, for the coarser levels, and for one worker to compute a full block."""

    blocks: float = 0.0
    coarser: float = 0.0
    block: float = 0.0


def _times(
    basis: _Basis, measured: Measured, sizes: forecast.BlockSizes, reading: ReadForecast
) -> dict[int, _Times]:
    """Return the times by number of workers: powers of two, and the requested number."""
    task = basis.task
    workers, blocks = task.workers, len(task.pending)
    most = max(workers, 64 if task.spec.remote else cpus())
    counts = {2**n for n in range(most.bit_length()) if 2**n <= blocks and not task.spec.serial} | {workers}
    filled = math.prod(box_shape(task.job.region)) * basis.mask.voxels / math.prod(task.grid.shape)
    levels = basis.store.images[0].levels
    times = {}
    for count in counts:
        units = _units(basis, measured, sizes, reading, count)
        times[count] = _Times(
            forecast.makespan(units, count, measured.pace),
            forecast.pyramid_seconds(
                levels, filled, measured.reduce_s, measured.empty_s, count, measured.pace
            ),
            float(units.max()) * measured.pace(count),
        )
    return times


def _output(basis: _Basis, measured: Measured | None) -> tuple[int, int]:
    """Return the bytes and the number of files to be written."""
    task, mask, images = basis.task, basis.mask, basis.store.images
    region = task.job.region
    blocks = mask.blocks * len(task.pending)
    parts = sum(plan.parts for image in images for plan in image.levels)
    files = blocks * len(basis.store.keys((0, 0, 0)))
    coarser = sum(forecast.level_objects(image.levels, region) for image in images)
    files += math.ceil(mask.blocks * coarser)
    files += sum(len(image.levels) for image in images)
    files += forecast.ledger_objects(len(task.pending), parts) + (0 if task.exists else len(basis.metadata))
    nbytes = float(forecast.ENTRY_BYTES * (len(task.pending) + parts) + 2 * sum(basis.metadata))
    if measured is not None:
        raw = sum(1 if image.axes[0] != "c" else len(task.prepared.model.classes) for image in images)
        voxels = mask.blocks * float(forecast.block_sizes(task.grid, task.pending, region).voxels.sum())
        nbytes += voxels * measured.stored
        nbytes += forecast.level_bytes(images[0].levels, voxels, measured.stored, raw)
    clusters = isinstance(task.prepared.model.classifier, ClusterClassifier)
    if not task.exists and (task.spec.remote or clusters):  # the output keeps a copy of the model
        nbytes, files = nbytes + len(task.prepared.content.data), files + 2
    if not task.exists and task.spec.remote and task.prepared.companion is not None:
        nbytes, files = nbytes + len(task.prepared.companion.content.data), files + 2
    return round(nbytes), round(files)


def _reading(basis: _Basis, measured: Measured) -> ReadForecast:
    """Return the bytes decoded in all; if chunks are unknown, the bytes of the windows read."""
    task, mask = basis.task, basis.mask
    job = task.job
    plain = job.volume.dtype.itemsize * job.volume.channels
    itemsize = job.volume.decoded_itemsize if measured.decode_s else plain
    if measured.decode_s:
        capacity = job.cache.capacity
        reads = simulate_reads(
            task.grid, task.pending, job.region, itemsize, workers=task.workers, capacity=capacity
        )
        return replace(reads, decoded=round(reads.decoded * mask.blocks))
    windows = math.prod(
        sum(stop - start for start, stop in axis) for axis in task.grid.read_spans(job.region)
    )
    read = round(windows * itemsize * mask.blocks * len(task.pending) / len(task.numbers))
    return ReadForecast(read, read, 0)


def _units(
    basis: _Basis, measured: Measured, sizes: forecast.BlockSizes, reading: ReadForecast, workers: int
) -> NDArray[np.float64]:
    """Return the work of each block, in planes of one tile: computing, reading and storing."""
    task, mask = basis.task, basis.mask
    work = sizes.work(measured.tile_share, measured.pixels) * mask.planes
    voxels = sizes.voxels.astype(np.float64)
    read = voxels * measured.read_s * mask.blocks
    if measured.decode_s:
        read = np.full(len(work), reading.decoded * measured.decode_s / len(work))
    others = (read + voxels * (measured.store_s * mask.blocks + mask.seconds)) / measured.pace.alone
    if task.spec.serial or (workers >= cpus() and not task.spec.remote):
        return work + others  # the two threads of a worker share one CPU
    return np.maximum(work, (work + others) / 2)


def _peak(basis: _Basis, measured: Measured, reading: ReadForecast) -> int:
    """Return the peak memory of a worker: with its cache full, or computing coarser levels."""
    task = basis.task
    tried = simulate_reads(
        task.grid,
        np.array(measured.tried, np.int64),
        task.job.region,
        task.job.volume.decoded_itemsize,
        workers=1,
        capacity=task.job.cache.capacity,
    )
    in_memory = reading.held if task.job.cache.scratch is None else 0
    held = max(0, in_memory - tried.held) if measured.decode_s else 0
    at_once = 1 if task.spec.serial else 2
    coarser = max(
        (
            forecast.shard_bytes(plan, image.reduction, basis.store.dtype.itemsize)
            for image in basis.store.images
            for plan in image.levels
        ),
        default=0,
    )
    return max(measured.peak + held, measured.loaded + in_memory + at_once * coarser)


def _memory(spec: EngineSpec, memory: int) -> tuple[int | None, str]:
    """Return the memory available to the workers (SLURM: to one) in bytes, and where."""
    if not spec.remote:
        return memory, "on this machine"
    if spec.name == "slurm" and spec.scheduler_file is None:
        return slurm_memory(spec), "to a worker in a SLURM job"
    return None, "where the workers are"


def _notes(task: Task, mask: MaskSample, load: float) -> list[str]:
    notes = []
    if task.spec.remote:
        notes.append("Measured on this machine, not on those of the workers, whose times may differ.")
    if task.prepared.location.path is None:
        notes.append("The output is a URL: free space and write permission are not checked.")
    cells = None if task.job.mask is None else task.job.mask.array
    if isinstance(cells, CoarseMask):
        notes.append(f"Mask: {describe(cells)}; it is kept in {NAME} of the output.")
    if mask.numbers == ():
        notes.append(f"No voxel of the mask was found in {mask.count} of {len(task.pending)} blocks.")
    elif mask.numbers is not None and mask.count < len(task.pending):
        share = f"{100 * mask.voxels:.0f} %"
        notes.append(
            f"The mask was sampled in {mask.count} of {len(task.pending)} blocks:"
            f" {share} of their voxels are inside."
        )
    if load > max(1.0, 0.5 * cpus()):
        notes.append(
            f"The machine was busy with other work (load {load:.1f}, {cpus()} CPUs):"
            " times hold for the same load."
        )
    if not len(task.pending) and not (task.exists and task.job.store.complete):
        notes.append("All blocks are done; coarser levels may be missing, and their time was not measured.")
    return notes


def _notes_of_trial(task: Task, measured: Measured, reading: ReadForecast) -> list[str]:
    notes = []
    if not measured.complete:
        notes.append(
            f"Measured with one worker, for lack of time or memory (a plane of one tile took"
            f" {measured.pace.alone:.1f} s): times for several workers are extrapolated."
        )
    decodes = reading.decoded / max(1, reading.once)
    if decodes > _MOST_DECODES:
        chunks = " x ".join(map(str, task.job.volume.chunks))
        way = " Chunks of about 64 x 64 x 64 are decoded once."
        if task.job.cache.needed:
            needed = format_size(task.job.cache.needed)
            way = f" With --scratch DIR each is decoded once; a worker needs {needed} there."
        notes.append(
            f"The chunks of the volume ({chunks}) are inefficient: each is decoded {decodes:.0f} times.{way}"
        )
    return notes
