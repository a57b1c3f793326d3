"""Compare students with their teachers: ``python -m benchmarks.quality.students``.

On each data set and drawing a teacher is trained on strokes, students are distilled from it, and all are
compared with the truth of planes without strokes. As in a volume that is all there, the tiles that students
learn from are taken from all planes, the compared ones too; no truth is used but for the strokes.

Labels of teachers are kept in a folder (``--cache``), so that the benchmark can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

from benchmarks.data import DENSE, FURTHER, Dense, load_dense
from benchmarks.quality.strokes import draw
from benchmarks.quality.students_page import render
from benchmarks.quality.teachers import Recorded, Teachers, is_cubic
from benchmarks.results import load, save
from hrvol.distil.cache import DistilCache
from hrvol.distil.choose import Candidates, candidates
from hrvol.distil.dimensions import apparent_spacing, dimensions_of
from hrvol.distil.options import RARITY, STEPS, DistilOptions
from hrvol.distil.sample import TeacherSample, label_sample
from hrvol.distil.teach import teach
from hrvol.engine.stop import Stop
from hrvol.quality.metrics import Confusion, iou_per_class, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.run.students.predict_student import run_lattice
from hrvol.segment.model.model import Model, load_model, save_model
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import Dimensions
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.intensity import to_unit

ALL = (*DENSE, *FURTHER)

OUTPUT = Path(__file__).parent / "students.md"

WAYS: dict[str, tuple[Dimensions, tuple[int, ...]]] = {
    "planes": ("planes", (0,)),
    "mixed": ("mixed", (0,)),
    "volume": ("volume", (0, 1, 2)),
}
"""What a student sees, and the axes of the planes that its teacher labels."""

Labels = dict[int, NDArray[np.float32]]
"""Probabilities ``(K, Y, X)`` by plane."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    figures = args.output.with_suffix(".json")
    found = load(figures)
    for name in args.datasets:
        data = load_dense(name)
        ways = [way for way in args.ways if way == "auto" or is_cubic(data)]
        wanted = {
            (seed, way): sizes
            for seed in args.only or args.seeds
            for way in ways
            if (
                sizes := [
                    s for s in args.sizes if s not in found.get(_key(name, seed, way), {}).get("miou", {})
                ]
            )
        }
        if not wanted:
            continue
        strokes = {seed: draw(data, seed) for seed in args.seeds}
        teachers = Teachers.train(data, strokes, Recipe.load(args.preset), args.cache)
        teachers.label(_log)
        for (seed, way), sizes in wanted.items():
            began = time.process_time()
            row = found.get(_key(name, seed, way)) or {"dataset": name, "seed": seed, "way": way}
            measure(row, teachers, sizes, args)
            row["cpu_seconds"] = row.get("cpu_seconds", 0) + round(time.process_time() - began)
            found[_key(name, seed, way)] = row
            save(figures, found)
            _log(f"{name}, drawing {seed}, {way}: {json.dumps(row['miou'])}")
    args.output.write_text(render(found, __doc__.split("\n\n")[1], args.threads), encoding="utf-8")
    return 0


def measure(row: dict[str, Any], teachers: Teachers, sizes: Sequence[str], args: argparse.Namespace) -> None:
    """Distil students from one teacher, compare all with the truth, and add the figures to a row.

    Parameters
    ----------
    row
        ``seed`` is the drawing; ``way`` is ``auto`` (what the student sees is measured) or what it sees:
        ``planes``, ``mixed`` or ``volume``.
    teachers
        Of the data set.
    sizes
        Of the students.
    args
        Options of the command.
    """
    data, volume, seed = teachers.data, teachers.volume, row["seed"]
    teacher = teachers.models[seed]
    spacing = apparent_spacing(volume, 0)
    sees, axes = WAYS.get(row["way"]) or dimensions_of("auto", spacing, volume.shape)
    found = _labelled_candidates(teachers, axes)
    recorded: Any = Recorded(teachers, seed)
    recorded.job = SimpleNamespace(volume=volume)
    distilling = DistilOptions(tiles=args.tiles, seed=0, steps=args.steps, rarity=args.rarity, accept=True)
    tiles, weights = label_sample(found, recorded, distilling)
    sample = TeacherSample(volume, teacher, tiles, weights, volume.identity(), "", sees, spacing)
    planes = [z for z in data.test if teachers.has(0, z)]
    by_teacher = {z: teachers.probabilities(seed, 0, z).astype(np.float32) for z in planes}
    row |= {"preset": args.preset, "sees": sees, "spacing": round(min(spacing, 99.0), 2), "tiles": len(tiles)}
    row["planes"] = len(planes)
    for part in ("miou", "iou", "check", "changes", "surface"):
        row.setdefault(part, {})
    if "teacher" not in row["miou"]:
        _score(row, "teacher", by_teacher, data)
        row["changes"]["truth"] = changes(data.truth[planes]) if is_cubic(data) else None
    for size in sizes:
        kept = teachers.folder / f"{row['way']}-{seed}-{size}-{args.tiles}-{args.steps}-{args.rarity:g}.hrvol"
        if not kept.is_file():
            cache = DistilCache.of({"benchmark": data.name, "seed": seed, "preset": args.preset})
            report = teach(sample, replace(distilling, size=size), cache, Stop(), None, "cpu")
            save_model(report.student, kept)
        student = load_model(kept)
        row["check"][size] = _check(student)
        by_student = _predict(teachers, student, planes)
        _score(row, size, by_student, data)
        both = {z: np.asarray((by_teacher[z] + by_student[z]) / 2, np.float32) for z in planes}
        _score(row, f"teacher and {size}", both, data)


def _labelled_candidates(teachers: Teachers, axes: Sequence[int]) -> Candidates:
    """Return the candidates of a distillation that lie in planes whose labels are known."""
    model = next(iter(teachers.models.values()))
    found = candidates(teachers.volume, model.window, model.recipe.tiles, axes, 0)
    kept = [n for n, tile in enumerate(found.tiles) if teachers.has(tile.axis, tile.position)]
    clusters = np.unique(found.cluster[kept], return_inverse=True)[1]
    return Candidates(tuple(found.tiles[n] for n in kept), clusters)


def _predict(teachers: Teachers, model: Model, planes: Sequence[int]) -> Labels:
    """Return a student's probabilities of planes, with the cells of a run."""
    volume, student = teachers.volume, model.classifier
    lattice = run_lattice(volume.shape, student, "cpu")  # type: ignore[arg-type]
    runner = StudentRunner(student)  # type: ignore[arg-type]
    raw = volume.read()
    classes = len(model.classes)
    out = {z: np.zeros((classes, *volume.shape[1:]), np.float32) for z in planes}
    depth = lattice.cell[0]
    for first in sorted({z // depth * depth for z in planes}):
        slab = (slice(first, min(first + depth, volume.shape[0])), *(slice(0, n) for n in volume.shape[1:]))
        for cell in lattice.cells((slab[0], slab[1], slab[2])):
            window = to_unit(lattice.cut(lattice.window(cell), raw, (0, 0, 0)), model.window)
            proba = np.asarray(runner.probabilities(window))
            for z in range(cell[0].start, min(cell[0].stop, volume.shape[0])):
                if z in out:
                    target = out[z][:, cell[1].start : cell[1].stop, cell[2].start : cell[2].stop]
                    target[:] = proba[:, z - first, : target.shape[1], : target.shape[2]]
    return out


def _score(row: dict[str, Any], name: str, found: Labels, data: Dense) -> None:
    """Add the scores of probabilities to a row."""
    planes = sorted(found)
    labels = np.stack([found[z].argmax(axis=0) + 1 for z in planes]).astype(np.uint8)
    truth = data.truth[planes]
    matrix = Confusion.of(labels, truth, len(data.classes)).matrix
    row["miou"][name] = round(mean_iou(matrix), 5)
    row["iou"][name] = [round(float(value), 5) for value in iou_per_class(matrix)]
    if is_cubic(data):
        row["changes"][name] = changes(labels)
        row["surface"][name] = round(surface_agreement(labels, truth), 5)


def changes(labels: NDArray[np.uint8]) -> float:
    """Return the share of voxels whose label is another one in the next plane."""
    return round(float((labels[1:] != labels[:-1]).mean()), 5)


def surface_agreement(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the share of the surfaces' voxels that are within a voxel of the other (surface Dice)."""
    known = truth > 0
    one, other = (find_boundaries(values, mode="thick") & known for values in (labels, truth))
    near = [distance_transform_edt(~surface) <= 1 for surface in (one, other)]
    return float(((one & near[1]).sum() + (other & near[0]).sum()) / max(1, one.sum() + other.sum()))


def _check(student: Model) -> dict[str, Any]:
    """Return what the check of a student says."""
    assert isinstance(student.classifier, StudentClassifier)
    taught = student.classifier.taught
    kept, trained = taught["agreement"], taught["on_training"]
    return {
        "agreement": kept["miou"],
        "gap": round(trained["miou"] - kept["miou"], 4),
        "lowest_tile": kept["lowest_tile"],
        "calibration_error": kept["calibration_error"],
        "problems": len(taught["problems"]),
    }


def _key(name: str, seed: int, way: str) -> str:
    return f"{name} {seed} {way}"


def _log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.students", description=__doc__)
    add = parser.add_argument
    add("--datasets", nargs="*", choices=ALL, default=list(ALL), metavar="NAME", help=f"of {', '.join(ALL)}")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of strokes and teachers")
    add("--only", nargs="+", type=int, help="distil from these of the teachers only")
    add("--ways", nargs="+", choices=("auto", *WAYS), default=["auto"], help="what students see")
    add("--sizes", nargs="+", choices=("small", "medium", "large"), default=["small", "medium"])
    add("--preset", default="balanced")
    add("--tiles", type=int, default=40)
    add("--steps", type=int, default=STEPS)
    add("--rarity", type=float, default=RARITY)
    add("--threads", type=int, default=1)
    add("--cache", type=Path, default=Path("benchmark-cache"), help="folder of the teachers' labels")
    add("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
