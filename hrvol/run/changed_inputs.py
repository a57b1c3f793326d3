"""Find blocks whose input was changed after they were computed, and mark them as failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from hrvol.run.job import input_states, inputs_digest
from hrvol.run.report import Run

LOG = logging.getLogger("hrvol.run")

REASON = "its input changed during the run"

_AT_ONCE = 16

_BATCH = 4096


def fail_changed(run: Run, inputs: Mapping[int, int]) -> list[int]:
    """Mark the blocks as failed, and erase them, whose input is not what they were computed from.

    A block is computed from one state of its input, because workers check that. Blocks of different states
    would be a result that no input gives.

    Parameters
    ----------
    run
        The run.
    inputs
        Number of a block -> digest of the state of its input, as its worker reported it; 0 if unknown.

    Returns
    -------
    list of int
        The blocks.
    """
    job = run.job

    def differs(number: int) -> bool:
        return inputs_digest(input_states(job, run.grid[number])) != inputs[number]

    known = [number for number, digest in inputs.items() if digest]
    changed: list[int] = []
    with ThreadPoolExecutor(_AT_ONCE, "hrvol-inputs") as pool:
        for start in range(0, len(known), _BATCH):
            batch = known[start : start + _BATCH]
            changed += [
                number for number, other in zip(batch, pool.map(differs, batch), strict=True) if other
            ]
    for number in changed:
        with suppress(OSError):  # it is recorded as failed anyway
            job.store.erase(run.grid[number].index)
        run.ledger.mark_failed(number, REASON)
    if changed:
        LOG.warning("%s: %s of %d blocks", job.volume.source, REASON, len(changed))
    return changed
