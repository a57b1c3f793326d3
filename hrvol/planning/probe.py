"""One block on trial: read, predicted in part and stored, with the code of the run itself.

Only as many planes are predicted as there is time for; the others are made of these, so that what is held in
memory and written is as large as in the run.
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
from hrvol.planning.forecast import Piece, one_tile
from hrvol.planning.resources import held_memory
from hrvol.run.block import peak_memory
from hrvol.run.job import SegmentJob, reader_of
from hrvol.run.predict import predict_part, read_window
from hrvol.segment.model.model import Model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, block_shape, box_shape, intersection
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.ome.pyramid import mean_reduce, mode_reduce
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels

MOST_PLANES = 32
"""Planes that a trial predicts at most, however fast."""

_NARROW = 8  # rows of a tile that are classified to find out what the rest of the work costs

_REDUCED = 16  # planes that a coarser level is made of, on trial


@dataclass(frozen=True)
class Trial:
    """A block to try.

    Attributes
    ----------
    number
        Of the trial; its scratch store is named by it.
    block
        The block.
    seconds
        How long to predict planes of it; one at least is predicted.
    narrow
        Whether to predict a few rows of a plane as well, to see what a tile costs of which little counts.
    store
        Whether to store what comes out, too.
    """

    number: int
    block: Block
    seconds: float
    narrow: bool = False
    store: bool = True


@dataclass(frozen=True)
class TrialJob:
    """What a worker is told: the run's job, and a local folder for what is stored on trial."""

    job: SegmentJob
    scratch: Location


@dataclass(frozen=True)
class Stored:
    """What storing a block cost.

    Attributes
    ----------
    store_s, stamp_s, read_s
        Seconds for storing all of it, for its checksum, and for reading its labels back.
    nbytes
        That the whole block would take as stored.
    reduce_s, empty_s
        Seconds per voxel to make a coarser level of it, and of voxels that are all 0.
    """

    store_s: float
    stamp_s: float
    read_s: float
    nbytes: float
    reduce_s: float
    empty_s: float


@dataclass(frozen=True)
class Sample:
    """What was measured of one block.

    Attributes
    ----------
    process, block
        Which worker it was, and which block, by its flat index.
    began
        When, in seconds since the epoch.
    load_s
        Seconds to load the model; next to nothing where it was loaded.
    read_s, decoded
        Seconds to read the block's window, and bytes of chunks decoded for it (0: not known).
    voxels
        Of the block.
    pixels
        Of the tile whose planes were predicted that count.
    planes, busy
        Seconds and CPU seconds per plane of one tile, in the order they were predicted.
    narrow
        Seconds of a plane of which few pixels count, and how many; ``None`` if not measured.
    stored
        What storing it cost, unless it was not.
    loaded, shared, peak
        Bytes of memory that the worker held once the model was loaded, those of them that it shares with
        others, and all that it held at most so far.
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
    """Read, predict and store a block, as :func:`hrvol.run.block.predict_block` does; the trial task."""
    told: TrialJob = configuration()
    job, began = told.job, time.time()
    with computing():
        start = time.monotonic()
        model, featuriser = job.model_source.load()
        load_s = time.monotonic() - start
        own, shared = held_memory()
    part = intersection(trial.block.core, job.region)
    assert part is not None
    tiles = model.recipe.tiles
    grid = BlockGrid(job.volume.shape, tiles)
    piece = one_tile(grid, trial.block, job.region)
    mask = None if job.mask is None else job.mask.read(part) != 0
    reader = reader_of(job, tiles)
    start = time.monotonic()
    raw = read_window(job.volume, trial.block, part, model, reader)
    read_s = time.monotonic() - start
    outputs = _outputs(job, box_shape(part), len(model.classes))

    def predict(k: int, rows: slice) -> _Outputs:
        sub = (slice(part[0].start + k, part[0].start + k + 1), rows, piece.columns)
        found = predict_part(
            raw[(slice(k, k + 1), *piece.in_read)],
            job.volume,
            trial.block,
            sub,
            model,
            featuriser,
            job.predicting,
            mask=None if mask is None else _cut(mask, part, sub),
        )
        return _Outputs(found.labels, found.probabilities, found.uncertainty)

    first = _first_plane(mask, part, piece)
    order = [(first + i) % len(raw) for i in range(len(raw))]
    found: list[_Outputs] = []
    planes: list[float] = []
    busy: list[float] = []
    narrow = None
    with computing():
        begun = time.monotonic()
        while len(planes) < MOST_PLANES:
            start, cpu = time.monotonic(), time.process_time()
            plane = predict(order[len(planes) % len(order)], piece.rows)
            planes.append(time.monotonic() - start)
            busy.append(time.process_time() - cpu)
            if len(planes) <= len(order):
                found.append(plane)
            if time.monotonic() - begun + planes[-1] / 2 > trial.seconds:
                break
        if trial.narrow:
            rows = slice(piece.rows.start, min(piece.rows.stop, piece.rows.start + _NARROW))
            start = time.monotonic()
            predict(order[0], rows)
            narrow = (
                time.monotonic() - start,
                piece.pixels * (rows.stop - rows.start) // _length(piece.rows),
            )
    stored = None
    if trial.store:
        outputs.fill(found)
        stored, peak = _store(told, trial, model, part, piece, first, outputs, found)
    else:
        peak = peak_memory()
    # Of the other tiles of a plane, which are predicted before any is blended.
    size = 4 * len(model.classes)
    peak += size * (piece.tiles - 1) * piece.pixels + 2 * size * (outputs.labels[0].size - piece.pixels)
    return Sample(
        process=os.getpid(),
        block=int(np.ravel_multi_index(trial.block.index, grid.counts)),
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


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Labels (z, y, x), and what is wanted beside them: probabilities (K, z, y, x), uncertainty (z, y, x)."""

    labels: NDArray[Any]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None

    def fill(self, planes: Sequence[_Outputs]) -> None:
        """Make all planes of a few that were predicted, turned about so that they do not repeat too soon."""
        depth, height, width = self.labels.shape
        for k in range(depth):
            source, turn = planes[k % len(planes)], k // len(planes) % 4
            for mine, theirs in zip(self.all, source.all, strict=True):
                plane = theirs[..., 0, :: (-1) ** (turn // 2), :: (-1) ** turn]
                h, w = plane.shape[-2:]
                around = [(0, 0)] * (plane.ndim - 2) + [(0, height - h), (0, width - w)]
                mine[..., k, :, :] = np.pad(plane, around, "symmetric")

    @property
    def all(self) -> list[NDArray[Any]]:
        """The arrays there are."""
        return [found for found in (self.labels, self.probabilities, self.uncertainty) if found is not None]


def _outputs(job: SegmentJob, shape: tuple[int, int, int], classes: int) -> _Outputs:
    """Return arrays for a whole block, their memory taken."""
    return _Outputs(
        np.ones(shape, np.uint16),
        np.ones((classes, *shape), np.uint8) if job.predicting.probabilities else None,
        np.ones(shape, np.uint8) if job.predicting.uncertainty else None,
    )


def _store(
    told: TrialJob,
    trial: Trial,
    model: Model,
    part: Box,
    piece: Piece,
    first: int,
    outputs: _Outputs,
    found: Sequence[_Outputs],
) -> tuple[Stored, int]:
    """Store a block on trial; return what that cost, and the peak memory of the process until then."""
    store = scratch_store(told, model, str(trial.number))
    start = time.monotonic()
    labels = outputs.labels.astype(store.dtype, copy=False)
    store.write(part, labels, outputs.probabilities, outputs.uncertainty)
    for info in model.classes:
        np.count_nonzero(labels == info.value)
    stamped = time.monotonic()
    store.checksums([trial.block.index])
    done = time.monotonic()
    peak = peak_memory()
    open_labels(store.location, name=store.name).read(part)
    kinds = sum(found.nbytes for found in outputs.all[1:]) / labels.nbytes
    read_s = (time.monotonic() - done) * (1 + kinds)
    store.discard()
    reduce_s = _reducing(labels[:_REDUCED], outputs) / labels[:_REDUCED].size
    empty_s = _reducing(np.zeros_like(labels[:_REDUCED]), outputs) / labels[:_REDUCED].size
    nbytes = _stored_bytes(told, trial, model, part, piece, first, found)
    return Stored(done - start, done - stamped, read_s, nbytes, reduce_s, empty_s), peak


def _reducing(labels: NDArray[Any], outputs: _Outputs) -> float:
    """Return the seconds to halve labels, and what is stored beside them."""
    start = time.monotonic()
    mode_reduce(labels, (2, 2, 2))
    labelled = time.monotonic()
    channels = sum(1 if found.ndim == 3 else len(found) for found in outputs.all[1:])
    if channels:
        mean_reduce(labels.astype(np.uint8, copy=False), (2, 2, 2))
    return labelled - start + channels * (time.monotonic() - labelled)


def _stored_bytes(
    told: TrialJob,
    trial: Trial,
    model: Model,
    part: Box,
    piece: Piece,
    first: int,
    found: Sequence[_Outputs],
) -> float:
    """Return the bytes that a block takes as stored: each plane after the first is like the one before."""
    store = scratch_store(told, model, f"{trial.number}-size")
    depth = _length(part[0])
    run = found[: depth - first]  # those that lie on each other
    sizes = []
    for count in sorted({1, len(run)}):
        z = part[0].start + first
        box = (slice(z, z + count), piece.rows, piece.columns)
        labels, *others = (
            np.concatenate(of, axis=-3) for of in zip(*(p.all for p in run[:count]), strict=True)
        )
        chances = others[0] if told.job.predicting.probabilities else None
        doubts = others[-1] if told.job.predicting.uncertainty else None
        store.write(box, labels.astype(store.dtype, copy=False), chances, doubts)
        sizes.append(sum(size or 0 for size in store.location.sizes(store.keys(trial.block.index))))
    store.discard()
    each = (sizes[-1] - sizes[0]) / (len(run) - 1) if len(run) > 1 else sizes[0]
    whole = _length(part[1]) * _length(part[2])
    return (sizes[0] + (depth - 1) * max(each, 0.0)) * whole / piece.pixels


def scratch_store(told: TrialJob, model: Model, name: str) -> LabelStore:
    """Make an output like that of the run, in the scratch folder."""
    job = told.job
    return create_labels(
        Location(f"{told.scratch}/{name}"),
        job.volume,
        classes=model.classes,
        block_shape=block_shape(job.volume.shape, model.recipe.tiles),
        name=job.store.name,
        attributes={},
        probabilities=job.predicting.probabilities,
        uncertainty=job.predicting.uncertainty,
    )


def _first_plane(mask: NDArray[np.bool_] | None, part: Box, piece: Piece) -> int:
    """Return a plane in the middle of a block; of those with mask, if there are any."""
    depth = _length(part[0])
    if mask is None:
        return depth // 2
    inside = _cut(mask, part, (part[0], piece.rows, piece.columns))
    planes = np.flatnonzero(inside.any(axis=(1, 2)))
    return int(planes[len(planes) // 2]) if len(planes) else depth // 2


def _cut(values: NDArray[Any], box: Box, part: Box) -> NDArray[Any]:
    """Return a part of what was read of a box."""
    z, y, x = (slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
    cut: NDArray[Any] = values[z, y, x]
    return cut


def _length(span: slice) -> int:
    start, stop = int(span.start), int(span.stop)
    return stop - start
