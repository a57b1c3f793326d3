"""Summarise what the ledger of an output adds up to."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.engine.stop import Stop
from hrvol.errors import StoppedError
from hrvol.quality.metrics import SeamDisagreement
from hrvol.run.job import SegmentJob
from hrvol.run.ledger import DONE, FAILED, PENDING, Ledger, entries
from hrvol.volume.grid.order import BlockGrid


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


def stopped(stop: Stop, job: SegmentJob, ledger: Ledger, numbers: NDArray[np.int64]) -> StoppedError:
    """Return the error that says how far a run came that was stopped; arguments as for :func:`sweep`."""
    done = int(np.count_nonzero(ledger.state.of_block[numbers] == DONE))
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
    state = ledger.state
    counts: dict[int, int] = {}
    seams, voxels, before, read, wanted, peak = SeamDisagreement(), 0, 0, 0, 0, 0
    for entry in entries(job.store.location):
        if not state.current(entry):
            continue
        voxels += entry["voxels"]
        before += entry["voxels"] if entry["at"] < began else 0
        for value, count in entry["counts"].items():
            counts[int(value)] = counts.get(int(value), 0) + count
        seams += SeamDisagreement(*entry["seams"])
        read, peak = read + entry["read"], max(peak, entry["peak"])
        wanted += entry["voxels"] * job.volume.dtype.itemsize
    failed = [
        FailedBlock(grid[int(n)].index, state.reasons[int(n)]) for n in mine[state.of_block[mine] == FAILED]
    ]
    return SegmentReport(
        blocks=int(np.count_nonzero(state.of_block[numbers] == DONE)),
        voxels=voxels,
        seconds=time.time() - began,
        fractions={info.name: counts.get(info.value, 0) / max(voxels, 1) for info in classes},
        seams=seams,
        failed=tuple(sorted(failed, key=lambda failure: failure.index)),
        before=before,
        left=int(np.count_nonzero(state.of_block[numbers] == PENDING)),
        read=read,
        wanted=wanted,
        peak=peak,
    )
