"""Put together what a report shows of an output, and the same figures as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.errors import UnreadableError
from hrvol.files import SOFTWARE
from hrvol.progress import ProgressCallback
from hrvol.report.agreement import accuracy_section, cluster_section, seams_text, student_section
from hrvol.report.content import (
    PageTable,
    Section,
    doubt_section,
    fraction_table,
    plane_section,
    size_section,
    summary_text,
    warnings_of,
)
from hrvol.report.doubt import calibration_section, drift_section
from hrvol.report.facts import Facts
from hrvol.report.inputs import find_grey, find_model
from hrvol.report.made import citation, command, made_rows, recipe_text, time_rows
from hrvol.report.measured import Measurement
from hrvol.report.options import LONGEST_TITLE, ReportOptions
from hrvol.report.planes import average_planes, count_planes
from hrvol.report.sections import (
    Scene,
    doubtful_plane,
    montage_of,
    orthogonal,
    slider,
    slider_planes,
    surface_classes,
    surface_of,
)
from hrvol.report.structure_sections import thickness_section, tortuosity_section
from hrvol.report.view import View
from hrvol.text import printable
from hrvol.volume.volume import Volume

FORMAT = "hrvol report"
"""First value of the figures."""

ANNOTATE = 5
"""Planes that are suggested."""


def assemble(
    facts: Facts,
    options: ReportOptions,
    measurement: Measurement | None,
    storage_options: Mapping[str, Any] | None,
    progress: ProgressCallback | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the page shows, and the same figures as JSON values."""
    grey, no_grey = find_grey(facts, options.volume, storage_options)
    scene = _scene(facts, grey)
    infos = scene.classes
    accuracy = (
        None if options.truth is None else accuracy_section(facts, options.truth, storage_options, progress)
    )
    shares = count_planes(scene.labels, infos, options.seed, progress)
    table, class_values = fraction_table(facts, shares, measurement)
    planes = plane_section(facts, shares)
    sizes = None if measurement is None else size_section(measurement, infos)
    thickness = None if measurement is None else thickness_section(measurement, infos)
    tortuosity = None if measurement is None else tortuosity_section(measurement)
    drawn = surface_classes(infos, [row.fraction for row in facts.classes.classes], options.surfaces)
    surface = surface_of(scene, drawn)
    along = slider_planes(scene)
    doubt, worst = _doubt(facts, scene, progress)
    model = find_model(facts, options.model)
    student = student_section(facts, model)
    drift, calibration = drift_section(facts), calibration_section(facts, model)
    clusters = cluster_section(facts)
    seams = seams_text(facts)
    made, times = made_rows(facts), time_rows(facts)
    title = options.title or printable(Path(str(facts.location).rstrip("/")).name, LONGEST_TITLE)
    contents = [
        ("slices", "Slices"),
        ("fractions", "Fractions"),
        *([("sizes", "Sizes")] if sizes else []),
        *([("thickness", "Thickness")] if thickness else []),
        *([("tortuosity", "Tortuosity")] if tortuosity else []),
        *([("uncertainty", "Uncertainty")] if doubt else []),
        *([("drift", "Distance from the strokes")] if drift else []),
        *([("calibration", "Calibration")] if calibration else []),
        *([("accuracy", "Accuracy")] if accuracy else []),
        *([("clusters", "Classes found")] if clusters else []),
        *([("student", "Student")] if student else []),
        *([("seams", "Seams")] if seams else []),
        ("made", "How it was made"),
        ("cite", "How to cite"),
    ]
    content = {
        "title": title,
        "summary": summary_text(facts),
        "warnings": warnings_of(facts),
        "contents": contents,
        "has_grey": scene.grey is not None,
        "no_grey": no_grey or "they cannot be read",
        "classes": [{"name": info.name, "colour": info.colour} for info in infos],
        "orthogonal": orthogonal(scene),
        "slider": slider(scene, along) if len(along) > 1 else [],
        "montage": montage_of(scene, along) if len(along) > 1 else None,
        "surface": surface,
        "surface_note": "" if options.surfaces else "The rarest classes are drawn.",
        "fractions": table,
        "along_z": planes,
        "sizes": sizes,
        "thickness": thickness,
        "tortuosity": tortuosity,
        "doubt": None if doubt is None else vars(doubt) | {"picture": worst},
        "drift": drift,
        "calibration": calibration,
        "accuracy": accuracy,
        "clusters": clusters,
        "student": student,
        "seams": seams,
        "made": made,
        "times": times,
        "failures": _failures(facts),
        "command": command(facts),
        "repeat_note": "recipe.yaml is the recipe below." if facts.clustered else "",
        "recipe": recipe_text(facts),
        "citation": citation(facts),
        "location": printable(str(facts.location), 400),
    }
    values = {
        "format": FORMAT,
        "software": SOFTWARE,
        "output": str(facts.location),
        "title": title,
        "status": {key: facts.status[key] for key in ("state", "total", "done", "failed", "left", "voxels")},
        "classes": class_values,
        "planes": None if planes is None else planes.values,
        "sizes": None if sizes is None else sizes.values,
        "thickness": None if thickness is None else thickness.values,
        "tortuosity": None if tortuosity is None else tortuosity.values,
        "uncertainty": None if doubt is None else doubt.values,
        "drift": None if drift is None else drift.values,
        "calibration": None if calibration is None else calibration.values,
        "accuracy": None if accuracy is None else accuracy["values"],
        "clusters": None if clusters is None else clusters["values"],
        "student": None if student is None else student["values"],
        "seams": None if facts.totals is None else vars(facts.totals.seams),
        "made": dict(made),
        "times": dict(times),
        "failures": facts.status["failures"],
        "command": content["command"],
        "recipe": None if facts.recipe is None else facts.recipe.to_dict(),
    }
    return content, values


def _scene(facts: Facts, grey: tuple[Volume, ...] | None) -> Scene:
    """Return what is drawn."""
    labels = View(facts.labels.levels, facts.shown)
    infos = tuple(row.info for row in facts.classes.classes)
    if grey is None:
        return Scene(labels, None, infos, (0.0, 1.0))
    view = View(grey, facts.shown, averaged=True)
    recorded = facts.attributes.get("window")
    if (
        isinstance(recorded, list)
        and len(recorded) == 2
        and all(isinstance(v, int | float) for v in recorded)
    ):
        low, high = (float(value) for value in recorded)
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return Scene(labels, view, infos, (low, high))
    try:
        middle = view.plane(0, (facts.shown[0].start + facts.shown[0].stop) // 2)
    except UnreadableError:
        return Scene(labels, None, infos, (0.0, 1.0))
    low, high = (float(value) for value in np.nanpercentile(middle, [0.5, 99.5]))
    return Scene(labels, view, infos, (low, high))


def _doubt(facts: Facts, scene: Scene, progress: ProgressCallback | None) -> tuple[Section | None, Any]:
    """Return the section about uncertainty and the picture of the worst plane, where the output has it."""
    if facts.uncertainty is None:
        return None, None
    view = View(facts.uncertainty.levels, facts.shown)
    doubt = average_planes(view, scene.labels, progress)
    if doubt is None:
        return None, None
    highest = doubt.highest(ANNOTATE)
    return doubt_section(facts, doubt, highest), doubtful_plane(scene, view, highest[0])


def _failures(facts: Facts) -> PageTable | None:
    found = facts.status["failures"]
    if not found:
        return None
    rows = [[str(tuple(one["block"])), printable(str(one["reason"]), 400)] for one in found[:100]]
    more = f" (the first 100 of {len(found)})" if len(found) > 100 else ""
    return PageTable(f"Blocks that failed{more}", ["block (z, y, x)", "reason"], rows)
