"""Summarise a run from the ledger of its output."""

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
from hrvol.run.block_job import BlockJob
from hrvol.run.ledger import Ledger, entries
from hrvol.run.ledger_entries import DONE, FAILED, PENDING
from hrvol.volume.grid.order import BlockGrid


@dataclass(frozen=True)
class FailedBlock:
    """A block that failed: its index in the grid of blocks, and the reason."""

    index: tuple[int, int, int]
    reason: str


@dataclass(frozen=True)
class SegmentReport:
    """Result of a run, and of the earlier runs that it resumed.

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
        Failed blocks (for a part of a run: its own). The output is not marked complete if there are any.
    before
        Number of voxels labelled by earlier runs.
    left
        Number of blocks left to other parts of the run.
    read
        Bytes of decoded input chunks.
    wanted
        Bytes of the input's labelled voxels.
    peak
        Peak memory of a worker process, in bytes.
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
        """How often a byte of input was decoded, on average; 0 if unknown."""
        return self.read / self.wanted if self.wanted else 0.0


@dataclass(frozen=True)
class Run:
    """One run over an output: which blocks there are, which are its own, and where it records them.

    Attributes
    ----------
    grid
        The grid of blocks.
    blocks
        Numbers of all blocks of the output's region.
    own_blocks
        Numbers of the blocks that this run computes: all, or those of its part.
    job
        What workers need.
    ledger
        Of this run.
    place
        Where its input is, see :func:`hrvol.run.changed_input.input_place`.
    """

    grid: BlockGrid
    blocks: NDArray[np.int64]
    own_blocks: NDArray[np.int64]
    job: BlockJob
    ledger: Ledger
    place: str = ""

    @property
    def states(self) -> NDArray[np.uint8]:
        """States of :attr:`blocks`, as far as the ledger has read them."""
        return self.ledger.state.of_block[self.blocks]


def stopped_error(run: Run, stop: Stop) -> StoppedError:
    """Return the error that reports how far a stopped run came."""
    done = int(np.count_nonzero(run.states == DONE))
    by = "" if stop.signal is None else f" by {stop.signal.name}"
    return StoppedError(
        f"{run.job.store.location}: stopped{by} with {done} of {len(run.blocks)} blocks done;"
        " run the same command to resume",
        130 if stop.signal == signal.SIGINT else 75,
    )


def summarise(run: Run, classes: Sequence[ClassInfo], began: float) -> SegmentReport:
    """Add up the ledger of an output.

    Parameters
    ----------
    run
        The run.
    classes
        Of the labels.
    began
        Start of this run, in seconds since the epoch.
    """
    state = run.ledger.state
    counts: dict[int, int] = {}
    seams, voxels, before, read, labelled_bytes, peak = SeamDisagreement(), 0, 0, 0, 0, 0
    for entry in entries(run.job.store.location):
        if not state.current(entry):
            continue
        voxels += entry["voxels"]
        before += entry["voxels"] if entry["at"] < began else 0
        for value, count in entry["counts"].items():
            counts[int(value)] = counts.get(int(value), 0) + count
        seams += SeamDisagreement(*entry["seams"])
        read, peak = read + entry["read"], max(peak, entry["peak"])
        labelled_bytes += entry["voxels"] * run.job.volume.dtype.itemsize
    failed_numbers = run.own_blocks[state.of_block[run.own_blocks] == FAILED]
    failed = [
        FailedBlock(run.grid[int(n)].index, state.reasons.get(int(n), "no reason recorded"))
        for n in failed_numbers
    ]
    return SegmentReport(
        blocks=int(np.count_nonzero(run.states == DONE)),
        voxels=voxels,
        seconds=time.time() - began,
        fractions={info.name: counts.get(info.value, 0) / max(voxels, 1) for info in classes},
        seams=seams,
        failed=tuple(sorted(failed, key=lambda failure: failure.index)),
        before=before,
        left=int(np.count_nonzero(run.states == PENDING)),
        read=read,
        wanted=labelled_bytes,
        peak=peak,
    )
