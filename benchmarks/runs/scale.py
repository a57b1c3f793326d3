"""Measure the overhead of runs over growing volumes: ``python -m benchmarks.runs.scale``.

The package's engine, ledger, tiling, blending and sharded writes label volumes with next to no features
(:mod:`benchmarks.runs.scale_run`), beside a plain copy of the same store and one real block.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.markdown import table
from benchmarks.runs.scale_run import SHARES, copy, measure, measure_apart, phases, write_volume
from hrvol.arrays import Shape3
from hrvol.engine.spec import IN_FLIGHT
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.run.ledger import entries
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.storage.location import Location

Figures = Mapping[str, Any]

_table = partial(table, spaced=True)

PRESET = "fast"
AIM_RATIO = 0.5
AIM_OVERHEAD = 0.05
AIM_WORKER = 2 * 2**30
MIB = 2**20


@dataclass(frozen=True)
class Sizes:
    """Volumes to measure, and how they are cut.

    Attributes
    ----------
    volume
        Voxels (z, y, x) of the large volume.
    tiles
        Tiles of it.
    blended
        Planes of it to label once more, in blocks of 2 x 2 tiles; 0: none.
    few, many
        Shapes of volumes of small blocks, the second ten times the first.
    small
        Tiles of those.
    real
        Planes of a real block to measure; 0: none.
    apart
        Blocks to process step by step in one process.
    workers
        Worker processes of runs and copies; each run has its own driver. 1: all in this process.
    """

    volume: Shape3
    tiles: TileSpec
    blended: int
    few: Shape3
    many: Shape3
    small: TileSpec
    real: int
    apart: int
    workers: int


FULL = Sizes(
    volume=(2560, 2560, 2560),
    tiles=TileSpec(),
    blended=640,
    few=(16, 1536, 1536),
    many=(160, 1536, 1536),
    small=TileSpec(core=64, overlap=8, planes=4),
    real=2,
    apart=36,
    workers=2,
)
QUICK = Sizes(
    volume=(64, 192, 192),
    tiles=TileSpec(core=64, overlap=16, planes=16),
    blended=32,
    few=(4, 256, 256),
    many=(40, 256, 256),
    small=TileSpec(core=64, overlap=8, planes=2),
    real=0,
    apart=4,
    workers=1,
)


def real_block(planes: int, workers: int, folder: Path) -> float:
    """Return the seconds of a worker for a whole block with real features, all workers being busy.

    Parameters
    ----------
    planes
        Planes to measure; all take as long.
    workers
        Of the local engine.
    folder
        Folder for a model and labels.
    """
    recipe = Recipe.load(PRESET)
    side = 2 * recipe.tiles.core
    phantom = make_phantom((planes, side, side))
    model = train_model([(phantom.image, draw_strokes(phantom.labels, (0,)))], recipe=recipe)
    out = folder / "real.ome.zarr"
    report = segment_volume(phantom.image, out, model, engine="local", workers=workers)
    assert not report.failed, report.failed
    seconds = [float(entry["seconds"]) for entry in entries(Location.of(out)) if "seconds" in entry]
    return sum(seconds) / len(seconds) / planes * recipe.tiles.planes


def measure_all(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Measure everything below a folder."""
    began, load, workers = time.monotonic(), [os.getloadavg()[0]], sizes.workers
    run = measure_apart if workers > 1 else measure
    figures: dict[str, Any] = {}
    if sizes.real:
        figures["real"] = report("real block", real_block(sizes.real, sizes.workers, folder))
    for name, shape in (("few", sizes.few), ("many", sizes.many)):
        write_volume(folder / name, shape)
        figures[name] = report(name, run(folder / name, folder / f"{name}.ome.zarr", sizes.small, workers))
        load.append(os.getloadavg()[0])
    volume = folder / "large"
    write_volume(volume, sizes.volume)
    figures["steps"] = report("steps", phases(volume, folder / "steps.ome.zarr", sizes.tiles, sizes.apart))
    # Half before the run and half after, as the load of a shared machine changes.
    halves = [report("copy", copy(volume, folder / "copy", sizes.tiles, workers, (0.0, 0.5)))]
    figures["large"] = report("large", run(volume, folder / "large.ome.zarr", sizes.tiles, workers))
    load.append(os.getloadavg()[0])
    halves.append(report("copy", copy(volume, folder / "copy", sizes.tiles, workers, (0.5, 1.0))))
    figures["copy"] = {name: sum(half[name] for half in halves) for name in halves[0]}
    if sizes.blended:
        tiles = sizes.tiles.model_copy(update={"across": 2})
        out = folder / "blended.ome.zarr"
        figures["blended"] = report("blended", run(volume, out, tiles, workers, sizes.blended))
    return figures | {"load": [*load, os.getloadavg()[0]], "minutes": (time.monotonic() - began) / 60}


def report(name: str, value: Any) -> Any:
    """Print a figure and return it."""
    print(f"{name}: {value}", flush=True)
    return value


def render(figures: Figures, sizes: Sizes, machine: str, command: str) -> str:
    """Return the page."""
    large, plain = figures["large"], figures["copy"]
    copied = plain["voxels"] / plain["seconds"]
    ratio = large["voxels"] / large["steady"] / copied
    under_way = sizes.workers * IN_FLIGHT
    engine = f"`local` with {sizes.workers} workers" if sizes.workers > 1 else "`serial`"
    minutes = figures["minutes"]
    load = f"{min(figures['load']):.1f} to {max(figures['load']):.1f}"
    parts = [
        f"""# Scale

Made by `{command}` in {minutes:.0f} minutes, on a machine that did other work as well (load average
{load}): figures of one table were measured side by side; others may differ by as much as the load.

{machine}
Workers' allocator: {large["allocator"] or "as the system has it"}.

Everything here is the package's own (engine {engine}, ledger, tiles, blending, sharded
and durable writes, coarser levels) but for the features, which are the grey value, and the classifier, which
is a threshold. So the rest is the overhead of the machinery. Labels are compared with the expected ones.
The volumes are Zarr, in chunks of 64 x 64 x 64, two grey values in blobs; their chunks are hard links to 16
files, so that they take no room; each is opened, read and decoded like any other, but comes from the
system's memory.

## Throughput

{_throughput(figures, sizes)}
The copy is Zarr alone: as many processes read each block of the same volume and write it to an array of
the same shards, chunks and codec; half of it was done before the run and half after. Two grey values are
compressed as well as two labels are, so both write as many bytes. A run's rate is that from 5 % to 95 % of
the way; what comes before it is the start of the workers, {large["first"]:.0f} s to the first block.
**The run is {ratio:.2f} times as fast as the copy** (aim: {AIM_RATIO}).

{_steps(figures)}

## Memory

{_memory(figures, sizes)}
Driver and scheduler are one process. A worker's size includes the libraries it loads, some 700 MiB with
torch, but no network. Aim: flat for the driver, less than {AIM_WORKER // MIB} MiB for a worker.

## Cost of a block

{_blocks(figures, sizes)}
Milliseconds per block, at 5-15 %, 45-55 % and 85-95 % of the way. {under_way} blocks are under way
at a time: from when it is dealt to when it is written down a block takes {under_way} times that.
`driver` is CPU time of driver and scheduler, which run beside the workers. The blocks of the last two rows
are alike, and next to nothing is computed in them: what they cost is bookkeeping. {_growth(figures)}
"""
    ]
    if "real" in figures:
        parts.append(_overhead(figures, sizes))
    parts.append(_levels(figures, sizes))
    return "\n".join(parts)


def _throughput(figures: Figures, sizes: Sizes) -> str:
    plain = figures["copy"]
    rows = [("plain copy", plain["voxels"], plain["seconds"], plain["cpu"])]
    for name, what in (("large", "run"), ("blended", "run, blocks of 2 x 2 blended tiles")):
        if name in figures:
            run = figures[name]
            rows.append((what, run["voxels"], run["steady"], run["workers_cpu"]))
    rate = plain["voxels"] / plain["seconds"]
    lines = [
        [
            what,
            f"{voxels / 1e9:.2f}",
            f"{voxels / seconds / 1e6:.1f}",
            f"{voxels / seconds / rate:.2f}",
            f"{cpu / voxels * 1e9:.1f}",
        ]
        for what, voxels, seconds, cpu in rows
    ]
    return _table(("", "Gvoxel", "Mvoxel/s", "of the copy", "CPU of its processes, ns/voxel"), lines)


def _steps(figures: Figures) -> str:
    steps, plain = figures["steps"], figures["copy"]
    total = sum(steps.values())
    cells = [f"{value:.1f}" for value in (*steps.values(), total)]
    cpu = plain["cpu"] / plain["voxels"] * 1e9
    return f"""Where the time goes: CPU ns per voxel of blocks that are done step by step in one process,
without the engine.

{_table((*steps, "all"), [cells])}
`read` and `write` are what the copy does too ({cpu:.1f} ns): Zarr, its codec, and for `read` the cache of
chunks. `predict` is grey values to [0, 1], the stand-ins, blending, and the likeliest class."""


def _memory(figures: Figures, sizes: Sizes) -> str:
    lines = []
    for name, what in _runs(figures, sizes):
        run = figures[name]
        sizes_mib = [f"{value / MIB:.0f}" for value in (*run["driver"], *run["worker"], run["worker_peak"])]
        lines.append([what, f"{run['blocks']:,}", *sizes_mib])
    heads = [f"{who}, {share:.0%}" for who in ("driver", "worker") for share in SHARES]
    return _table(("MiB", "blocks", *heads, "worker, peak"), lines)


def _blocks(figures: Figures, sizes: Sizes) -> str:
    lines = []
    for name, what in _runs(figures, sizes):
        run = figures[name]
        each = 1000 / run["blocks"]
        wall = " / ".join(f"{seconds * each:.1f}" for seconds in run["pace"])
        cpu = " / ".join(f"{seconds * each:.1f}" for seconds in run["driver_cpu"])
        lines.append(
            [
                what,
                f"{run['blocks']:,}",
                f"{run['voxels'] / run['blocks']:,.0f}",
                wall,
                cpu,
                f"{run['summing'] * each:.2f}",
                f"{run['ledger'] / run['blocks']:.0f}",
            ]
        )
    heads = ("", "blocks", "voxels each", "wall", "driver", "summing up", "bytes of ledger each")
    return _table(heads, lines)


def _growth(figures: Figures) -> str:
    few, many = figures["few"], figures["many"]
    wall, cpu = (
        (many[name][1] / many["blocks"]) / (few[name][1] / few["blocks"]) for name in ("pace", "driver_cpu")
    )
    late = many["pace"][2] / many["pace"][0]
    grown = (many["driver"][2] - many["driver"][0]) / MIB
    return (
        f"With {many['blocks'] / few['blocks']:.0f} times the blocks, a block takes {wall:.2f} times the wall"
        f" time and {cpu:.2f} times the driver's; the last of {many['blocks']:,} blocks take {late:.2f} times"
        f" what the first take, and the driver grows by {grown:.0f} MiB from 10 % to 100 %."
    )


def _overhead(figures: Figures, sizes: Sizes) -> str:
    large, real, tiles = figures["large"], figures["real"], sizes.tiles
    wall = large["steady"] * sizes.workers / large["blocks"]
    over = wall - large["computing"]
    return f"""
## Beside a real block

A block of {tiles.planes} planes of {tiles.core} x {tiles.core} pixels takes a worker of the large run
{wall:.2f} s. It computes {large["computing"]:.2f} s of that; {over:.2f} s go to reading, writing, bookkeeping
and waiting. A real block takes {real:,.0f} s here with preset `{PRESET}`, all workers being busy
({sizes.real} planes measured, the others take as long).
**Overhead: {over / real:.2%} of a real block** (aim: less than {AIM_OVERHEAD:.0%}).
"""


def _levels(figures: Figures, sizes: Sizes) -> str:
    lines = []
    for name, what in _runs(figures, sizes):
        run = figures[name]
        peak = run["levels_peak"]
        lines.append(
            [
                what,
                f"{run['voxels'] / 1e9:.2f}",
                f"{run['levels']:.0f}",
                f"{run['voxels'] / run['levels'] / 1e6:.0f}",
                f"{peak['driver'] / MIB:.0f}",
                f"{peak['worker'] / MIB:.0f}",
            ]
        )
    heads = ("", "Gvoxel", "seconds", "Mvoxel/s", "driver's peak, MiB", "worker's peak, MiB")
    return f"""
## Coarser levels

After the last block: all coarser levels of the labels, and the end of the workers.

{_table(heads, lines)}
A part of a level is one shard, made of the eight times larger box of the level before: a worker makes
{IN_FLIGHT} at a time, whatever the size of the volume.
"""


def _runs(figures: Figures, sizes: Sizes) -> list[tuple[str, str]]:
    blended = sizes.tiles.model_copy(update={"across": 2})
    runs = {
        "large": _kind(sizes.volume, sizes.tiles),
        "blended": f"{_kind(sizes.volume, blended)}, 2 x 2 tiles",
        "few": _kind(sizes.few, sizes.small),
        "many": _kind(sizes.many, sizes.small),
    }
    return [(name, what) for name, what in runs.items() if name in figures]


def _kind(shape: Shape3, tiles: TileSpec) -> str:
    return " x ".join(map(str, BlockGrid(shape, tiles).side))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--quick", action="store_true", help="small volumes, no real block: a test")
    options.add_argument("--work", type=Path, help="folder for some GB; a temporary one by default")
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/scale.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options = parser().parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    command = "python -m benchmarks.runs.scale" + " --quick" * options.quick
    with tempfile.TemporaryDirectory(dir=options.work, prefix="hrvol-scale-") as folder:
        figures = measure_all(sizes, Path(folder))
    options.out.write_text(render(figures, sizes, describe_machine(sizes.workers), command), encoding="utf-8")


if __name__ == "__main__":
    main()
