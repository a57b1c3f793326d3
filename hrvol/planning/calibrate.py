"""What a run will be like, measured on a few of its blocks.

As many workers are at it at once as the run will have, because they share cores, memory bandwidth and disk,
and each has two blocks under way, as in the run.
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
from hrvol.planning.probe import Sample, Trial, TrialJob, try_block
from hrvol.run.job import SegmentJob
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.storage.location import Location

IDLE_BYTES = 220 * 2**20
"""Memory of a worker that has nothing to do yet."""


@dataclass(frozen=True)
class Measured:
    """What the trials showed; the unit of work is one plane of one tile.

    Attributes
    ----------
    start_s
        Seconds until workers are there and have loaded the model, and until they are gone at the end.
    pace
        Seconds per unit of work.
    tile_share, pixels
        Of the unit, the share that does not depend on how many pixels count; and how many do.
    decode_s
        Seconds per byte of input decoded; 0 where that is not known.
    read_s
        Seconds of reading per voxel of a block, on trial.
    store_s, stamp_s
        Seconds per voxel of storing, and of checking what is stored.
    stored
        Bytes per voxel as stored, of labels and what is wanted beside them.
    reduce_s, empty_s
        Seconds of one worker per voxel of the level that a coarser one is made of; where all is 0.
    peak, loaded, shared
        Bytes of memory of the worker that took most, of one that has loaded the model and does nothing, and
        those of them that all workers share.
    tried
        Blocks that the worker with that peak had.
    complete
        Whether all workers were at work at once, two blocks each.
    took_s
        How long all of it took.
    """

    start_s: float
    pace: Pace
    tile_share: float
    pixels: int
    decode_s: float
    read_s: float
    store_s: float
    stamp_s: float
    stored: float
    reduce_s: float
    empty_s: float
    peak: int
    loaded: int
    shared: int
    tried: tuple[int, ...]
    complete: bool
    took_s: float


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
    """Try some blocks.

    Parameters
    ----------
    job, grid
        Of the run.
    spec
        Where to try: ``serial`` or ``local``, with as many workers as the run will have.
    numbers
        Blocks to try, the fullest; best two for each worker, and two at least.
    scratch
        A local folder for what is stored on trial.
    seconds
        How long to predict planes in all, about.
    uneven
        Whether tiles differ in how many of their pixels count.
    memory
        Bytes that there are. Where one worker shows that there are too few, no more are put to work.

    Raises
    ------
    BlockError
        A block cannot be predicted.
    ResourceError
        A worker died of it, or the input may not be read.
    """
    began = time.monotonic()
    workers = spec.workers or 1
    told = TrialJob(job, scratch)
    at = [numbers[i % len(numbers)] for i in range(2 * workers)]
    opened = time.time()
    with open_engine(spec, told) as where:
        if workers == 1:
            trials = [Trial(i, grid[n], 0.5 * seconds, uneven and i == 1) for i, n in enumerate(at)]
            alone = together = _try(where, trials, job)
            fresh, complete = [max(together, key=lambda sample: sample.load_s + sample.planes[0])], True
        else:
            alone = fresh = _try(where, [Trial(0, grid[at[0]], 0.25 * seconds, uneven)], job)
            slow = alone[0].planes[-1] > seconds
            complete = not slow and (alone[0].peak - alone[0].shared) * workers <= memory
            together = alone
            if complete:
                fresh = _try(where, [Trial(i, grid[n], 0.0, store=False) for i, n in enumerate(at[::2])], job)
                trials = [Trial(i, grid[n], 0.375 * seconds) for i, n in enumerate(at)]
                together = _try(where, trials, job)
        ended = time.monotonic()
    closing = time.monotonic() - ended
    found = _sum_up(alone, fresh, together, workers, complete)
    start = min(sample.began for sample in alone) - opened
    return replace(found, start_s=start + found.start_s + closing, took_s=time.monotonic() - began)


def _try(where: Engine, trials: Sequence[Trial], job: SegmentJob) -> list[Sample]:
    """Try blocks; the first that fails ends it."""
    samples = {}
    for outcome in where.map_bounded(try_block, trials, tries=1):
        if outcome.value is not None:
            samples[outcome.task.number] = outcome.value
            continue
        said = f"{job.volume.source}: block {outcome.task.block.index}, on trial: {outcome.error}"
        # A process that died leaves no traceback.
        raise (
            ResourceError(said)
            if outcome.details is None or "Permission denied" in said
            else BlockError(said)
        )
    return [samples[trial.number] for trial in trials]


def _sum_up(
    alone: Sequence[Sample],
    fresh: Sequence[Sample],
    together: Sequence[Sample],
    workers: int,
    complete: bool,
) -> Measured:
    """Work out what the samples have in common; ``fresh`` are those that a worker began with."""
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
        return float(sum(getattr(found, name) for found, _ in stored) / voxels)

    def mean(name: str) -> float:
        return float(sum(getattr(found, name) for found, _ in stored) / len(stored))

    decoded = sum(s.decoded for s in together)
    read_s = sum(s.read_s for s in together)
    most = max(together, key=lambda s: s.peak)
    return Measured(
        start_s=max(first),
        pace=Pace(pace(alone), each, workers if complete else 1, min(1.0, busy)),
        tile_share=share,
        pixels=reference,
        decode_s=read_s / decoded if decoded else 0.0,
        read_s=read_s / sum(s.voxels for s in together),
        store_s=per_voxel("store_s"),
        stamp_s=per_voxel("stamp_s"),
        stored=per_voxel("nbytes"),
        reduce_s=mean("reduce_s") + per_voxel("read_s") + per_voxel("store_s") / 8,
        empty_s=mean("empty_s"),
        peak=most.peak,
        loaded=max(s.loaded for s in fresh),
        shared=min(s.shared for s in fresh),
        tried=tuple(s.block for s in together if s.process == most.process),
        complete=complete,
        took_s=0.0,
    )


def _steady(sample: Sample, fresh: Collection[Sample]) -> tuple[float, ...]:
    """Return the seconds of planes without the first that a worker ever predicted, if there are others."""
    return sample.planes[1:] or sample.planes if sample in fresh else sample.planes


def _tile_share(samples: Sequence[Sample], fresh: Collection[Sample], pixels: int) -> float:
    """Return the share of a tile's time that does not depend on how many pixels count; 1 if not measured."""
    for sample in samples:
        if sample.narrow is None or sample.narrow[1] >= sample.pixels:
            continue
        steady = _steady(sample, fresh)
        full, (part, few) = sum(steady) / len(steady), sample.narrow
        per_pixel = max(0.0, full - part) / (sample.pixels - few)
        rest = max(0.0, full - per_pixel * sample.pixels)
        return rest / (rest + per_pixel * pixels)
    return 1.0
