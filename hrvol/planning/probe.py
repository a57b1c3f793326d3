"""Run one trial block: read it, predict some of its planes and store it, with the code of the run itself.

Only as many planes are predicted as time allows. The others are copies of these, so that memory and output
are as large as in the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.ome.pyramid import mean_reduce, mode_reduce
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser

MOST_PLANES = 32
"""Planes that a trial predicts at most."""

_NARROW = 8  # rows of a tile classified to separate the cost per pixel from the cost per tile

_REDUCED = 16  # planes reduced to a coarser level


@dataclass(frozen=True)
class Trial:
    """A trial block.

    Attributes
    ----------
    number
        Number of the trial, which names its scratch output.
    block
        The block.
    seconds
        How long to predict planes; at least one is predicted.
    narrow
        Whether to predict a few rows of a plane as well, to measure a tile with few classified pixels.
    store
        Whether to store the result, too.
    """

    number: int
    block: Block
    seconds: float
    narrow: bool = False
    store: bool = True


@dataclass(frozen=True)
class TrialJob:
    """Configuration of a worker: the run's job, and a local folder for trial outputs."""

    job: SegmentJob
    scratch: Location


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
        Seconds and CPU seconds per plane of one tile, in order.
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


@dataclass(frozen=True, eq=False)
class _TrialBlock:
    """A trial block and what its worker loaded for it.

    Attributes
    ----------
    settings, trial
        The worker's configuration, and the trial.
    model, featuriser
        The loaded model.
    box
        Voxels of the block inside the region.
    piece
        The tile that is predicted.
    mask
        (z, y, x) bool of the box, or ``None``.
    """

    settings: TrialJob
    trial: Trial
    model: Model
    featuriser: Featuriser
    box: Box
    piece: Piece
    mask: NDArray[np.bool_] | None

    @property
    def first_plane(self) -> int:
        """A plane in the middle of the block; if possible, of those with mask."""
        depth = _length(self.box[0])
        if self.mask is None:
            return depth // 2
        inside = _crop(self.mask, self.box, (self.box[0], self.piece.rows, self.piece.columns))
        planes = np.flatnonzero(inside.any(axis=(1, 2)))
        return int(planes[len(planes) // 2]) if len(planes) else depth // 2

    def predict(self, raw: NDArray[Any], k: int, rows: slice) -> _Outputs:
        """Predict rows of the tile in plane ``k`` of the block, from the window read of the block."""
        job, z = self.settings.job, self.box[0].start + k
        box = (slice(z, z + 1), rows, self.piece.columns)
        prediction = predict_part(
            raw[(slice(k, k + 1), *self.piece.in_read)],
            job.volume,
            self.trial.block,
            box,
            self.model,
            self.featuriser,
            job.predicting,
            mask=None if self.mask is None else _crop(self.mask, self.box, box),
        )
        return _Outputs(prediction.labels, prediction.probabilities, prediction.uncertainty)


def try_block(trial: Trial) -> Sample:
    """Read, predict and store a trial block, as :func:`hrvol.run.block.predict_block` does."""
    settings: TrialJob = configuration()
    job, began = settings.job, time.time()
    with computing():
        start = time.monotonic()
        model, featuriser = job.model_source.load()
        load_s = time.monotonic() - start
        own, shared = held_memory()
    box = intersection(trial.block.core, job.region)
    assert box is not None
    tiles = model.recipe.tiles
    grid = BlockGrid(job.volume.shape, tiles)
    piece = one_tile(grid, trial.block, job.region)
    mask = None if job.mask is None else job.mask.read(box) != 0
    block = _TrialBlock(settings, trial, model, featuriser, box, piece, mask)
    reader = reader_of(job, tiles)
    start = time.monotonic()
    raw = read_window(job.volume, trial.block, box, model, reader)
    read_s = time.monotonic() - start
    outputs = _outputs(job, box_shape(box), len(model.classes))

    first = block.first_plane
    order = [(first + i) % len(raw) for i in range(len(raw))]
    predicted: list[_Outputs] = []
    planes: list[float] = []
    busy: list[float] = []
    narrow = None
    with computing():
        computing_since = time.monotonic()
        while len(planes) < MOST_PLANES:
            start, cpu = time.monotonic(), time.process_time()
            plane = block.predict(raw, order[len(planes) % len(order)], piece.rows)
            planes.append(time.monotonic() - start)
            busy.append(time.process_time() - cpu)
            if len(planes) <= len(order):
                predicted.append(plane)
            if time.monotonic() - computing_since + planes[-1] / 2 > trial.seconds:
                break
        if trial.narrow:
            rows = slice(piece.rows.start, min(piece.rows.stop, piece.rows.start + _NARROW))
            start = time.monotonic()
            block.predict(raw, order[0], rows)
            narrow = (
                time.monotonic() - start,
                piece.pixels * (rows.stop - rows.start) // _length(piece.rows),
            )
    stored = None
    if trial.store:
        outputs.fill(predicted)
        stored, peak = _store(block, outputs, predicted)
    else:
        peak = peak_memory()
    # In a run all tiles of a plane are predicted before any is blended; the trial predicts one.
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
    """Labels (z, y, x); if requested, probabilities (K, z, y, x) and uncertainty (z, y, x)."""

    labels: NDArray[Any]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None

    def fill(self, planes: Sequence[_Outputs]) -> None:
        """Fill all planes with copies of the predicted ones, flipped so that they repeat late."""
        depth, height, width = self.labels.shape
        for k in range(depth):
            source, turn = planes[k % len(planes)], k // len(planes) % 4
            for target, values in zip(self.all, source.all, strict=True):
                plane = values[..., 0, :: (-1) ** (turn // 2), :: (-1) ** turn]
                h, w = plane.shape[-2:]
                around = [(0, 0)] * (plane.ndim - 2) + [(0, height - h), (0, width - w)]
                target[..., k, :, :] = np.pad(plane, around, "symmetric")

    @property
    def all(self) -> list[NDArray[Any]]:
        """The arrays that are not ``None``."""
        arrays = (self.labels, self.probabilities, self.uncertainty)
        return [values for values in arrays if values is not None]


def _outputs(job: SegmentJob, shape: tuple[int, int, int], classes: int) -> _Outputs:
    """Return arrays for a whole block; ones, so that their memory is really allocated."""
    return _Outputs(
        np.ones(shape, np.uint16),
        np.ones((classes, *shape), np.uint8) if job.predicting.probabilities else None,
        np.ones(shape, np.uint8) if job.predicting.uncertainty else None,
    )


def _store(block: _TrialBlock, outputs: _Outputs, predicted: Sequence[_Outputs]) -> tuple[Stored, int]:
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


def _reduction_seconds(labels: NDArray[Any], outputs: _Outputs) -> float:
    """Return the seconds to halve labels and the other outputs."""
    start = time.monotonic()
    mode_reduce(labels, (2, 2, 2))
    labelled = time.monotonic()
    channels = sum(1 if values.ndim == 3 else len(values) for values in outputs.all[1:])
    if channels:
        mean_reduce(labels.astype(np.uint8, copy=False), (2, 2, 2))
    return labelled - start + channels * (time.monotonic() - labelled)


def _stored_bytes(block: _TrialBlock, predicted: Sequence[_Outputs]) -> float:
    """Return the bytes of the block as stored; each plane after the first is taken to compress alike."""
    settings, piece, first = block.settings, block.piece, block.first_plane
    store = scratch_store(settings, block.model, f"{block.trial.number}-size")
    depth = _length(block.box[0])
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
    whole = _length(block.box[1]) * _length(block.box[2])
    return (sizes[0] + (depth - 1) * max(each, 0.0)) * whole / piece.pixels


def scratch_store(settings: TrialJob, model: Model, name: str) -> LabelStore:
    """Create an output like that of the run in the scratch folder."""
    job = settings.job
    return create_labels(
        Location(f"{settings.scratch}/{name}"),
        job.volume,
        classes=model.classes,
        block_shape=block_shape(job.volume.shape, model.recipe.tiles),
        attributes={},
        outputs=LabelOutputs(job.store.name, job.predicting.probabilities, job.predicting.uncertainty),
    )


def _crop(values: NDArray[Any], outer: Box, inner: Box) -> NDArray[Any]:
    """Return the values of an inner box from those of an outer box."""
    z, y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    cropped: NDArray[Any] = values[z, y, x]
    return cropped


def _length(span: slice) -> int:
    start, stop = int(span.start), int(span.stop)
    return stop - start
