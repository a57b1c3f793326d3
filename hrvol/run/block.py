"""One block, from the store to the store: the task that engines hand to workers."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ModelError
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe import CrfSpec, TileSpec
from hrvol.run.devices import check_gpu
from hrvol.run.predict import predict_part, read_window
from hrvol.run.task import attempt, computing, configuration, tick
from hrvol.segment.model import Model, check_weights, load_model, read_model
from hrvol.specs import BATCH
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.labels import LabelStore
from hrvol.volume.order import BlockGrid
from hrvol.volume.store import Volume
from hrvol.volume.tiling import Block, Box, box_shape, intersection

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
    device
        Where features are made: ``cpu``, or ``cuda``, the GPU of the process.
    """

    model_file: str
    model_sha256: str
    weights_path: str | None = None
    offline: bool = False
    device: str = "cpu"

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
        DeviceError
            This process has no GPU, and the device is one.
        """
        from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

        if self.device == "cuda":
            check_gpu()
        with _models_lock:
            model = _models.get(self.model_sha256)
        if model is None:
            kept = None if store is None or Path(self.model_file).is_file() else store.read_file(MODEL_FILE)
            model = load_model(self.model_file) if kept is None else read_model(kept, self.model_file)
            keep_model(self.model_sha256, model)
        spec = model.recipe.features
        featuriser = load_featuriser(
            spec, device=self.device, weights_path=self.weights_path, offline=self.offline
        )
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

TELL = 1.0
"""Seconds between two reports from inside a block: the driver hears those of all workers."""

_models: dict[str, Model] = {}  # at most one: a process works for one run at a time
_models_lock = threading.Lock()
_readers: dict[str, JobReader] = {}  # at most one
_readers_lock = threading.Lock()


def keep_model(sha256: str, model: Model) -> None:
    """Keep a model for the blocks that this process will predict."""
    with _models_lock:
        _models.clear()
        _models[sha256] = model


class JobReader:
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


def reader_of(job: SegmentJob, tiles: TileSpec) -> JobReader:
    """Return this process's reader of the job's volume."""
    key = f"{job.volume.source} {job.volume.shape} {job.region} {tiles}"
    with _readers_lock:
        if key not in _readers:
            _readers.clear()
            _readers[key] = JobReader(job, tiles)
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
        _stamp(job, block),
        reader.news(),
        peak_memory(),
    )


@lru_cache(maxsize=1)
def _batch(featuriser: Featuriser, tiles: TileSpec) -> int:
    """Return how many images the network is shown at once: what a GPU has room for when it is first asked."""
    from hrvol.features.batch import batch_for  # torch: only where features are made

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


def _stamp(job: SegmentJob, block: Block) -> str:
    return job.store.stamps([block.index])[0]


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    kilobyte = 1024 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
