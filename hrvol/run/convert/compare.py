"""Compare a converted image with its source, block by block."""

from __future__ import annotations

import math

import numpy as np

from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.errors import BlockError
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.convert.convert_block import compare_block
from hrvol.run.drive_blocks import LazyBlocks
from hrvol.run.ledger import Ledger
from hrvol.run.ledger_entries import DONE
from hrvol.run.report import Run, stopped_error
from hrvol.volume.grid.tiling import box_shape


def compare(
    run: Run,
    spec: EngineSpec,
    stop: Stop,
    progress: ProgressCallback | None,
    *,
    again: Ledger | None = None,
) -> int:
    """Read all blocks of a run again, of input and output, and compare their checksums.

    Parameters
    ----------
    run
        A run whose blocks are written.
    spec
        Where to read them.
    stop
        When requested, no other block is started.
    progress
        Called with the stage, voxels done and the total.
    again
        Ledger in which blocks that differ are marked pending, so that the same command writes them again;
        ``None``: it is deleted already.

    Returns
    -------
    int
        Number of blocks compared.

    Raises
    ------
    BlockError
        A block differs, or cannot be read.
    StoppedError
        It was stopped.
    """
    numbers = (
        run.own_blocks if again is None else run.own_blocks[again.state.of_block[run.own_blocks] == DONE]
    )
    blocks = LazyBlocks(run.grid, numbers)
    tally = Tally(progress, "verify", sum(math.prod(block.shape) for block in blocks))
    different = []
    store = run.job.store
    with open_engine(spec.limited(max(len(blocks), 1)), run.job) as engine:
        stop.working = True
        for outcome in engine.map_bounded(compare_block, blocks, stop=stop):
            if not outcome.ok:
                raise BlockError(f"{store.location}: block {outcome.task.index}: {outcome.error}")
            if not outcome.value:
                different.append(outcome.task)
            tally.finish(outcome.task.index, math.prod(box_shape(outcome.task.core)))
    if stop.requested:
        raise stopped_error(run, stop)
    if not different:
        return len(blocks)
    way = "--fresh starts over"
    if again is not None:
        way = "run the same command to write them again"
        store.update({"complete": False})
        for block in different:
            store.erase(block.index)
            again.mark_pending(int(np.ravel_multi_index(block.index, run.grid.counts)))
    first = min(block.index for block in different)
    raise BlockError(
        f"{store.location}: found {len(different)} of {len(blocks)} blocks that differ from"
        f" {run.job.volume.source}, expected none; the first is {first} ({way})"
    )
