"""Measure read amplification of runs: ``python -m benchmarks.runs.amplification``.

Read amplification is bytes of decoded chunks / bytes of the volume. A synthetic volume is written to a
temporary folder in several chunkings; the windows of all its blocks are then read as the workers of a run
do, each with a contiguous part of the order and a cache of its own.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.markdown import line, table
from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec
from hrvol.volume.chunk_cache import CAPACITY, ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid, morton_order

WORKERS = (1, 2)
AIM = 1.5


def chunkings(shape: Shape3) -> tuple[Shape3, ...]:
    """Return the chunk shapes to compare: cubes, and whole planes as stacks of images are stored."""
    return (64, 64, 64), (128, 128, 128), (1, shape[1], shape[2])


def orders(counts: Shape3) -> dict[str, np.ndarray]:
    """Return the orders of blocks to compare."""
    return {
        "z, y, x": np.arange(math.prod(counts)),
        "Morton": morton_order(counts),
        "Morton, layer by layer": morton_order(counts, layers=True),
    }


def write_volume(folder: Path, shape: Shape3, chunks: Shape3, dtype: str) -> zarr.Array[Any]:
    """Write a volume without compression, which saves time and does not change the counts."""
    array = zarr.create_array(folder, shape=shape, chunks=chunks, dtype=dtype, compressors=None)
    y, x = np.ogrid[: shape[1], : shape[2]]
    texture = ((x ^ y) % 128).astype(dtype)
    for z in range(0, shape[0], chunks[0]):
        depth = min(chunks[0], shape[0] - z)
        array[z : z + depth] = np.broadcast_to(texture, (depth, *texture.shape))
    return array


def amplification(
    array: zarr.Array[Any], grid: BlockGrid, order: np.ndarray, workers: int, capacity: int
) -> float:
    """Read the windows of all blocks and return decoded bytes / bytes of the volume."""
    spans = grid.read_spans()
    z, y, x = array.chunks
    uses = chunk_uses(grid, (z, y, x))
    decoded = 0
    for part in np.array_split(order, workers):
        cache = ChunkCache(capacity)
        for flat in part:
            index = grid[flat].index
            window = tuple(slice(*rows[i]) for rows, i in zip(spans, index, strict=True))
            cache.read(array, window, uses)
        decoded += cache.decoded_bytes
    return decoded / (math.prod(array.shape) * array.dtype.itemsize)


def without_cache(grid: BlockGrid, chunks: Shape3) -> float:
    """Return the amplification without a cache, from geometry alone."""
    uses = chunk_uses(grid, chunks)
    read = 1
    for counts, length, side in zip(uses.rows, grid.shape, chunks, strict=True):
        read *= sum(count * min(side, length - i * side) for i, count in enumerate(counts))
    return read / math.prod(grid.shape)


def measure(shape: Shape3, dtype: str, capacity: int) -> list[list[str]]:
    """Return the rows of a table; print each as it comes."""
    rows = []
    for chunks in chunkings(shape):
        grid = BlockGrid(shape, TileSpec(), chunks)
        with tempfile.TemporaryDirectory() as folder:
            array = write_volume(Path(folder) / "volume.zarr", shape, chunks, dtype)
            for name, order in orders(grid.counts).items():
                taken = np.array_equal(order, grid.order())
                values = [amplification(array, grid, order, workers, capacity) for workers in WORKERS]
                figures = [f"**{value:.2f}**" if taken else f"{value:.2f}" for value in values]
                size = " x ".join(map(str, chunks))
                rows.append([size, name, f"{without_cache(grid, chunks):.2f}", *figures])
                print(line(rows[-1]), flush=True)
    return rows


def render(rows: Sequence[Sequence[str]], options: argparse.Namespace) -> str:
    """Return the page."""
    shape = " x ".join(map(str, options.shape))
    tiles, head = TileSpec(), ["chunks", "order of blocks", "no cache", "1 worker", "2 workers"]
    return f"""# Read amplification

Made by `{command(options)}`. The figures do not depend on the machine.

Bytes of decoded chunks / bytes of the volume, when the windows of all blocks are read once. The volume is
{shape} {options.dtype}, blocks are {tiles.planes} planes of {tiles.core} x {tiles.core} pixels, read with
{tiles.overlap} px of context. A worker keeps up to {options.capacity} MiB of decoded chunks; two workers
share nothing, and each takes one half of the order. Bold: the order that a run takes for such chunks.
The aim is less than {AIM}.

{table(head, rows, spaced=True)}"""


def command(options: argparse.Namespace) -> str:
    """Return the command that reproduces these figures."""
    words = ["python -m benchmarks.runs.amplification"]
    default = parser().parse_args([])
    words += [f"--shape {' '.join(map(str, options.shape))}"] * (options.shape != default.shape)
    words += [f"--dtype {options.dtype}"] * (options.dtype != default.dtype)
    words += [f"--capacity {options.capacity}"] * (options.capacity != default.capacity)
    return " ".join(words)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.amplification",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--shape", type=int, nargs=3, default=[256, 2240, 2240], metavar=("Z", "Y", "X"))
    options.add_argument("--dtype", default="uint8")
    options.add_argument("--capacity", type=int, default=CAPACITY // 2**20, help="of a worker's cache, MiB")
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/amplification.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options = parser().parse_args(arguments)
    z, y, x = options.shape
    rows = measure((z, y, x), options.dtype, options.capacity * 2**20)
    options.out.write_text(render(rows, options), encoding="utf-8")


if __name__ == "__main__":
    main()
