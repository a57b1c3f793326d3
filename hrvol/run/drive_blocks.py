"""Compute all blocks of a run with any function on an engine, and record each result in the ledger."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.engine import open_engine
from hrvol.engine.spec import Engine, EngineSpec
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome
from hrvol.errors import BlockError, DeviceError, EngineError, StoppedError
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.block_job import BlockReport
from hrvol.run.changed_input import changed_blocks
from hrvol.run.ledger_entries import DONE, PENDING
from hrvol.run.pyramid.pyramid_levels import build_levels
from hrvol.run.report import Run, stopped_error
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, box_shape, intersection

LOG = logging.getLogger("hrvol.run")

HOPELESS = 64
"""A run ends when so many blocks have failed and none has succeeded."""

_CHANGED = "its input changed during the run"


class LazyBlocks(Sequence[Block]):
    """Blocks by their numbers, created on access."""

    def __init__(self, grid: BlockGrid, numbers: NDArray[np.int64]) -> None:
        self._grid, self._numbers = grid, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Block:  # type: ignore[override]
        return self._grid[int(self._numbers[i])]


@dataclass(frozen=True)
class Work:
    """What is done with each block.

    Attributes
    ----------
    function
        Computes a block and stores it; importable by name in a worker process.
    stage
        Its name, for the progress.
    """

    function: Callable[[Block], BlockReport]
    stage: str


def drive_blocks(
    run: Run, work: Work, spec: EngineSpec, stop: Stop, progress: ProgressCallback | None
) -> None:
    """Compute the pending blocks, record the results, and build the coarser levels.

    Parameters
    ----------
    run
        What to compute.
    work
        How to compute a block.
    spec
        Where to compute it.
    stop
        When requested, no other block is started.
    progress
        Called with the stage, voxels done and the total.

    Raises
    ------
    StoppedError
        The run was stopped, or lost its scheduler.
    BlockError
        No other block would succeed: the disk is full, say, or all blocks fail.
    """
    states = run.ledger.state.of_block[run.own_blocks]
    numbers = run.own_blocks[states != DONE]
    pending = LazyBlocks(run.grid, numbers)
    finished = LazyBlocks(run.grid, run.own_blocks[states == DONE])
    total = _voxels(LazyBlocks(run.grid, run.own_blocks), run.job.region)
    tally = Tally(progress, work.stage, total, _voxels(finished, run.job.region))
    if not len(pending) and run.job.store.complete and np.all(run.states == DONE):
        return
    with open_engine(spec.limited(max(len(pending), 1)), run.job) as engine:
        stop.working = True
        try:
            _compute(run, engine, work, numbers, tally, stop)
        except (BlockError, DeviceError, EngineError, StoppedError):
            with suppress(OSError):  # the disk may be full; the next run compares them, too
                _fail_changed(run)
            raise
        _fail_changed(run)
        _raise_if_stopped(run, stop)
        built_from = None
        while built_from != run.ledger.state.digest():  # meanwhile other parts may redo failed blocks
            run.ledger.refresh()
            if np.any(run.states == PENDING):
                return  # other parts compute them, and the last one builds the levels
            if not np.any(run.states == DONE):
                return
            built_from = run.ledger.state.digest()
            if not build_levels(engine, run.job.store, run.ledger, stop=stop, progress=progress):
                _raise_if_stopped(run, stop)
            run.ledger.refresh()
    run.job.store.declare(complete=bool(np.all(run.states == DONE)))


def _compute(
    run: Run, engine: Engine, work: Work, numbers: NDArray[np.int64], tally: Tally, stop: Stop
) -> None:
    """Compute blocks and record the results as they arrive."""
    succeeded = failed = 0
    for outcome in engine.map_bounded(
        work.function,
        LazyBlocks(run.grid, numbers),
        on_tick=lambda tick: tally.report(tuple(tick[0]), tick[1]),
        stop=stop,
        starts=run.grid.layer_starts(numbers) if run.job.volume.decodes else (),
    ):
        _record(run, outcome)
        inside = intersection(outcome.task.core, run.job.region)
        assert inside is not None
        tally.finish(outcome.task.index, math.prod(box_shape(inside)) if outcome.ok else 0)
        succeeded, failed = succeeded + outcome.ok, failed + (not outcome.ok)
        if failed >= HOPELESS and not succeeded:
            raise BlockError(
                f"{run.job.store.location}: the first {failed} blocks all failed: {outcome.error}"
            )


def _record(run: Run, outcome: Outcome[Block, BlockReport]) -> None:
    """Record the outcome of a block; raise if all others would fail for its reason."""
    store, number = run.job.store, int(np.ravel_multi_index(outcome.task.index, run.grid.counts))
    report = outcome.value
    if report is not None:
        run.ledger.mark_done(
            number,
            report.checksum,
            objects=list(report.objects),
            voxels=report.voxels,
            seconds=round(report.seconds, 3),
            counts={str(value): count for value, count in report.counts.items()},
            seams=[report.seams.pixels, report.seams.labels_differ, report.seams.probability_change],
            read=report.read,
            peak=report.peak,
            inputs=[run.place, f"{report.inputs:016x}"] if run.place and report.inputs else [],
        )
    elif outcome.fatal:
        raise BlockError(f"{store.location}: block {outcome.task.index}: {outcome.error}")
    else:
        with suppress(OSError):  # a full disk may refuse even this; the block is recorded as failed anyway
            store.erase(outcome.task.index)
        run.ledger.mark_failed(number, outcome.error or "no result")


def _raise_if_stopped(run: Run, stop: Stop) -> None:
    if stop.signal is not None:
        raise stopped_error(run, stop)


def _voxels(blocks: Sequence[Block], region: Box) -> int:
    """Return how many voxels of blocks lie in a region."""
    boxes = (intersection(block.core, region) for block in blocks)
    return sum(math.prod(box_shape(box)) for box in boxes if box is not None)


def _fail_changed(run: Run) -> None:
    """Mark the blocks as failed, and erase them, whose input is not what they were computed from."""
    store = run.job.store
    changed = changed_blocks(run.job, run.grid, run.ledger, run.own_blocks, run.place)
    for number in changed:
        with suppress(OSError):  # it is recorded as failed anyway
            store.erase(run.grid[number].index)
        run.ledger.mark_failed(number, _CHANGED)
    if changed:
        LOG.warning("%s: %s of %d blocks", run.job.volume.source, _CHANGED, len(changed))
