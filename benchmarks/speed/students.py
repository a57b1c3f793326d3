"""Measure what students cost: ``python -m benchmarks.speed.students``.

The network alone, one thread: teacher and students in turn in one process, CPU time per labelled voxel, each
with the context that it computes beside the voxels. The whole pipeline: reading, normalisation, prediction
and writing of a stored volume with worker processes, CPU time of all processes per voxel, and a plain copy
of the same volume by as many processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.results import load, save
from benchmarks.runs.scale_run import STEADY
from benchmarks.runs.scale_run import copy as plain_copy
from benchmarks.runs.scale_watch import Watch
from hrvol.backend import choose_backend
from hrvol.classes import default_classes
from hrvol.features.featuriser import load_featuriser
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.run.classify import classify
from hrvol.run.segment import segment_volume
from hrvol.run.students.predict_student import run_lattice
from hrvol.segment.model.model import Model, save_model
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.shapes import flop_per_voxel
from hrvol.segment.student.spec import NAMES, student_spec
from hrvol.segment.student.student import StudentClassifier, channel_names
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import blocks, tiles_of

OUTPUT = Path(__file__).parent / "students.md"

CLASSES = 4

SEEN = ("planes", "mixed", "volume")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    figures = args.output.with_suffix(".json")
    found = load(figures) if args.add else {}
    if "network" in args.parts:
        found["network"] = measure_networks(args)
        save(figures, found)
    if "pipeline" in args.parts:
        found["pipeline"] = measure_pipeline(args)
        save(figures, found)
    found["machine"] = describe_machine(1)
    save(figures, found)
    args.output.write_text(render(found), encoding="utf-8")
    return 0


def student_of(size: str, sees: str, source: str = "model") -> Model:
    """Return a student with random weights: its cost does not depend on them."""
    torch.manual_seed(0)
    spec = student_spec(size, sees)  # type: ignore[arg-type]
    arrays = network_arrays(folded(StudentNetwork(spec, CLASSES)))
    values = tuple(range(1, CLASSES + 1))
    return Model(
        Recipe(),
        default_classes(values, [f"class {value}" for value in values]),
        (0.0, 255.0),
        StudentClassifier(spec, values, arrays),
        None,
        channel_names(spec),
        source=source,
    )


def measure_networks(args: argparse.Namespace) -> dict[str, Any]:
    """Return microseconds of CPU per labelled voxel, teacher and students in turn."""
    side = args.side
    rng = np.random.default_rng(0)
    work: dict[str, tuple[Callable[[], Any], int]] = {}
    phantom = make_phantom((3, 518, 518), 0)
    strokes = draw_strokes(phantom.labels, [1], seed=0)
    recipe = Recipe.load(args.preset)
    teacher = train_model([(phantom.image, strokes)], recipe=recipe, device="cpu")
    featuriser = load_featuriser(recipe.features, device="cpu")
    big = (1, side, side)
    tile = tiles_of(blocks(big, recipe.tiles)[0], big[1:], recipe.tiles)[0]
    image = rng.random(tile.window_shape, np.float32)
    inside = tile.core_in_window
    area = (inside[0].stop - inside[0].start) * (inside[1].stop - inside[1].start)
    work[f"teacher ({args.preset})"] = (lambda: classify(image, inside, teacher, featuriser), area)
    for sees in SEEN:
        for size in NAMES if sees == "planes" else NAMES[:2]:
            model = student_of(size, sees)
            student: Any = model.classifier
            shape = (256 if sees != "planes" else 64, side, side)
            lattice = run_lattice(shape, student, "cpu")
            window = rng.random(
                [c + 2 * h for c, h in zip(lattice.cell, lattice.halo, strict=True)], np.float32
            )
            voxels = int(np.prod([min(c, n) for c, n in zip(lattice.cell, shape, strict=True)]))
            for backend in dict.fromkeys(("torch", choose_backend("auto", "cpu").name)):
                runner = StudentRunner(student, backend=backend)
                name = f"{size}, {sees}, {backend}"
                work[name] = (lambda r=runner, w=window: r.scores(w), voxels)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(args.repeats + 1):
        for name, (function, _) in work.items():
            began = time.process_time()
            function()
            if turn:  # the first is to warm up
                seconds[name].append(time.process_time() - began)
    found: dict[str, Any] = {"side": side, "repeats": args.repeats, "rows": {}}
    for name, (_, voxels) in work.items():
        found["rows"][name] = [round(1e6 * value / voxels, 4) for value in seconds[name]]
        log(f"{name}: {np.median(found['rows'][name]):.3f} us a voxel")
    found["kflop"] = {
        f"{size}, {sees}": round(flop_per_voxel(student_spec(size, sees), CLASSES) / 1e3, 1)  # type: ignore[arg-type]
        for sees in SEEN
        for size in NAMES
    }
    return found


def measure_pipeline(args: argparse.Namespace) -> dict[str, Any]:
    """Return CPU time and throughput of whole runs, and of a plain copy."""
    shape = (args.planes, args.side, args.side)
    found: dict[str, Any] = {"shape": list(shape), "workers": args.workers, "runs": {}}
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        volume = _volume(folder / "volume.zarr", shape)
        for name in args.students:
            size, _, sees = name.partition("-")
            model = folder / f"{name}.hrvol"
            save_model(student_of(size, sees or "planes"), model)
            out = folder / "out.ome.zarr"
            with Watch() as watch:
                report = segment_volume(
                    volume, out, model, engine="local", workers=args.workers, progress=watch, overwrite=True
                )
            voxels = report.voxels
            cpu = sum(watch.cost(what, STEADY, voxels) for what in ("workers_cpu", "driver_cpu"))
            found["runs"][name] = {
                "seconds": round(report.seconds, 2),
                "cpu_us": round(1e6 * cpu / voxels, 4),
                "voxels_per_s": round(voxels / watch.cost("seconds", STEADY, voxels)),
                "worker_peak": report.peak,
                "seams": report.seams.pixels,
                "failed": len(report.failed),
            }
            log(f"{name}: {found['runs'][name]}")
            shutil.rmtree(out)
        tiles = TileSpec(core=448, overlap=0)
        copied = plain_copy(volume, folder / "copy.zarr", tiles, args.workers, (0.0, 1.0))
        found["copy_voxels_per_s"] = round(copied["voxels"] / copied["seconds"])
        log(f"copy: {found['copy_voxels_per_s'] / 1e6:.1f} M voxels/s")
    return found


def _volume(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write a volume of a repeated electrode, in chunks of 64 x 64 x 64."""
    array = zarr.create_array(str(path), shape=shape, chunks=(64, 64, 64), dtype="uint8")
    tile = (make_phantom((64, 512, 512), 0).image >> 8).astype(np.uint8)
    for z in range(0, shape[0], 64):
        planes = tile[: min(64, shape[0] - z)]
        across = np.tile(planes, (1, -(-shape[1] // 512), -(-shape[2] // 512)))
        array[z : z + 64] = across[:, : shape[1], : shape[2]]
    return path


def render(found: dict[str, Any]) -> str:
    """Return the page of results."""
    lines = ["# Cost of students", "", "Made by", "", "```"]
    if "network" in found:
        lines.append("python -m benchmarks.speed.students --parts network")
    if "pipeline" in found:
        students = " ".join(found["pipeline"]["runs"])
        lines.append(f"python -m benchmarks.speed.students --parts pipeline --add --students {students}")
    lines += ["```", ""]
    lines += [f"Machine: {found['machine']}", "", " ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    if "network" in found:
        rows = found["network"]["rows"]
        teacher = float(np.median(next(iter(rows.values()))))
        body = [
            [
                name,
                str(found["network"]["kflop"].get(name.rpartition(", ")[0], "")),
                f"{np.median(values):.3f}",
                f"{min(values):.3f} to {max(values):.3f}",
                f"{teacher / float(np.median(values)):.0f}",
            ]
            for name, values in rows.items()
        ]
        head = ["model", "kFLOP a voxel", "us a voxel, median", "range", "times less than the teacher"]
        lines += ["## One thread", "", table(head, body), ""]
    if "pipeline" in found:
        pipeline = found["pipeline"]
        copied = pipeline["copy_voxels_per_s"]
        body = [
            [
                name,
                f"{run['cpu_us']:.3f}",
                f"{run['voxels_per_s'] / 1e6:.1f}",
                f"{run['voxels_per_s'] / copied:.2f}",
                str(run["seams"]),
            ]
            for name, run in pipeline["runs"].items()
        ]
        head = ["student", "us of CPU a voxel", "M voxels/s", "share of a plain copy", "seam pixels"]
        shape = " x ".join(map(str, pipeline["shape"]))
        lines += [f"## Whole runs: {shape} voxels, {pipeline['workers']} workers", "", table(head, body), ""]
        lines += [
            f"Plain copy: {copied / 1e6:.1f} M voxels/s. Rates while all workers are busy.",
            "",
        ]
        small = next(iter(pipeline["runs"].values()))["cpu_us"]
        hours = [f"{1e12 * small / 1e6 / 3600 / cores:.1f} h on {cores} cores" for cores in (16, 64)]
        lines += [
            f"Forecast of 10^12 voxels with the first student, from its CPU time: {', '.join(hours)}.",
            "",
        ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.students", description=__doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=("network", "pipeline"), default=["network", "pipeline"])
    add("--preset", default="balanced")
    add("--side", type=int, default=2048, help="of planes")
    add("--planes", type=int, default=1024, help="of the stored volume")
    add("--students", nargs="+", default=["small", "medium", "small-volume"], metavar="SIZE[-SEES]")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)))
    add("--repeats", type=int, default=3)
    add("--folder", type=Path, help="for the stored volume, 4 GB by default")
    add("--add", action="store_true", help="keep the figures of other parts")
    add("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
