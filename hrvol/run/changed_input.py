"""Find blocks that were computed from an input that is another one now.

Workers check that a block is computed from one state of its input, and the ledger records which. Blocks of
different states would be a result that no input gives.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from hrvol.run.block_job import BlockJob, input_states, inputs_digest
from hrvol.run.ledger import Ledger
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.storage.stamps import stamp_of

_READERS = 16

_COMPARED_AT_ONCE = 4096


def input_place(job: BlockJob) -> str:
    """Return what identifies where the input of a run is, not what it holds; empty if it has no files.

    A copy or a moved volume has other times and numbers of files: it cannot be compared by them, and is
    another place.
    """
    files = [volume.opened[0][0] for volume in (job.volume, job.mask) if volume is not None and volume.opened]
    if not files:
        return ""
    text = repr([(os.path.realpath(file), stamp_of(file)[2]) for file in files])
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def changed_blocks(
    job: BlockJob, grid: BlockGrid, ledger: Ledger, numbers: NDArray[np.int64], place: str
) -> list[int]:
    """Return the finished blocks whose input differs from the state that the ledger records for them.

    Parameters
    ----------
    job, grid, ledger
        Of the run.
    numbers
        Blocks to compare.
    place
        Where the input is, see :func:`input_place`. Blocks computed from another place are not compared.
    """
    if not place:
        return []
    wanted = np.zeros(len(grid), bool)
    wanted[numbers] = True

    def differs(known: tuple[int, str]) -> bool:
        number, recorded = known
        return inputs_digest(input_states(job, grid[number])) != int(recorded, 16)

    found = (
        (int(entry["block"]), entry["inputs"][1])
        for entry in ledger.finished()
        if wanted[entry["block"]] and entry["inputs"][:1] == [place]
    )
    changed: list[int] = []
    with ThreadPoolExecutor(_READERS, "hrvol-inputs") as pool:
        while batch := list(islice(found, _COMPARED_AT_ONCE)):
            compared = zip(batch, pool.map(differs, batch), strict=True)
            changed += [number for (number, _), other in compared if other]
    return sorted(set(changed))
