"""Measure the speed and memory of a run on a few of its blocks.

As many workers run at once as in the run, because they share cores, memory bandwidth and disk, and each has
two blocks in flight, as in the run.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from hrvol.device import cpus
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import Engine, EngineSpec
from hrvol.errors import BlockError, ResourceError
from hrvol.planning.forecast import Pace
from hrvol.planning.probe import Sample, try_block
from hrvol.planning.trial_block import Trial, TrialJob
from hrvol.run.job import SegmentJob
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.storage.location import Location

IDLE_BYTES = 220 * 2**20
"""Memory of an idle worker, in bytes."""


@dataclass(frozen=True)
class Measured:
    """Result of the trial blocks; the unit of work is one plane of one tile.

    Attributes
    ----------
    start_s
        Seconds to start the workers, to load the model, and to end the workers.
    pace
        Seconds per unit of work.
    tile_share, pixels
        Share (0..1) of the unit's time that does not depend on the number of pixels classified, and that
        number.
    decode_s
        Seconds per byte of input decoded; 0 if unknown.
    read_s
        Seconds of reading per voxel of a trial block.
    store_s, checksum_s
        Seconds per voxel to store, and to compute the checksum.
    stored
        Bytes per voxel as stored, of labels and the other outputs.
    reduce_s, empty_s
        Seconds of one worker to compute a coarser level, per voxel of the finer level: labelled, and all 0.
    peak, loaded, shared
        Bytes of memory: peak of the largest worker, of an idle worker with the model loaded, and the part of
        it that all workers share.
    tried
        Flat indices of the blocks of the worker with that peak.
    complete
        Whether all workers ran at once, two blocks each.
    """

    start_s: float
    pace: Pace
    tile_share: float
    pixels: int
    decode_s: float
    read_s: float
    store_s: float
    checksum_s: float
    stored: float
    reduce_s: float
    empty_s: float
    peak: int
    loaded: int
    shared: int
    tried: tuple[int, ...]
    complete: bool


def measure(
    job: SegmentJob,
    grid: BlockGrid,
    spec: EngineSpec,
    numbers: Sequence[int],
    scratch: Location,
    *,
    seconds: float,
    uneven: bool,
    memory: int,
) -> Measured:
    """Run trial blocks on the workers of an engine and measure them.

    Parameters
    ----------
    job, grid
        Job and blocks of the run.
    spec
        Engine for the trial: ``serial``, ``local`` or ``cuda``, with as many workers as the run.
    numbers
        Flat indices of the trial blocks: full ones, best two for each worker, and at least two.
    scratch
        Local folder for the trial outputs.
    seconds
        Approximate time to predict planes, in all.
    uneven
        Whether tiles differ in how many of their pixels are classified.
    memory
        Free memory in bytes. If one worker shows that it is too little, no others are measured.

    Raises
    ------
    BlockError
        A block cannot be predicted.
    ResourceError
        A worker process died, or the input may not be read.
    """
    workers = spec.workers or 1
    blocks = [numbers[i % len(numbers)] for i in range(2 * workers)]
    opened = time.time()
    with open_engine(spec, TrialJob(job, scratch)) as engine:
        if workers == 1:
            trials = [Trial(i, grid[n], 0.5 * seconds, uneven and i == 1) for i, n in enumerate(blocks)]
            alone = together = _run_trials(engine, trials, job)
            fresh, complete = [max(together, key=lambda sample: sample.load_s + sample.planes[0])], True
        else:
            alone = fresh = _run_trials(engine, [Trial(0, grid[blocks[0]], 0.25 * seconds, uneven)], job)
            slow = alone[0].planes[-1] > seconds
            complete = not slow and (alone[0].peak - alone[0].shared) * workers <= memory
            together = alone
            if complete:
                trials = [Trial(i, grid[n], 0.0, store=False) for i, n in enumerate(blocks[::2])]
                fresh = _run_trials(engine, trials, job)
                trials = [Trial(i, grid[n], 0.375 * seconds) for i, n in enumerate(blocks)]
                together = _run_trials(engine, trials, job)
        ended = time.monotonic()
    closing = time.monotonic() - ended
    measured = _summarise(alone, fresh, together, workers, complete)
    start = min(sample.began for sample in alone) - opened
    return replace(measured, start_s=start + measured.start_s + closing)


def _run_trials(engine: Engine, trials: Sequence[Trial], job: SegmentJob) -> list[Sample]:
    """Run trial blocks; raise an error at the first that fails."""
    samples = {}
    for outcome in engine.map_bounded(try_block, trials, tries=1):
        if outcome.value is not None:
            samples[outcome.task.number] = outcome.value
            continue
        message = f"{job.volume.source}: trial block {outcome.task.block.index} failed: {outcome.error}"
        # Without a traceback the worker process died.
        if outcome.details is None or "Permission denied" in message:
            raise ResourceError(message)
        raise BlockError(message)
    return [samples[trial.number] for trial in trials]


def _summarise(
    alone: Sequence[Sample],
    fresh: Sequence[Sample],
    together: Sequence[Sample],
    workers: int,
    complete: bool,
) -> Measured:
    """Combine the samples; ``fresh`` are the first ones of each worker."""
    reference = max(sample.pixels for sample in together)
    share = _tile_share([*alone, *together], fresh, reference)

    def pace(samples: Sequence[Sample]) -> float:
        units = [
            (seconds, share + (1 - share) * sample.pixels / reference)
            for sample in samples
            for seconds in _steady(sample, fresh)
        ]
        return sum(seconds for seconds, _ in units) / sum(unit for _, unit in units)

    each = pace(together)
    first = [s.load_s + max(0.0, s.planes[0] - each) + s.read_s for s in fresh]
    busy = sum(sum(s.busy) for s in together) / sum(sum(s.planes) for s in together) / cpus()
    stored = [(s.stored, s.voxels) for s in together if s.stored is not None]
    voxels = sum(size for _, size in stored)

    def per_voxel(name: str) -> float:
        return float(sum(getattr(cost, name) for cost, _ in stored) / voxels)

    def mean(name: str) -> float:
        return float(sum(getattr(cost, name) for cost, _ in stored) / len(stored))

    # Blocks that are tried again find their chunks in the cache.
    samples = {id(s): s for s in (*alone, *fresh, *together)}.values()
    decoding = [(s.read_s, s.decoded) for s in samples if s.decoded]
    read_s = sum(s.read_s for s in together)
    most = max(together, key=lambda s: s.peak)
    return Measured(
        start_s=max(first),
        pace=Pace(pace(alone), each, workers if complete else 1, min(1.0, busy)),
        tile_share=share,
        pixels=reference,
        decode_s=sum(s for s, _ in decoding) / sum(n for _, n in decoding) if decoding else 0.0,
        read_s=read_s / sum(s.voxels for s in together),
        store_s=per_voxel("store_s"),
        checksum_s=per_voxel("checksum_s"),
        stored=per_voxel("nbytes"),
        reduce_s=mean("reduce_s") + per_voxel("read_s") + per_voxel("store_s") / 8,
        empty_s=mean("empty_s"),
        peak=most.peak,
        loaded=max(s.loaded for s in fresh),
        shared=min(s.shared for s in fresh),
        tried=tuple(s.block for s in together if s.process == most.process),
        complete=complete,
    )


def _steady(sample: Sample, fresh: Collection[Sample]) -> tuple[float, ...]:
    """Return the seconds per plane, without a worker's very first plane if there are others."""
    return sample.planes[1:] or sample.planes if sample in fresh else sample.planes


def _tile_share(samples: Sequence[Sample], fresh: Collection[Sample], pixels: int) -> float:
    """Return the share of a tile's time that does not depend on its classified pixels; 1 if not measured."""
    for sample in samples:
        if sample.narrow is None or sample.narrow[1] >= sample.pixels:
            continue
        steady = _steady(sample, fresh)
        full, (narrow_s, few) = sum(steady) / len(steady), sample.narrow
        per_pixel = max(0.0, full - narrow_s) / (sample.pixels - few)
        rest = max(0.0, full - per_pixel * sample.pixels)
        return rest / (rest + per_pixel * pixels)
    return 1.0
