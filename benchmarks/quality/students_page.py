"""The page of results of the benchmark of students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.markdown import table

Row = Mapping[str, Any]

Groups = Mapping[tuple[str, str], Sequence[Row]]


def render(found: Mapping[str, Row], text: str, threads: int) -> str:
    """Return the page of results.

    Parameters
    ----------
    found
        Rows of data set, drawing and way.
    text
        How they were measured.
    threads
        Of the measurement.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found.values():
        groups.setdefault((row["dataset"], row["way"]), []).append(row)
    lines = ["# Students and teachers", "", "Made by", "", "```", *_commands(groups), "```", ""]
    lines += [f"Machine: {describe_machine(threads)}", "", " ".join(text.split()), ""]
    lines += _summary(groups) + _depth(groups) + _checks(found) + _classes(groups)
    return "\n".join(lines)


def _commands(groups: Groups) -> list[str]:
    """Return the commands that measure these rows."""
    asked: dict[str, list[str]] = {}
    for (name, way), members in groups.items():
        sizes, seeds = " ".join(members[0]["check"]), " ".join(str(row["seed"]) for row in members)
        asked.setdefault(f"--sizes {sizes} --ways {way} --only {seeds}", []).append(name)
    command = "python -m benchmarks.quality.students"
    return [f"{command} {options} --datasets {' '.join(names)}" for options, names in asked.items()]


def _names(groups: Groups) -> list[str]:
    """Return the names of the models, as they were measured."""
    return list(dict.fromkeys(name for members in groups.values() for row in members for name in row["miou"]))


def _summary(groups: Groups) -> list[str]:
    """Return the mean IoU of all models where what students see was measured."""
    names, rows = _names(groups), []
    means: dict[str, list[float]] = {name: [] for name in names}
    of_teacher: dict[str, list[float]] = {name: [] for name in names}
    for (name, way), members in groups.items():
        if way != "auto":
            continue
        cells = [name, members[0]["sees"], str(len(members))]
        for entry in names:
            present = [row for row in members if entry in row["miou"]]
            values = [row["miou"][entry] for row in present]
            if not values:
                cells.append("")
                continue
            cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}")
            means[entry].append(float(np.mean(values)))
            of_teacher[entry].append(float(np.mean([row["miou"]["teacher"] for row in present])))
        rows.append(cells)
    last = [f"{np.mean(means[n]) - np.mean(of_teacher[n]):+.3f}" if means[n] else "" for n in names]
    rows.append(["mean of sets, less the teacher", "", "", *last])
    return [
        "Mean IoU over the classes, mean and standard deviation over drawings.",
        "",
        table(["data set", "student sees", "drawings", *names], rows),
        "",
    ]


def _depth(groups: Groups) -> list[str]:
    """Return students of planes, of a few planes and of volumes side by side."""
    rows = []
    for (name, _), members in groups.items():
        for entry in ("teacher", "small"):
            present = [row for row in members if entry in row["surface"]]
            if not present or (entry == "teacher" and members[0]["way"] != "auto"):
                continue
            truth = present[0]["changes"]["truth"]
            figures = [[row[part][entry] for row in present] for part in ("miou", "changes", "surface")]
            sees = "" if entry == "teacher" else present[0]["sees"]
            values = [f"{np.mean(figure):.3f} ± {np.std(figure):.3f}" for figure in figures]
            rows.append([name, entry, sees, str(len(present)), *values, f"{truth:.3f}"])
    if not rows:
        return []
    head = [
        "data set",
        "model",
        "sees",
        "drawings",
        "mean IoU",
        "labels change along z",
        "surface",
        "truth changes",
    ]
    return [
        "## Planes and volumes",
        "",
        "All voxels of the half of the volume without strokes. Labels that are others in the next plane, as a"
        " share of voxels; share of both surfaces that is within a voxel of the other.",
        "",
        table(head, rows),
        "",
    ]


def _checks(found: Mapping[str, Row]) -> list[str]:
    """Return what the check of students says, beside the truth."""
    rows = []
    for row in found.values():
        for size, check in row["check"].items():
            gain = row["miou"][size] - row["miou"]["teacher"]
            figures = (check[name] for name in ("agreement", "gap", "lowest_tile", "calibration_error"))
            verdict = "rejected" if check["problems"] else "passed"
            name = f"{row['dataset']}, {row['seed']}"
            rows.append([name, size, row["sees"], f"{gain:+.3f}", *(f"{f:.3f}" for f in figures), verdict])
    head = ["data set, drawing", "student", "sees", "student less teacher"]
    head += ["agreement", "gap", "lowest tile", "ECE", "check"]
    return ["## What the check says", "", table(head, rows), ""]


def _classes(groups: Groups) -> list[str]:
    rows = []
    for (name, _), members in groups.items():
        for entry in _names(groups):
            ious = [row["iou"][entry] for row in members if entry in row["iou"]]
            if ious:
                shown = " / ".join(f"{value:.3f}" for value in np.mean(ious, axis=0))
                rows.append([name, members[0]["sees"], entry, shown])
    return ["## Classes", "", table(["data set", "student sees", "model", "IoU of the classes"], rows), ""]
