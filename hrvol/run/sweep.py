"""All blocks of a run: predicted on an engine, and written down as they come, failures with reasons."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.errors import BlockError, StoppedError
from hrvol.quality.metrics import SeamDisagreement
from hrvol.run.block import BlockReport, SegmentJob, predict_block
from hrvol.run.coarsen import coarsen
from hrvol.run.engine import EngineSpec, open_engine
from hrvol.run.ledger import DONE, FAILED, LEFT, Ledger, entries
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.run.stop import Stop
from hrvol.run.task import Outcome
from hrvol.volume.order import BlockGrid
from hrvol.volume.tiling import Block, Box, box_shape, intersection

HOPELESS = 64
"""A run ends when so many blocks have failed and none was done."""


@dataclass(frozen=True)
class FailedBlock:
    """A block that was not done: its place in the grid of blocks, and why."""

    index: tuple[int, int, int]
    reason: str


@dataclass(frozen=True)
class SegmentReport:
    """What a run did, and the runs that it went on with.

    Attributes
    ----------
    blocks
        Number of blocks done.
    voxels
        Number of voxels labelled.
    seconds
        Wall time of this run.
    fractions
        Class name -> share of the labelled voxels, in 0..1.
    seams
        How far neighbouring tiles disagreed in the overlaps that were blended (inside blocks of several
        tiles; ``seams.pixels`` is 0 where there are none).
    failed
        Blocks that were not done (of a part of a run: its own). With any, the output is not marked complete.
    before
        Number of voxels that earlier runs had labelled.
    left
        Number of blocks that are left to other parts of the run.
    read
        Bytes of input chunks that were decoded.
    wanted
        Bytes of input that the labelled voxels are.
    peak
        Most bytes of memory that a worker process held.
    """

    blocks: int
    voxels: int
    seconds: float
    fractions: dict[str, float]
    seams: SeamDisagreement
    failed: tuple[FailedBlock, ...]
    before: int = 0
    left: int = 0
    read: int = 0
    wanted: int = 0
    peak: int = 0

    @property
    def voxels_per_s(self) -> float:
        """Voxels labelled per second of wall time, in this run."""
        return (self.voxels - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def read_amplification(self) -> float:
        """How often a byte of input was decoded, on average; 0 where that is not known."""
        return self.read / self.wanted if self.wanted else 0.0


class Todo(Sequence[Block]):
    """Blocks by their numbers, made when they are asked for."""

    def __init__(self, grid: BlockGrid, numbers: NDArray[np.int64]) -> None:
        self._grid, self._numbers = grid, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Block:  # type: ignore[override]
        return self._grid[int(self._numbers[i])]


def sweep(
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
    state = ledger.book.state
    todo = Todo(grid, mine[state[mine] != DONE])
    finished = Todo(grid, mine[state[mine] == DONE])
    tally = Tally(progress, "segment", _voxels(Todo(grid, mine), job.region), _voxels(finished, job.region))
    if not len(todo) and job.store.complete and not np.any(ledger.book.state[numbers] != DONE):
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
        while made_of != ledger.book.digest():  # other parts of the run may redo meanwhile what had failed
            ledger.refresh()
            if np.any(ledger.book.state[numbers] == LEFT):
                return  # others are at it
            if not np.any(ledger.book.state[numbers] == DONE):
                return  # nothing came of it
            made_of = ledger.book.digest()
            if not coarsen(where, job.store, ledger, stop=stop, progress=progress):
                _end_if_stopped(stop, job, ledger, numbers)
            ledger.refresh()
    job.store.declare(complete=not np.any(ledger.book.state[numbers] != DONE))


def _write_down(
    outcome: Outcome[Block, BlockReport], grid: BlockGrid, job: SegmentJob, ledger: Ledger
) -> None:
    """Write down what became of a block; end the run if it tells that all others will fail."""
    number = int(np.ravel_multi_index(outcome.task.index, grid.counts))
    report = outcome.value
    if report is not None:
        ledger.done(
            number,
            report.stamp,
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
        ledger.failed(number, outcome.error or "no result")


def _end_if_stopped(stop: Stop, job: SegmentJob, ledger: Ledger, numbers: NDArray[np.int64]) -> None:
    if stop.signal is not None:
        raise stopped(stop, job, ledger, numbers)


def stopped(stop: Stop, job: SegmentJob, ledger: Ledger, numbers: NDArray[np.int64]) -> StoppedError:
    """Return the error that says how far a run came that was stopped; arguments as for :func:`sweep`."""
    done = int(np.count_nonzero(ledger.book.state[numbers] == DONE))
    by = "" if stop.signal is None else f" by {stop.signal.name}"
    return StoppedError(
        f"{job.store.location}: stopped{by} with {done} of {len(numbers)} blocks done;"
        " the same command goes on",
        130 if stop.signal == signal.SIGINT else 75,
    )


def sum_up(
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    mine: NDArray[np.int64],
    job: SegmentJob,
    ledger: Ledger,
    classes: Sequence[ClassInfo],
    began: float,
) -> SegmentReport:
    """Return what the ledger of an output adds up to.

    Parameters
    ----------
    grid, numbers, mine, job, ledger
        As for :func:`sweep`.
    classes
        Of the labels.
    began
        When this run began, in seconds since the epoch.
    """
    book = ledger.book
    counts: dict[int, int] = {}
    seams, voxels, before, read, wanted, peak = SeamDisagreement(), 0, 0, 0, 0, 0
    for entry in entries(job.store.location):
        if not book.current(entry):
            continue
        voxels += entry["voxels"]
        before += entry["voxels"] if entry["at"] < began else 0
        for value, count in entry["counts"].items():
            counts[int(value)] = counts.get(int(value), 0) + count
        seams += SeamDisagreement(*entry["seams"])
        read, peak = read + entry["read"], max(peak, entry["peak"])
        wanted += entry["voxels"] * job.volume.dtype.itemsize
    failed = [FailedBlock(grid[int(n)].index, book.reasons[int(n)]) for n in mine[book.state[mine] == FAILED]]
    return SegmentReport(
        blocks=int(np.count_nonzero(book.state[numbers] == DONE)),
        voxels=voxels,
        seconds=time.time() - began,
        fractions={info.name: counts.get(info.value, 0) / max(voxels, 1) for info in classes},
        seams=seams,
        failed=tuple(sorted(failed, key=lambda failure: failure.index)),
        before=before,
        left=int(np.count_nonzero(book.state[numbers] == LEFT)),
        read=read,
        wanted=wanted,
        peak=peak,
    )


def _voxels(pieces: Sequence[Block], region: Box) -> int:
    """Return how many voxels of blocks lie in a region."""
    parts = (intersection(piece.core, region) for piece in pieces)
    return sum(math.prod(box_shape(part)) for part in parts if part is not None)
