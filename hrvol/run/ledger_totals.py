"""Add up what the blocks of an output recorded in its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hrvol.quality.metrics import SeamDisagreement
from hrvol.run.ledger import LedgerState, entries
from hrvol.volume.storage.location import Location


@dataclass(frozen=True, eq=False)
class LedgerTotals:
    """What the finished blocks of an output recorded, added up.

    Attributes
    ----------
    state
        State of every block.
    voxels
        Labelled voxels.
    counts
        Voxels by value of the class.
    seams
        How far neighbouring tiles disagreed inside of blocks.
    seconds
        Time of workers, all blocks together.
    read
        Bytes of decoded input chunks.
    peak
        Largest memory of a worker, in bytes.
    first, last
        When the first and the last block were recorded, in seconds since the epoch; 0 without blocks.
    """

    state: LedgerState
    voxels: int = 0
    counts: Mapping[int, int] = field(default_factory=dict)
    seams: SeamDisagreement = field(default_factory=SeamDisagreement)
    seconds: float = 0.0
    read: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0


def ledger_totals(location: Location, blocks: int) -> LedgerTotals:
    """Add up the latest entries of finished blocks.

    Parameters
    ----------
    location
        Of the output.
    blocks
        Number of all blocks of its grid.
    """
    state, counts = LedgerState(blocks), Counter[int]()
    for entry in entries(location):
        state.take(entry)
    voxels, seconds, read, peak, first, last = 0, 0.0, 0, 0, 0.0, 0.0
    seams = SeamDisagreement()
    for entry in entries(location):
        if not state.current(entry):
            continue
        voxels += entry["voxels"]
        for value, number in entry["counts"].items():
            counts[int(value)] += number
        seams += SeamDisagreement(*entry["seams"])
        seconds += entry["seconds"]
        read, peak = read + entry["read"], max(peak, entry["peak"])
        first = min(first or entry["at"], entry["at"])
        last = max(last, entry["at"])
    return LedgerTotals(state, voxels, counts, seams, seconds, read, peak, first, last)
