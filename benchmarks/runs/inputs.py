"""Measure runs over volumes as beamlines write them, and conversions: ``python -m benchmarks.runs.inputs``.

A stand-in for a model (:mod:`benchmarks.runs.scale_run`) labels the same volume stored in several ways; then
one of them is converted to OME-Zarr, and killed at random moments while it is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.markdown import table
from benchmarks.runs.inputs_data import KINDS, make_input
from benchmarks.runs.scale_run import SHARES, StandIn, measure, measure_apart
from benchmarks.runs.scale_watch import Watch
from hrvol.engine.spec import EngineSpec
from hrvol.planning.estimate import estimate
from hrvol.planning.task import Task
from hrvol.recipe.specs import TileSpec
from hrvol.run.cache_choice import choose_cache
from hrvol.run.convert.convert_volume import convert_volume
from hrvol.run.job import SegmentJob
from hrvol.run.options import PredictOptions
from hrvol.run.prepare import PreparedRun
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import whole
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_volume

AIM_DECODED, AIM_RATIO = 1.1, 0.5

MIB = 2**20


def planned(
    path: Path, out: Path, tiles: TileSpec, workers: int, scratch: str | None, seconds: float
) -> dict[str, Any]:
    """Return what ``hrvol plan`` says of a run of the stand-in."""
    model, _ = StandIn(tiles).load()
    source: Any = StandIn(tiles)
    volume, spec = open_volume(path), EngineSpec("local", workers) if workers > 1 else EngineSpec()
    grid = BlockGrid(volume.shape, tiles, volume.chunks)
    numbers, region, location = grid.order(), whole(volume.shape), Location.of(out)
    cache = choose_cache(volume, grid, numbers, region, spec, scratch)
    job = SegmentJob(volume, LabelStore(location), source, PredictOptions(), region, tiles, cache=cache)
    content: Any = None
    prepared = PreparedRun(model, content, location, job, {})
    plan = estimate(Task(prepared, spec, grid, numbers, numbers, numbers[:0], False), seconds, 0.0)
    return {"worker": plan.worker_memory, "decodes": plan.decodes, "kept": plan.cache}


def measure_inputs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Label the volume in each of its forms."""
    tiles, figures = TileSpec(core=options.core, planes=options.planes), {}
    shape, workers = tuple(options.shape), options.workers
    run = measure_apart if workers > 1 else measure
    for kind in options.inputs:
        path = make_input(folder, kind, shape)
        ways = (None, str(folder)) if kind in options.scratched else (None,)
        for scratch in ways:
            name = kind if scratch is None else f"{kind}, scratch file"
            out = folder / "labels.ome.zarr"
            try:
                found = run(path, out, tiles, workers, 0, scratch)
                found["plan"] = planned(
                    path, folder / "plan.ome.zarr", tiles, workers, scratch, options.probe
                )
            finally:
                shutil.rmtree(out, ignore_errors=True)
            figures[name] = found
            print(f"{name}: {json.dumps(found)}", flush=True)
        if kind != options.convert:
            _remove(path)
    return figures


def measure_conversion(path: Path, out: Path, workers: int) -> dict[str, Any]:
    """Convert a volume, and record the memory of its processes over time."""
    with Watch("convert") as watch:
        report = convert_volume(
            path, out, engine="local" if workers > 1 else "serial", workers=workers, progress=watch
        )
    assert report.complete
    samples = [watch.at(share, report.voxels) for share in SHARES]
    return {
        "voxels": report.voxels,
        "seconds": report.seconds,
        "decoded": report.read_amplification,
        "worker": [look.worker for look in samples],
        "driver": [look.driver for look in samples],
        "levels_peak": watch.peaks,
        "stored": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
    }


def measure_kills(path: Path, folder: Path, kills: int, workers: int, seed: int = 0) -> dict[str, Any]:
    """Convert a volume with the command, kill all of its processes at random moments, resume, compare."""
    engine = ["--engine", "local", "--workers", str(workers)] if workers > 1 else ["--engine", "serial"]
    whole_out, out = folder / "whole/a.ome.zarr", folder / "killed/a.ome.zarr"
    command = [sys.executable, "-m", "hrvol", "convert", str(path)]
    began = time.monotonic()
    process = subprocess.Popen([*command, str(whole_out), *engine], stdout=subprocess.DEVNULL)
    while not (whole_out / "0").exists() and process.poll() is None:
        time.sleep(0.05)
    starting = time.monotonic() - began
    if process.wait():
        raise RuntimeError("the conversion failed")
    duration, moments, killed = time.monotonic() - began, random.Random(seed), []
    for _ in range(kills):
        process = subprocess.Popen([*command, str(out), *engine], start_new_session=True)
        # What was done is kept: each kill comes within the work that is left, about.
        wait = moments.uniform(0, starting + 1.5 * (duration - starting) / kills)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed.append(round(wait, 1))
        process.wait()
    subprocess.run([*command, str(out), *engine, "--verify"], check=True, stdout=subprocess.DEVNULL)
    expected, found = _tree(whole_out), _tree(out)
    different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return {"duration": duration, "killed": killed, "files": len(expected), "different": different}


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _remove(path: Path) -> None:
    for one in path.parent.glob(f"{path.stem}*"):
        shutil.rmtree(one) if one.is_dir() else one.unlink()


def render(figures: Mapping[str, Any], options: argparse.Namespace, load: Sequence[float]) -> str:
    """Return the page."""
    shape = " x ".join(map(str, options.shape))
    reference = next((run["steady"] for name, run in figures["runs"].items() if name == "zarr"), None)
    rows = []
    for name, run in figures["runs"].items():
        rate = run["voxels"] / run["steady"] / 1e6
        ratio = "" if reference is None else f"{reference / run['steady']:.2f}"
        plan = run["plan"]
        rows.append(
            [
                name,
                f"{run['amplification']:.2f}" if run["amplification"] else "nothing",
                f"{plan['decodes']:.2f}" if plan["decodes"] else "nothing",
                f"{rate:.1f}",
                ratio,
                f"{run['worker_peak'] / MIB:.0f}",
                f"{plan['worker'] / MIB:.0f}",
                *(f"{size / MIB:.0f}" for size in run["worker"]),
            ]
        )
    head = ["input", "times decoded", "planned", "Mvoxel/s", "of zarr", "peak of a worker, MiB", "planned"]
    head += [f"at {share:.0%}" for share in SHARES]
    parts = [
        f"""# Inputs as they are stored

Made by `{_command(options)}`, load average {min(load):.1f} to {max(load):.1f}.

{describe_machine(options.workers)}

A stand-in for a model labels {shape} voxels of 8 bits with {options.workers} workers: the package's engine,
reading, tiles, blending and sharded writes, with next to no features. Planes are hard links to a few files
(of the contiguous HDF5 file one in some planes is written, the others are holes); each is read and decoded
like any other. Labels are compared with the expected ones. Aims: decoded at most {AIM_DECODED} times,
throughput at least {AIM_RATIO} of that from OME-Zarr.

{table(head, rows, spaced=True)}"""
    ]
    if found := figures.get("conversion"):
        rows = [
            ["voxels", f"{found['voxels'] / 1e9:.2f} G"],
            ["Mvoxel/s", f"{found['voxels'] / found['seconds'] / 1e6:.1f}"],
            ["times decoded", f"{found['decoded']:.2f}"],
            *(
                [f"worker, driver at {share:.0%}, MiB", f"{worker / MIB:.0f}, {driver / MIB:.0f}"]
                for share, worker, driver in zip(SHARES, found["worker"], found["driver"], strict=True)
            ),
            ["peaks while levels are built, MiB", f"{found['levels_peak']['worker'] / MIB:.0f}"],
        ]
        parts.append(f"## Conversion of {options.convert}\n\n{table(['', ''], rows, spaced=True)}")
    if found := figures.get("kills"):
        moments = ", ".join(f"{moment:g}" for moment in found["killed"])
        parts.append(
            f"## Killed conversions\n\nA conversion of {found['duration']:.0f} s was killed (SIGKILL to all"
            f" processes) after {moments} s, resumed each time by the same command, and verified:"
            f" {found['files']} files, {len(found['different'])} differ from those of an uninterrupted one."
        )
    return "\n\n".join(parts) + "\n"


def _command(options: argparse.Namespace) -> str:
    given, default = vars(options), vars(parser().parse_args([]))
    words = ["python -m benchmarks.runs.inputs"]
    for name, value in given.items():
        if value != default[name] and name not in ("out", "folder"):
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(words)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--shape", type=int, nargs=3, default=[2000, 4096, 4096], metavar=("Z", "Y", "X"))
    options.add_argument("--inputs", nargs="+", choices=KINDS, default=list(KINDS[:5]))
    options.add_argument("--scratched", nargs="*", choices=KINDS, default=[], help="run with --scratch, too")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--core", type=int, default=448, help="pixels of a tile")
    options.add_argument("--planes", type=int, default=64, help="of a block")
    options.add_argument("--probe", type=float, default=10.0, help="seconds of each plan")
    options.add_argument("--convert", choices=KINDS, help="input to convert; it is among the inputs")
    options.add_argument("--kills", type=int, default=0, help="of conversions of --killed-shape")
    options.add_argument(
        "--killed-shape", type=int, nargs=3, default=[300, 2048, 2048], metavar=("Z", "Y", "X")
    )
    options.add_argument("--folder", type=Path, help="for all files [a temporary one]")
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/inputs.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options, figures = parser().parse_args(arguments), {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="inputs-") as name:
        folder = Path(name)
        figures["runs"] = measure_inputs(options, folder)
        load.append(os.getloadavg()[0])
        if options.convert:
            source = next(folder.glob(f"{options.convert}*"))
            suffixed = folder / f"{options.convert}.h5"
            source = suffixed if suffixed.exists() else folder / options.convert
            figures["conversion"] = measure_conversion(source, folder / "c.ome.zarr", options.workers)
            print(figures["conversion"], flush=True)
            shutil.rmtree(folder / "c.ome.zarr")
        if options.kills:
            z, y, x = options.killed_shape
            small = folder / "small"
            small.mkdir()
            path = make_input(small, "tiff-zlib", (z, y, x))
            figures["kills"] = measure_kills(path, small, options.kills, options.workers)
            print(figures["kills"], flush=True)
    load.append(os.getloadavg()[0])
    options.out.write_text(render(figures, options, load), encoding="utf-8")


if __name__ == "__main__":
    main()
