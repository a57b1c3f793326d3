"""All blocks of a run: predicted on an engine, counted as they come, failures kept with their reasons."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hrvol.classes import ClassInfo
from hrvol.quality.metrics import SeamDisagreement
from hrvol.run.engine import cpus, open_engine
from hrvol.run.predict import BlockReport, SegmentJob, predict_block
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.volume.tiling import Block, Box, box_shape, intersection


@dataclass(frozen=True)
class FailedBlock:
    """A block that was not done: its place in the grid of blocks, and why."""

    index: tuple[int, int, int]
    reason: str


@dataclass(frozen=True)
class SegmentReport:
    """What a run did.

    Attributes
    ----------
    blocks
        Number of blocks done.
    voxels
        Number of voxels labelled.
    seconds
        Wall time of the prediction.
    fractions
        Class name -> share of the labelled voxels, in 0..1.
    seams
        How far neighbouring tiles disagreed in the overlaps that were blended (inside blocks of several
        tiles; ``seams.pixels`` is 0 where there are none).
    failed
        Blocks that were not done. With any, the output is not marked complete.
    """

    blocks: int
    voxels: int
    seconds: float
    fractions: dict[str, float]
    seams: SeamDisagreement
    failed: tuple[FailedBlock, ...]

    @property
    def voxels_per_s(self) -> float:
        """Voxels labelled per second of wall time."""
        return self.voxels / self.seconds if self.seconds > 0 else 0.0


def sweep(
    pieces: Sequence[Block],
    job: SegmentJob,
    classes: Sequence[ClassInfo],
    engine: str,
    workers: int | None,
    progress: ProgressCallback | None,
) -> SegmentReport:
    """Predict blocks on an engine and sum up what became of them."""
    began = time.monotonic()
    tally = Tally(progress, "segment", _voxels(pieces, job.region))
    done: list[BlockReport] = []
    failed: list[FailedBlock] = []
    if engine != "serial":  # a worker without a block would only cost its start
        workers = min(workers or cpus(), len(pieces))
    with open_engine(engine, workers=workers, configuration=job) as where:
        for outcome in where.map_bounded(
            predict_block, pieces, on_tick=lambda message: tally.report(tuple(message[0]), message[1])
        ):
            index = outcome.task.index
            if outcome.value is None:
                failed.append(FailedBlock(index, outcome.error or "no result"))
                tally.finish(index, 0)
            else:
                done.append(outcome.value)
                tally.finish(index, outcome.value.voxels)
    voxels = sum(report.voxels for report in done)
    fractions = {
        info.name: sum(report.counts.get(info.value, 0) for report in done) / max(voxels, 1)
        for info in classes
    }
    seams = sum((report.seams for report in done), SeamDisagreement())
    failed.sort(key=lambda failure: failure.index)
    return SegmentReport(len(done), voxels, time.monotonic() - began, fractions, seams, tuple(failed))


def level_progress(
    progress: ProgressCallback | None, block_shape: tuple[int, int, int]
) -> Callable[[int, int], None] | None:
    """Return a callback for ``LabelStore.finish``, which counts shards, level by level."""
    if progress is None:
        return None
    level = 0

    def show(done: int, shards: int) -> None:
        nonlocal level
        level += done == 1
        if shards > 1:  # the others are over at once
            progress(f"coarser level {level}", done * voxels, shards * voxels)

    voxels = math.prod(block_shape)
    return show


def _voxels(pieces: Sequence[Block], region: Box) -> int:
    """Return how many voxels of blocks lie in a region."""
    parts = (intersection(piece.core, region) for piece in pieces)
    return sum(math.prod(box_shape(part)) for part in parts if part is not None)
