"""One block, from grey values to labels on disk: the task that engines hand to workers."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError
from hrvol.quality.metrics import SeamDisagreement, seam_disagreement
from hrvol.recipe import CrfSpec, TileSpec
from hrvol.run.classify import classify
from hrvol.run.task import attempt, computing, configuration, tick
from hrvol.segment.model import Model, check_weights, load_model, read_model
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.intensity import check_finite, to_unit
from hrvol.volume.labels import LabelStore
from hrvol.volume.order import BlockGrid
from hrvol.volume.store import Reader, Volume
from hrvol.volume.tiling import (
    Block,
    Box,
    Tile,
    blend_weight,
    box_shape,
    intersection,
    overlap_pairs,
    tiles_of,
    whole,
)

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True)
class Tools:
    """Which model and weights to load.

    Attributes
    ----------
    model_file, model_sha256
        The model's file and what it must hold. Where the file is not to be found, on another machine, the
        model is taken from the output, if it is kept there.
    weights_path, offline
        Where the network's weights come from.
    """

    model_file: str
    model_sha256: str
    weights_path: str | None = None
    offline: bool = False

    def load(self, store: LabelStore | None = None) -> tuple[Model, Featuriser]:
        """Return the model and its featuriser, loaded when first asked for and kept by this process.

        Parameters
        ----------
        store
            The output, where the model may be kept.

        Raises
        ------
        ModelError
            The model is damaged, was made with other weights than those found here, or with other features
            than its recipe says.
        WeightsError
            The network's weights are not to be had.
        """
        from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

        with _models_lock:
            model = _models.get(self.model_sha256)
        if model is None:
            kept = None if store is None or Path(self.model_file).is_file() else store.read_file(MODEL_FILE)
            model = load_model(self.model_file) if kept is None else read_model(kept, self.model_file)
            keep_model(self.model_sha256, model)
        spec = model.recipe.features
        featuriser = load_featuriser(spec, weights_path=self.weights_path, offline=self.offline)
        check_weights(model, featuriser.weights_sha256, self.weights_path or spec.deep.weights)
        if featuriser.channels != model.channels:
            raise ModelError(
                f"{model.source}: found {len(model.channels)} channels, expected the"
                f" {len(featuriser.channels)} of its recipe, from {featuriser.channels[0]} to"
                f" {featuriser.channels[-1]}"
            )
        return model, featuriser


@dataclass(frozen=True)
class SegmentJob:
    """All that a worker must know to predict any block of a run; plain data, sent to each worker once.

    Attributes
    ----------
    volume, store
        Where to read and where to write.
    tools
        The model and the weights.
    probabilities, uncertainty
        What to write besides labels.
    region
        Only this part of the volume is computed.
    crf
        Refine the probabilities of each tile with a CRF.
    threads
        Threads that share the classifier's work within one block.
    mask
        Only voxels where it is not 0 are labelled; of the volume's shape.
    """

    volume: Volume
    store: LabelStore
    tools: Tools
    probabilities: bool
    uncertainty: bool
    region: Box
    crf: CrfSpec | None
    threads: int
    mask: Volume | None = None


@dataclass(frozen=True)
class BlockReport:
    """What was done to a block.

    Attributes
    ----------
    index
        Its place in the grid of blocks.
    voxels, seconds
        Voxels labelled, and how long computing that took.
    counts
        Class value -> voxels.
    seams
        How far tiles of the block disagreed where they overlap, before they were blended.
    stamp
        Checksum of what was stored.
    read
        Bytes of input chunks that were decoded since the worker's report before.
    peak
        Most bytes of memory that the worker process has held so far.
    """

    index: tuple[int, int, int]
    voxels: int
    seconds: float
    counts: Mapping[int, int]
    seams: SeamDisagreement
    stamp: str
    read: int
    peak: int


MODEL_FILE = "model"
"""Where an output keeps the model that it was made with."""

BATCH = 4
"""Images that the network sees at once; halved each time that a block failed."""

TELL = 1.0
"""Seconds between two reports from inside a block: the driver hears those of all workers."""

_models: dict[str, Model] = {}  # at most one: a process works for one run at a time
_models_lock = threading.Lock()
_readers: dict[str, _Reader] = {}  # at most one
_readers_lock = threading.Lock()


def keep_model(sha256: str, model: Model) -> None:
    """Keep a model for the blocks that this process will predict."""
    with _models_lock:
        _models.clear()
        _models[sha256] = model


class _Reader:
    """Reads the volume of a job, and keeps decoded chunks for the blocks to come."""

    def __init__(self, job: SegmentJob, tiles: TileSpec) -> None:
        grid = BlockGrid(job.volume.shape, tiles, job.volume.chunks)
        self._cache = ChunkCache()
        self._uses = chunk_uses(grid, job.volume.chunks, job.region).along(job.volume.axes)
        self._told = 0
        self._lock = threading.Lock()

    def __call__(self, array: Any, selection: tuple[Any, ...]) -> NDArray[Any]:
        """Read a selection of the volume's array."""
        return self._cache.read(array, selection, self._uses)

    def news(self) -> int:
        """Return how many bytes of chunks were decoded since this was asked before."""
        with self._lock:
            before, self._told = self._told, self._cache.decoded_bytes
            return self._told - before


def _reader(job: SegmentJob, tiles: TileSpec) -> _Reader:
    """Return this process's reader of the job's volume."""
    key = f"{job.volume.source} {job.volume.shape} {job.region} {tiles}"
    with _readers_lock:
        if key not in _readers:
            _readers.clear()
            _readers[key] = _Reader(job, tiles)
        return _readers[key]


def forget_input() -> None:
    """Give up what this process keeps of a volume: it may be rewritten before the next run."""
    with _readers_lock:
        _readers.clear()


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
        return BlockReport(block.index, 0, 0.0, {}, SeamDisagreement(), _stamp(job, block), 0, peak_memory())
    with computing():  # one process loads it once
        model, featuriser = job.tools.load(job.store)
    reader = _reader(job, model.recipe.tiles)
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
            batch_size=max(1, BATCH >> attempt()),
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
        _stamp(job, block),
        reader.news(),
        peak_memory(),
    )


def _teller(block: Block, pixels: int) -> Callable[[int], None]:
    """Return what reports planes of so many pixels as they are done, at most every :data:`TELL` seconds."""
    told = time.monotonic()

    def tell(planes: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL:
            told = time.monotonic()
            tick([list(block.index), planes * pixels])

    return tell


def _stamp(job: SegmentJob, block: Block) -> str:
    return job.store.stamps([block.index])[0]


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    kilobyte = 1024 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in a part of a block.

    Attributes
    ----------
    labels
        ``(z, y, x)`` uint16 class values.
    probabilities
        ``(K, z, y, x)`` uint8, 255 = certain, or ``None``.
    uncertainty
        ``(z, y, x)`` uint8, 0 = certain, or ``None``.
    seams
        How far tiles disagreed where they overlap, before they were blended.
    """

    labels: NDArray[np.uint16]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None
    seams: SeamDisagreement


def read_window(
    volume: Volume, block: Block, part: Box, model: Model, reader: Reader | None = None
) -> NDArray[Any]:
    """Read the grey values that a part of a block is predicted from, context included.

    Parameters
    ----------
    volume, block, part, model
        As for :func:`predict_part`.
    reader
        As for :meth:`hrvol.volume.store.Volume.read`.

    Returns
    -------
    NDArray
        ``(z, y, x)``: the windows of all tiles that reach into the part.

    Raises
    ------
    InputError
        A grey value is not finite, or cannot be read.
    """
    bounds = _bounds(_views(block, part, volume.shape, model))
    raw = volume.read((part[0], *bounds), reader)
    check_finite(raw, volume.source, (part[0].start, bounds[0].start, bounds[1].start))
    return raw


def predict_part(
    raw: NDArray[Any],
    volume: Volume,
    block: Block,
    part: Box,
    model: Model,
    featuriser: Featuriser,
    *,
    crf: CrfSpec | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    mask: NDArray[np.bool_] | None = None,
    threads: int = 1,
    batch_size: int = BATCH,
    on_plane: Callable[[int], None] | None = None,
) -> Prediction:
    """Predict a part of a block, plane by plane, tile by tile, blending tiles of the block.

    Parameters
    ----------
    raw
        What :func:`read_window` returned for it.
    volume, block, part
        The voxels: ``part`` lies in the block.
    model, featuriser, crf, threads, batch_size
        As for :func:`hrvol.run.classify.classify`.
    probabilities, uncertainty
        What is wanted besides labels.
    mask
        ``(z, y, x)`` of the part: where it is false everything stays 0, and planes without it are left out.
    on_plane
        Called with the number of planes done.
    """
    views = _views(block, part, volume.shape, model)
    top, left = (bound.start for bound in _bounds(views))
    neighbours = [(i, j) for i, j, _ in overlap_pairs([view.tile for view in views])]
    seams = SeamDisagreement()
    depth, height, width = box_shape(part)
    values = np.asarray([info.value for info in model.classes], np.uint16)
    labels = np.zeros((depth, height, width), np.uint16)
    several = (len(values), depth, height, width)
    chances = np.zeros(several, np.uint8) if probabilities else None
    doubts = np.zeros((depth, height, width), np.uint8) if uncertainty else None
    for k in range(depth):
        if mask is None or mask[k].any():
            found = []
            for view in views:
                y0, y1, x0, x1 = view.tile.window
                image = to_unit(raw[k, y0 - top : y1 - top, x0 - left : x1 - left], model.window)
                found.append(
                    classify(
                        image,
                        view.in_window,
                        model,
                        featuriser,
                        crf=crf,
                        threads=threads,
                        batch_size=batch_size,
                    )
                )
            seams += _seams(views, found, neighbours)
            plane = _blend(views, found, (height, width))
            labels[k] = _likeliest(plane, values)
            if chances is not None:
                chances[:, k] = np.rint(255 * plane).astype(np.uint8)
            if doubts is not None:
                doubts[k] = np.rint(255 * entropy(np.moveaxis(plane, 0, -1))).astype(np.uint8)
        if on_plane is not None:
            on_plane(k + 1)
    if mask is not None:
        for written in (labels, chances, doubts):
            if written is not None:
                written[..., ~mask] = 0
    return Prediction(labels, chances, doubts, seams)


def _blend(
    views: Sequence[_View], found: Sequence[NDArray[np.float32]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the probabilities (K, y, x) of a plane from those of its tiles, which are (y, x, K).

    They add up to 1. Class by class, because along an axis as short as K numpy is many times slower.
    """
    if len(views) == 1:
        plane = np.ascontiguousarray(np.moveaxis(found[0], -1, 0))  # its weights are 1
    else:
        plane = np.zeros((found[0].shape[-1], *shape), np.float32)
        for view, proba in zip(views, found, strict=True):
            for whole_plane, of_tile in zip(plane, np.moveaxis(proba, -1, 0), strict=True):
                whole_plane[view.in_part] += view.weight * of_tile
    normalised: NDArray[np.float32] = plane / plane.sum(axis=0)  # the weights add up to 1 but for rounding
    return normalised


def _likeliest(plane: NDArray[np.float32], values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the values (y, x) of the classes with the highest probabilities (K, y, x); of equals, the first.

    Values ascend. A class at a time, as in :func:`_blend`.
    """
    labels = np.full(plane.shape[1:], values[0])
    highest = plane[0].copy()
    for value, proba in zip(values[1:], plane[1:], strict=True):
        np.maximum(labels, (proba > highest) * value, out=labels)
        np.maximum(highest, proba, out=highest)
    return labels


def _bounds(views: Sequence[_View]) -> tuple[slice, slice]:
    """Return the rows and columns that all windows together cover."""
    top, bottom = (end(view.tile.window[i] for view in views) for i, end in ((0, min), (1, max)))
    left, right = (end(view.tile.window[i] for view in views) for i, end in ((2, min), (3, max)))
    return slice(top, bottom), slice(left, right)


def label_plane(
    volume: Volume, z: int, model: Model, featuriser: Featuriser, *, crf: CrfSpec | None = None
) -> NDArray[np.uint16]:
    """Return the labels (Y, X) of one whole plane in memory: all its tiles, blended."""
    _, rows, columns = whole(volume.shape)
    part = (slice(z, z + 1), rows, columns)
    block = Block((0, 0, 0), part)
    raw = read_window(volume, block, part, model)
    labels: NDArray[np.uint16] = predict_part(raw, volume, block, part, model, featuriser, crf=crf).labels[0]
    return labels


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how unsure probabilities (..., K) are: entropy over log K, 0 sure, 1 all classes equal."""
    classes = probabilities.shape[-1]
    logs = np.log(np.maximum(probabilities, np.float32(1e-12)))
    share: NDArray[np.float32] = -(probabilities * logs).sum(axis=-1) / np.float32(np.log(max(classes, 2)))
    return np.clip(share, 0.0, 1.0)


@dataclass(frozen=True)
class _View:
    """A tile and the pixels of it that count in a part of a block.

    Attributes
    ----------
    tile
        The tile.
    in_window, in_part
        Those pixels, as slices of the tile's window and of the part's planes.
    weight
        Their blend weights, float32.
    """

    tile: Tile
    in_window: tuple[slice, slice]
    in_part: tuple[slice, slice]
    weight: NDArray[np.float32]


def _views(block: Block, part: Box, shape: tuple[int, int, int], model: Model) -> list[_View]:
    """Return the tiles that reach into a part of a block, blend ramps included."""
    views = []
    for tile in tiles_of(block, shape[1:], model.recipe.tiles):
        weight = blend_weight(tile, block)
        rows, columns = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
        y0, _, x0, _ = tile.window
        reach = (
            part[0],
            slice(y0 + int(rows[0]), y0 + int(rows[-1]) + 1),
            slice(x0 + int(columns[0]), x0 + int(columns[-1]) + 1),
        )
        shared = intersection(reach, part)
        if shared is None:
            continue
        in_window = (_shift(shared[1], y0), _shift(shared[2], x0))
        in_part = (_shift(shared[1], part[1].start), _shift(shared[2], part[2].start))
        views.append(_View(tile, in_window, in_part, np.ascontiguousarray(weight[in_window])))
    return views


def _shift(span: slice, origin: int) -> slice:
    return slice(span.start - origin, span.stop - origin)


def _seams(
    views: Sequence[_View], found: Sequence[NDArray[np.float32]], neighbours: Sequence[tuple[int, int]]
) -> SeamDisagreement:
    """Compare the probabilities (y, x, K) that neighbouring tiles give where both count."""
    total = SeamDisagreement()
    for i, j in neighbours:
        spans = zip(views[i].in_part, views[j].in_part, strict=True)
        shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in spans]
        if any(span.start >= span.stop for span in shared):
            continue
        a, b = (
            np.moveaxis(
                proba[tuple(_shift(s, o.start) for s, o in zip(shared, view.in_part, strict=True))], -1, 0
            )
            for view, proba in ((views[i], found[i]), (views[j], found[j]))
        )
        total += seam_disagreement(a.argmax(axis=0) + 1, b.argmax(axis=0) + 1, a, b)
    return total
