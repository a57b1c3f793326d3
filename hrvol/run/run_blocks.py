"""All blocks of a run: predicted on an engine, and written down as they come, failures with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.engine.task import Outcome
from hrvol.errors import BlockError
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.block import predict_block
from hrvol.run.job import BlockReport, SegmentJob
from hrvol.run.ledger import DONE, PENDING, Ledger
from hrvol.run.pyramid_levels import build_levels
from hrvol.run.report import stopped
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, box_shape, intersection

HOPELESS = 64
"""A run ends when so many blocks have failed and none was done."""


class LazyBlocks(Sequence[Block]):
    """Blocks by their numbers, made when they are asked for."""

    def __init__(self, grid: BlockGrid, numbers: NDArray[np.int64]) -> None:
        self._grid, self._numbers = grid, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Block:  # type: ignore[override]
        return self._grid[int(self._numbers[i])]


def run_blocks(
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    mine: NDArray[np.int64],
    job: SegmentJob,
    ledger: Ledger,
    engine: EngineSpec,
    stop: Stop,
    progress: ProgressCallback | None,
) -> None:
    """Predict the blocks that are left, write down what became of them, and make the coarser levels.

    Parameters
    ----------
    grid
        Of blocks.
    numbers
        All blocks of the output's region.
    mine
        Those that this run is to do.
    job
        What to do.
    ledger
        Of this run.
    engine
        Where to do it.
    stop
        Once requested no other block is begun.
    progress
        Called with stage, voxels done, all voxels.

    Raises
    ------
    StoppedError
        It was asked to stop, or lost its scheduler.
    BlockError
        Going on makes no sense: the disk is full, say, or all blocks fail.
    """
    state = ledger.state.of_block
    todo = LazyBlocks(grid, mine[state[mine] != DONE])
    finished = LazyBlocks(grid, mine[state[mine] == DONE])
    tally = Tally(
        progress, "segment", _voxels(LazyBlocks(grid, mine), job.region), _voxels(finished, job.region)
    )
    if not len(todo) and job.store.complete and not np.any(ledger.state.of_block[numbers] != DONE):
        return
    with open_engine(engine.limited(max(len(todo), 1)), job) as where:
        stop.working = True
        succeeded = failed = 0
        for outcome in where.map_bounded(
            predict_block, todo, on_tick=lambda said: tally.report(tuple(said[0]), said[1]), stop=stop
        ):
            _write_down(outcome, grid, job, ledger)
            part = intersection(outcome.task.core, job.region)
            assert part is not None
            tally.finish(outcome.task.index, math.prod(box_shape(part)) if outcome.ok else 0)
            succeeded, failed = succeeded + outcome.ok, failed + (not outcome.ok)
            if failed >= HOPELESS and not succeeded:
                raise BlockError(
                    f"{job.store.location}: the first {failed} blocks all failed: {outcome.error}"
                )
        _end_if_stopped(stop, job, ledger, numbers)
        made_of = None
        while made_of != ledger.state.digest():  # other parts of the run may redo meanwhile what had failed
            ledger.refresh()
            if np.any(ledger.state.of_block[numbers] == PENDING):
                return  # others are at it
            if not np.any(ledger.state.of_block[numbers] == DONE):
                return  # nothing came of it
            made_of = ledger.state.digest()
            if not build_levels(where, job.store, ledger, stop=stop, progress=progress):
                _end_if_stopped(stop, job, ledger, numbers)
            ledger.refresh()
    job.store.declare(complete=not np.any(ledger.state.of_block[numbers] != DONE))


def _write_down(
    outcome: Outcome[Block, BlockReport], grid: BlockGrid, job: SegmentJob, ledger: Ledger
) -> None:
    """Write down what became of a block; end the run if it tells that all others will fail."""
    number = int(np.ravel_multi_index(outcome.task.index, grid.counts))
    report = outcome.value
    if report is not None:
        ledger.mark_done(
            number,
            report.checksum,
            voxels=report.voxels,
            seconds=round(report.seconds, 3),
            counts={str(value): count for value, count in report.counts.items()},
            seams=[report.seams.pixels, report.seams.labels_differ, report.seams.probability_change],
            read=report.read,
            peak=report.peak,
        )
    elif outcome.fatal:
        raise BlockError(f"{job.store.location}: block {outcome.task.index}: {outcome.error}")
    else:
        with suppress(OSError):  # its voxels stay 0, if only the disk lets us
            job.store.erase(outcome.task.index)
        ledger.mark_failed(number, outcome.error or "no result")


def _end_if_stopped(stop: Stop, job: SegmentJob, ledger: Ledger, numbers: NDArray[np.int64]) -> None:
    if stop.signal is not None:
        raise stopped(stop, job, ledger, numbers)


def _voxels(pieces: Sequence[Block], region: Box) -> int:
    """Return how many voxels of blocks lie in a region."""
    parts = (intersection(piece.core, region) for piece in pieces)
    return sum(math.prod(box_shape(part)) for part in parts if part is not None)
