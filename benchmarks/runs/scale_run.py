"""Measurements of ``benchmarks.runs.scale``: runs over stored volumes with next to no features, plain copies.

``python -m benchmarks.runs.scale_run CASE`` does one run, given as JSON, in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.runs.scale_watch import Watch
from hrvol.arrays import Shape3
from hrvol.classes import default_classes
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.run.cache_choice import choose_cache
from hrvol.run.job import SegmentJob
from hrvol.run.ledger import Ledger, entries
from hrvol.run.options import PredictOptions
from hrvol.run.predict import predict_part, read_window
from hrvol.run.report import Run, summarise
from hrvol.run.run_blocks import run_blocks
from hrvol.segment.model.model import Model
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, blocks, shard_and_chunk, whole
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import open_labels, open_volume

CHUNK = 64

DARK, BRIGHT = 90, 150
"""The two grey values: as many as labels, so that a copy and a run write as many bytes."""

SHARES = (0.1, 0.5, 1.0)
"""Shares of a run at which its memory is recorded."""

SPANS = ((0.05, 0.15), (0.45, 0.55), (0.85, 0.95))
"""Spans of a run over which its pace is recorded: start, middle and end."""

STEADY = (0.05, 0.95)
"""Span of a run in which all workers are busy."""

_PATTERNS = 16


class Grey:
    """Stands in for a featuriser: the one feature of a pixel is its grey value."""

    backbone = None
    channels = ("grey",)
    groups = {"classical": slice(0, 1)}  # noqa: RUF012

    def stripes(
        self, image: NDArray[np.float32], inside: tuple[slice, slice], *, rows: int, batch_size: int = 4
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the features (y, x, 1) of some rows inside a window."""
        grey = image[inside][..., None]
        for start in range(0, len(grey), rows):
            yield slice(start, min(start + rows, len(grey))), grey[start : start + rows]


class Threshold:
    """Stands in for a classifier: class 2 is as likely as a pixel is bright."""

    classes = (1, 2)
    n_features = 1

    def predict_proba(self, features: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Return probabilities (n, 2) of features (n, 1)."""
        return np.concatenate([1 - features, features], axis=1)


@dataclass(frozen=True)
class StandIn:
    """Stands in for :class:`hrvol.run.job.ModelSource`: only features and classifier differ."""

    tiles: TileSpec

    def load(self, store: Any = None) -> tuple[Model, Grey]:
        """Return the model and its featuriser."""
        return _model(self.tiles), Grey()


@cache
def _model(tiles: TileSpec) -> Model:
    threshold: Any = Threshold()
    classes = default_classes(Threshold.classes, ("dark", "bright"))
    return Model(Recipe(tiles=tiles), classes, (0.0, 255.0), threshold, None, Grey.channels)


def write_volume(folder: Path, shape: Shape3) -> None:
    """Write a volume that takes next to no disk space: its chunks are hard links to a few.

    Each link is a file that is opened, read and decoded like any other.
    """
    array = zarr.create_array(folder, shape=shape, chunks=(CHUNK,) * 3, dtype="uint8")
    drawn = folder.with_name(f"{folder.name}.patterns")
    shape = (_PATTERNS * CHUNK, CHUNK, CHUNK)
    patterns = zarr.create_array(drawn, shape=shape, chunks=(CHUNK,) * 3, dtype="uint8")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=patterns.shape), 3)
    patterns[:] = np.where(noise > 0, BRIGHT, DARK)
    for z, y, x in np.ndindex(*array.cdata_shape):
        target = folder / array.metadata.encode_chunk_key((z, y, x))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Neighbours in all directions differ.
        os.link(drawn / patterns.metadata.encode_chunk_key(((5 * z + 3 * y + x) % _PATTERNS, 0, 0)), target)


def measure(
    volume_path: Path,
    out: Path,
    tiles: TileSpec,
    workers: int,
    planes: int = 0,
    scratch: str | None = None,
) -> dict[str, Any]:
    """Label a volume and return its cost.

    Parameters
    ----------
    volume_path, out
        Input and output.
    tiles
        Tiles of the volume.
    workers
        Worker processes of the local engine; 1 is this process.
    planes
        Number of planes, from the first; 0: all.
    scratch
        Folder for decoded chunks that memory cannot hold; ``None``: none.

    Returns
    -------
    dict
        Ready for JSON; sizes in bytes, times in seconds.
    """
    model, _ = StandIn(tiles).load()
    source: Any = StandIn(tiles)
    began = round(time.time(), 3)
    with Watch() as watch:
        volume = open_volume(volume_path)
        grid = BlockGrid(volume.shape, tiles, volume.chunks)
        _, rows, columns = whole(volume.shape)
        region = (slice(0, planes or volume.shape[0]), rows, columns)
        store = create_labels(out, volume, classes=model.classes, block_shape=grid.side, attributes={})
        own_blocks = grid.inside(region)
        spec = EngineSpec("local", workers) if workers > 1 else EngineSpec()
        cache = choose_cache(volume, grid, own_blocks, region, spec, scratch)
        job = SegmentJob(volume, store, source, PredictOptions(), region, tiles, cache=cache)
        run = Run(grid, own_blocks, own_blocks, job, Ledger(store.location, len(grid)))
        with run.ledger:
            run_blocks(run, spec, Stop(), watch)
        finished = watch.seconds
        report = summarise(run, model.classes, began)
        summed = watch.seconds
    if report.failed:
        raise RuntimeError(f"{len(report.failed)} blocks failed, the first: {report.failed[0].reason}")
    _check(volume_path, out, report.voxels, region[0].stop)
    total = report.voxels
    samples = [watch.at(share, total) for share in SHARES]
    computing = [entry["seconds"] for entry in entries(store.location) if "seconds" in entry]
    return {
        "blocks": report.blocks,
        "voxels": total,
        "first": watch.first,
        "seconds": watch.last,
        "steady": watch.cost("seconds", STEADY, total),
        "pace": [watch.cost("seconds", span, total) for span in SPANS],
        "driver_cpu": [watch.cost("driver_cpu", span, total) for span in SPANS],
        "workers_cpu": watch.cost("workers_cpu", STEADY, total),
        "computing": sum(computing) / len(computing),
        "driver": [look.driver for look in samples],
        "worker": [look.worker for look in samples],
        "worker_peak": report.peak,
        "levels": finished - watch.last,
        "levels_cpu": watch.levels_cpu,
        "levels_peak": watch.peaks,
        "summing": summed - finished,
        "amplification": report.read_amplification,
        "kept": cache.capacity,
        "scratch": cache.scratch is not None,
        "allocator": watch.allocator,
        "ledger": sum(file.stat().st_size for file in (out / "ledger").rglob("*") if file.is_file()),
    }


def phases(volume_path: Path, out: Path, tiles: TileSpec, count: int) -> dict[str, float]:
    """Return the CPU nanoseconds of a voxel in each step of a block, for blocks done in this process."""
    model, grey = StandIn(tiles).load()
    featuriser: Any = grey
    volume = open_volume(volume_path)
    grid = BlockGrid(volume.shape, tiles, volume.chunks)
    store = create_labels(out, volume, classes=model.classes, block_shape=grid.side, attributes={})
    cache, uses = ChunkCache(), chunk_uses(grid, volume.chunks)
    spent = dict.fromkeys(("read", "predict", "write", "checksum"), 0.0)
    voxels = 0
    for number in grid.order()[:count]:
        block = grid[int(number)]
        marks = [time.process_time()]
        raw = read_window(volume, block, block.core, model, lambda array, box: cache.read(array, box, uses))
        marks.append(time.process_time())
        found = predict_part(raw, volume, block, block.core, model, featuriser)
        marks.append(time.process_time())
        store.write(block.core, found.labels.astype(store.dtype))
        marks.append(time.process_time())
        store.checksums([block.index])
        marks.append(time.process_time())
        for name, first, last in zip(spent, marks, marks[1:], strict=False):
            spent[name] += last - first
        voxels += int(np.prod(block.shape))
    return {name: seconds / voxels * 1e9 for name, seconds in spent.items()}


def _check(volume_path: Path, out: Path, voxels: int, planes: int) -> None:
    """Check the number of labelled voxels, and the labels of some planes."""
    volume, labels = open_volume(volume_path), open_labels(out)
    _, height, width = volume.shape
    assert voxels == planes * height * width
    for z in (0, planes // 2, planes - 1):
        box = (slice(z, z + 1), slice(0, height), slice(0, width))
        np.testing.assert_array_equal(labels.read(box), 1 + (volume.read(box) == BRIGHT))


def measure_apart(*case: Any) -> dict[str, Any]:
    """Run :func:`measure` with the same arguments in a process of its own."""
    plain = [argument.model_dump() if isinstance(argument, TileSpec) else argument for argument in case]
    command = [sys.executable, "-m", "benchmarks.runs.scale_run", json.dumps(plain, default=str)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def copy(
    source: Path, target: Path, tiles: TileSpec, workers: int, share: tuple[float, float]
) -> dict[str, float]:
    """Copy a part of a volume with Zarr alone, shard by shard.

    Parameters
    ----------
    source, target
        Of the copy; it has the shards and chunks that labels have.
    tiles
        They decide the shards.
    workers
        Processes; 1 is this process.
    share
        The part, in shares of all shards.

    Returns
    -------
    dict
        Voxels; seconds, without the start of the processes; CPU seconds.
    """
    array = zarr.open_array(source, mode="r")
    parts = _blocks(array, tiles)
    shards, chunks = shard_and_chunk(array.shape, parts[0].shape)
    if not target.exists():
        zarr.create_array(target, shape=array.shape, shards=shards, chunks=chunks, dtype=array.dtype)
    first, last = (round(edge * len(parts)) for edge in share)
    edges = [first + (last - first) * i // workers for i in range(workers + 1)]
    with ExitStack() as stack:
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context))
            list(pool.map(time.sleep, [0.5] * workers))  # until all have started
        began = time.perf_counter()
        todo = ([source] * workers, [target] * workers, [tiles] * workers, edges, edges[1:])
        cpu = sum(pool.map(_copy, *todo) if workers > 1 else map(_copy, *todo))
        seconds = time.perf_counter() - began
    voxels = sum(int(np.prod(part.shape)) for part in parts[first:last])
    return {"voxels": voxels, "seconds": seconds, "cpu": cpu}


def _copy(source: Path, target: Path, tiles: TileSpec, first: int, last: int) -> float:
    """Copy some shards and return the CPU seconds it took."""
    began = time.process_time()
    here, there = zarr.open_array(source, mode="r"), zarr.open_array(target, mode="r+")
    for part in _blocks(here, tiles)[first:last]:
        there[part.core] = here[part.core]
    return time.process_time() - began


def _blocks(array: zarr.Array[Any], tiles: TileSpec) -> tuple[Block, ...]:
    z, y, x = array.shape
    return blocks((z, y, x), tiles)


def main(text: str) -> None:
    """Do one run, given as JSON, and print its cost."""
    volume, out, tiles, *others = json.loads(text)
    print(json.dumps(measure(Path(volume), Path(out), TileSpec(**tiles), *others)))


if __name__ == "__main__":
    # By its name: workers import its classes from there, and their __main__ is another module.
    from benchmarks.runs import scale_run

    scale_run.main(sys.argv[1])
