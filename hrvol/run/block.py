"""One block, from the store to the store: the task that engines hand to workers."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hrvol.engine.task import attempt, computing, configuration, tick
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe.specs import BATCH, TileSpec
from hrvol.run.job import BlockReport, SegmentJob, reader_of
from hrvol.run.predict import predict_part, read_window
from hrvol.volume.grid.tiling import Block, box_shape, intersection

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


TELL = 1.0
"""Seconds between two reports from inside a block: the driver hears those of all workers."""


def predict_block(block: Block) -> BlockReport:
    """Predict one block (its part inside the job's region) and write it.

    Input is read and output written outside this process's turn to compute, so that the next block's input is
    there when this one is done.

    Parameters
    ----------
    block
        One of ``blocks(volume.shape, recipe.tiles)``; this task is the only writer of its shard.
    """
    job: SegmentJob = configuration()
    part = intersection(block.core, job.region)
    if part is None:
        raise ValueError(f"block {block.index} is outside the region {job.region}")
    mask = None if job.mask is None else job.mask.read(part) != 0
    if mask is not None and not mask.any():
        return BlockReport(
            block.index, 0, 0.0, {}, SeamDisagreement(), _checksum(job, block), 0, peak_memory()
        )
    with computing():  # one process loads it once
        model, featuriser = job.model_source.load(job.store)
    reader = reader_of(job, model.recipe.tiles)
    raw = read_window(job.volume, block, part, model, reader)
    _, height, width = box_shape(part)
    with computing():
        began = time.monotonic()
        found = predict_part(
            raw,
            job.volume,
            block,
            part,
            model,
            featuriser,
            crf=job.crf,
            probabilities=job.probabilities,
            uncertainty=job.uncertainty,
            mask=mask,
            threads=job.threads,
            batch_size=max(1, _batch(featuriser, model.recipe.tiles) >> attempt()),
            on_plane=_teller(block, height * width),
        )
        seconds = time.monotonic() - began
    labels = found.labels.astype(job.store.dtype, copy=False)
    job.store.write(part, labels, found.probabilities, found.uncertainty)
    counts = {info.value: int(np.count_nonzero(labels == info.value)) for info in model.classes}
    return BlockReport(
        block.index,
        sum(counts.values()),
        seconds,
        {value: count for value, count in counts.items() if count},
        found.seams,
        _checksum(job, block),
        reader.news(),
        peak_memory(),
    )


@lru_cache(maxsize=1)
def _batch(featuriser: Featuriser, tiles: TileSpec) -> int:
    """Return how many images the network is shown at once: what a GPU has room for when it is first asked."""
    from hrvol.features.deep.gpu_memory import batch_for  # torch: only where features are made

    if featuriser.backbone is None:
        return BATCH
    side = tiles.core + 2 * tiles.overlap
    return batch_for(featuriser.backbone, featuriser.spec.deep, (side, side))


def _teller(block: Block, pixels: int) -> Callable[[int], None]:
    """Return what reports planes of so many pixels as they are done, at most every :data:`TELL` seconds."""
    told = time.monotonic()

    def tell(planes: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL:
            told = time.monotonic()
            tick([list(block.index), planes * pixels])

    return tell


def _checksum(job: SegmentJob, block: Block) -> str:
    return job.store.checksums([block.index])[0]


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    kilobyte = 1024 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
