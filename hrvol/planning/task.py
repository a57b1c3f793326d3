"""The run that a plan is made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.spec import EngineSpec
from hrvol.run.job import SegmentJob
from hrvol.run.prepare import PreparedRun
from hrvol.volume.grid.order import BlockGrid


@dataclass(frozen=True, eq=False)
class Task:
    """The run to plan.

    Attributes
    ----------
    prepared, spec
        The prepared run and its engine.
    grid
        Its blocks.
    numbers, pending, done
        Flat indices of all blocks of the region, of those to compute, and of those that earlier runs
        computed.
    exists
        Whether an unfinished output is resumed.
    """

    prepared: PreparedRun
    spec: EngineSpec
    grid: BlockGrid
    numbers: NDArray[np.int64]
    pending: NDArray[np.int64]
    done: NDArray[np.int64]
    exists: bool

    @property
    def job(self) -> SegmentJob:
        """Configuration of the workers."""
        return self.prepared.job

    @property
    def workers(self) -> int:
        """Number of workers of the run."""
        spec = self.spec.limited(max(1, len(self.pending)))
        return spec.workers or 1
