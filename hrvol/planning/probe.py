"""Run one trial block: read it, predict some of its planes and store it, with the code of the run itself.

Only as many planes are predicted as time allows. The others are copies of these, so that memory and output
are as large as in the run. A student predicts several planes at once: those of its cells, and as many cells
as the run has threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.task import computing, configuration
from hrvol.planning.resources import held_memory
from hrvol.planning.trial_block import Outputs, Trial, TrialBlock, TrialJob
from hrvol.run.block_job import peak_memory, reader_of
from hrvol.segment.model.model import Model
from hrvol.volume.grid.tiling import block_shape, box_shape
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.ome.pyramid import mean_reduce, mode_reduce
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels

MOST_PLANES = 32
"""Planes, or groups of planes that are predicted together, that a trial predicts at most."""

_NARROW = 8  # rows of a tile classified to separate the cost per pixel from the cost per tile

_REDUCED = 16  # planes reduced to a coarser level


@dataclass(frozen=True)
class Stored:
    """Cost of storing a block.

    Attributes
    ----------
    store_s, checksum_s, read_s
        Seconds to store the whole block including its checksum, for the checksum, and to read its labels.
    nbytes
        Bytes of the whole block as stored.
    reduce_s, empty_s
        Seconds per voxel to compute a coarser level of it, and of voxels that are all 0.
    """

    store_s: float
    checksum_s: float
    read_s: float
    nbytes: float
    reduce_s: float
    empty_s: float


@dataclass(frozen=True)
class Sample:
    """Measurements of one block.

    Attributes
    ----------
    process, block
        Process id of the worker, and flat index of the block.
    began
        Start, in seconds since the epoch.
    load_s
        Seconds to load the model; almost 0 if the worker had loaded it before.
    read_s, decoded
        Seconds to read the block with its context, and bytes of chunks decoded for it (0: unknown).
    voxels
        Voxels of the block.
    pixels
        Classified pixels of the tile whose planes were predicted.
    planes, busy
        Seconds and CPU seconds per plane of one tile, in order; of planes predicted together, their mean.
    narrow
        Seconds of a plane with few classified pixels, and their number; ``None`` if not measured.
    stored
        Cost of storing it; ``None`` if not stored.
    loaded, shared, peak
        Bytes of memory: with the model loaded, the part of it that workers share, and the peak so far.
    """

    process: int
    block: int
    began: float
    load_s: float
    read_s: float
    decoded: int
    voxels: int
    pixels: int
    planes: tuple[float, ...]
    busy: tuple[float, ...]
    narrow: tuple[float, int] | None
    stored: Stored | None
    loaded: int
    shared: int
    peak: int


def try_block(trial: Trial) -> Sample:
    """Read, predict and store a trial block, as :func:`hrvol.run.block.predict_block` does."""
    settings: TrialJob = configuration()
    job, began = settings.job, time.time()
    with computing():
        start = time.monotonic()
        model, loaded = job.model_source.load()
        load_s = time.monotonic() - start
        own, shared = held_memory()
    block = TrialBlock.of(settings, trial, model, loaded)
    piece = block.piece
    reader = reader_of(job)
    start = time.monotonic()
    raw = block.read(reader)
    read_s = time.monotonic() - start
    outputs = Outputs.of(job, model, box_shape(block.box))
    companion = block.companion(raw)

    order = block.groups
    predicted: list[Outputs] = []
    planes: list[float] = []
    busy: list[float] = []
    narrow = None
    with computing():
        computing_since = time.monotonic()
        while len(planes) < MOST_PLANES:
            start, cpu = time.monotonic(), time.process_time()
            group = order[len(planes) % len(order)]
            found = block.predict(raw, group, piece.rows, companion)
            took = time.monotonic() - start
            planes.append(took / len(group))
            busy.append((time.process_time() - cpu) / len(group))
            if len(planes) <= len(order):
                predicted += found
            if time.monotonic() - computing_since + took / 2 > trial.seconds:
                break
        if trial.narrow:
            rows = slice(piece.rows.start, min(piece.rows.stop, piece.rows.start + _NARROW))
            start = time.monotonic()
            block.predict(raw, order[0], rows, companion)
            share = (rows.stop - rows.start) / (piece.rows.stop - piece.rows.start)
            narrow = time.monotonic() - start, int(piece.pixels * share)
    stored = None
    if trial.store:
        outputs.fill(predicted)
        stored, peak = _store(block, outputs, predicted)
    else:
        peak = peak_memory()
    # In a run all tiles of a plane are predicted before any is blended; the trial predicts one.
    size = 4 * len(model.classes)
    peak += size * (piece.tiles - 1) * piece.pixels + 2 * size * (outputs.labels[0].size - piece.pixels)
    if job.companion is not None:  # holds a layer of its cells
        layer = min(job.companion.lattice.cell[0], len(outputs.labels))
        peak += size * layer * (outputs.labels[0].size - piece.pixels)
    return Sample(
        process=os.getpid(),
        block=block.number,
        began=began,
        load_s=load_s,
        read_s=read_s,
        decoded=reader.newly_decoded(),
        voxels=outputs.labels.size,
        pixels=piece.pixels,
        planes=tuple(planes),
        busy=tuple(busy),
        narrow=narrow,
        stored=stored,
        loaded=own + shared,
        shared=shared,
        peak=peak,
    )


def _store(block: TrialBlock, outputs: Outputs, predicted: Sequence[Outputs]) -> tuple[Stored, int]:
    """Store a trial block; return the cost, and the peak memory of the process until then in bytes."""
    model, number = block.model, str(block.trial.number)
    store = scratch_store(block.settings, model, number)
    start = time.monotonic()
    labels = outputs.labels.astype(store.dtype, copy=False)
    store.write(block.box, labels, outputs.probabilities, outputs.uncertainty)
    for info in model.classes:
        np.count_nonzero(labels == info.value)
    stored = time.monotonic()
    store.checksums([block.trial.block.index])
    done = time.monotonic()
    peak = peak_memory()
    open_labels(store.location, name=store.name).read(block.box)
    kinds = sum(values.nbytes for values in outputs.all[1:]) / labels.nbytes
    read_s = (time.monotonic() - done) * (1 + kinds)
    store.discard()
    reduce_s = _reduction_seconds(labels[:_REDUCED], outputs) / labels[:_REDUCED].size
    empty_s = _reduction_seconds(np.zeros_like(labels[:_REDUCED]), outputs) / labels[:_REDUCED].size
    nbytes = _stored_bytes(block, predicted)
    return Stored(done - start, done - stored, read_s, nbytes, reduce_s, empty_s), peak


def _reduction_seconds(labels: NDArray[Any], outputs: Outputs) -> float:
    """Return the seconds to halve labels and the other outputs."""
    start = time.monotonic()
    mode_reduce(labels, (2, 2, 2))
    labelled = time.monotonic()
    channels = sum(1 if values.ndim == 3 else len(values) for values in outputs.all[1:])
    if channels:
        mean_reduce(labels.astype(np.uint8, copy=False), (2, 2, 2))
    return labelled - start + channels * (time.monotonic() - labelled)


def _stored_bytes(block: TrialBlock, predicted: Sequence[Outputs]) -> float:
    """Return the bytes of the block as stored; each plane after the first is taken to compress alike."""
    settings, piece, first = block.settings, block.piece, block.groups[0].start
    store = scratch_store(settings, block.model, f"{block.trial.number}-size")
    depth, height, width = box_shape(block.box)
    adjacent = predicted[: depth - first]
    sizes = []
    for count in sorted({1, len(adjacent)}):
        z = block.box[0].start + first
        box = (slice(z, z + count), piece.rows, piece.columns)
        labels, *others = (
            np.concatenate(values, axis=-3)
            for values in zip(*(plane.all for plane in adjacent[:count]), strict=True)
        )
        probabilities = others[0] if settings.job.predicting.probabilities else None
        uncertainty = others[-1] if settings.job.predicting.uncertainty else None
        store.write(box, labels.astype(store.dtype, copy=False), probabilities, uncertainty)
        sizes.append(sum(size or 0 for size in store.location.sizes(store.keys(block.trial.block.index))))
    store.discard()
    each = (sizes[-1] - sizes[0]) / (len(adjacent) - 1) if len(adjacent) > 1 else sizes[0]
    return (sizes[0] + (depth - 1) * max(each, 0.0)) * height * width / piece.pixels


def scratch_store(settings: TrialJob, model: Model, name: str) -> LabelStore:
    """Create an output like that of the run in the scratch folder."""
    job = settings.job
    return create_labels(
        Location(f"{settings.scratch}/{name}"),
        job.volume,
        classes=model.classes,
        block_shape=block_shape(job.volume.shape, job.tiles),
        attributes={},
        outputs=LabelOutputs(job.store.name, job.predicting.probabilities, job.predicting.uncertainty),
    )
