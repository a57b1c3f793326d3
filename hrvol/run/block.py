"""The task that engines hand to workers: read a block, predict it, write it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.task import attempt, computing, configuration, tick
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe.specs import BATCH, TileSpec
from hrvol.run.block_job import BlockReport, check_unchanged, input_states, peak_memory, reader_of
from hrvol.run.job import SegmentJob
from hrvol.run.predict import Prediction, predict_part, read_window
from hrvol.run.students.companion import box_to_read, companion_planes, read_both, window_of
from hrvol.run.students.predict_student import predict_cells, read_cells
from hrvol.segment.model.model import Model
from hrvol.volume.grid.tiling import Block, Box, box_shape, intersection
from hrvol.volume.storage.location import combined
from hrvol.volume.volume import Reader

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser
    from hrvol.segment.student.runner import StudentRunner


TICK = 1.0
"""Seconds between two progress reports from inside a block; the driver receives those of all workers."""


def predict_block(block: Block) -> BlockReport:
    """Predict one block (inside the job's region) and write it.

    Input is read and output is written while another block computes, so that the next block's input is in
    memory when this one is finished.

    Parameters
    ----------
    block
        One of ``blocks(volume.shape, job.tiles)``; this task is the only writer of its shard.
    """
    job: SegmentJob = configuration()
    box = intersection(block.core, job.region)
    if box is None:
        raise ValueError(f"block {block.index} is outside the region {job.region}")
    before = input_states(job, block)
    reader = reader_of(job)
    mask = None if job.mask is None else job.mask.read(box, reader.mask) != 0
    if mask is not None and not mask.any():
        inputs = check_unchanged(job, block, before)
        objects = _checksums(job, block)
        return BlockReport(
            block.index, 0, 0.0, {}, SeamDisagreement(), combined(objects), 0, peak_memory(), objects, inputs
        )
    with computing():  # loaded once per process
        model, loaded = job.model_source.load(job.store)
    raw = _read(job, block, box, model, reader.of(before[0]))
    inputs = check_unchanged(job, block, before)
    with computing():
        began = time.monotonic()
        prediction = _predict(job, block, box, raw, model, loaded, mask)
        seconds = time.monotonic() - began
    del raw  # while another block computes
    labels = prediction.labels.astype(job.store.dtype, copy=False)
    job.store.write(box, labels, prediction.probabilities, prediction.uncertainty)
    objects = _checksums(job, block)
    counts = {info.value: int(np.count_nonzero(labels == info.value)) for info in model.classes}
    return BlockReport(
        block.index,
        sum(counts.values()),
        seconds,
        {value: count for value, count in counts.items() if count},
        prediction.seams,
        combined(objects),
        reader.newly_decoded(),
        peak_memory(),
        objects,
        inputs,
    )


def _read(job: SegmentJob, block: Block, box: Box, model: Model, reader: Reader) -> NDArray[Any]:
    """Read the grey values from which a box of a block is predicted."""
    if job.lattice is not None:
        return read_cells(job.volume, box, job.lattice, reader)
    if job.companion is not None:
        return read_both(job, box_to_read(job, block, box, model), reader)
    return read_window(job.volume, block, box, model, reader)


def _predict(
    job: SegmentJob,
    block: Block,
    box: Box,
    raw: NDArray[Any],
    model: Model,
    loaded: Featuriser | StudentRunner,
    mask: NDArray[np.bool_] | None,
) -> Prediction:
    """Predict a box of a block from its grey values."""
    _, height, width = box_shape(box)
    keywords: Any = {"mask": mask, "on_plane": _plane_reporter(block, height * width)}
    options = job.predicting
    if job.lattice is not None:
        runner = cast("StudentRunner", loaded)
        return predict_cells(raw, job.lattice, box, model, runner, options, **keywords)
    featuriser = cast("Featuriser", loaded)
    # At each try with half the batch: a GPU may have been out of memory.
    options = replace(options, batch_size=max(1, _batch(featuriser, job.tiles) >> attempt()))
    if job.companion is not None:
        held = box_to_read(job, block, box, model)
        options = replace(options, companion=companion_planes(raw, held, job, box, mask))
        raw = window_of(raw, held, job, block, box, model)
    return predict_part(raw, job.volume, block, box, model, featuriser, options, **keywords)


@lru_cache(maxsize=1)
def _batch(featuriser: Featuriser, tiles: TileSpec) -> int:
    """Return the images per pass of the network: as many as fit the GPU on the first call."""
    if featuriser.backbone is None:
        return BATCH
    from hrvol.features.deep.gpu_memory import batch_for  # torch: only where a network makes features

    side = tiles.core + 2 * tiles.overlap
    return batch_for(featuriser.backbone, featuriser.spec.deep, (side, side))


def _plane_reporter(block: Block, pixels: int) -> Callable[[int], None]:
    """Return a function that reports finished planes of ``pixels``, at most every :data:`TICK` seconds."""
    reported = time.monotonic()

    def report(planes: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= TICK:
            reported = time.monotonic()
            tick([list(block.index), planes * pixels])

    return report


def _checksums(job: SegmentJob, block: Block) -> tuple[str, ...]:
    return job.store.object_checksums([block.index])[0]
