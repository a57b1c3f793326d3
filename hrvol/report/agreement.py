"""Make the sections about how right labels are: against a truth, against a teacher, at seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.errors import InputError
from hrvol.progress import ProgressCallback
from hrvol.report.content import PageTable, percent
from hrvol.report.facts import Facts
from hrvol.segment.model.model import Model
from hrvol.segment.student.student import StudentClassifier
from hrvol.text import printable
from hrvol.volume.strokes.source import StrokesSource

_SHOWN = 12
"""Most classes of a confusion matrix that is shown."""


def accuracy_section(
    facts: Facts, truth: Any, storage_options: Mapping[str, Any] | None, progress: ProgressCallback | None
) -> dict[str, Any]:
    """Compare the labels with a ground truth; classes that were found without strokes are matched first.

    Raises
    ------
    InputError
        The truth cannot be read, is of another shape, or has no labels; or the output is not complete.
    """
    if not facts.complete:
        raise InputError(f"{facts.location}: found an unfinished output, expected a complete one for a truth")
    match = facts.clustered
    source = truth if isinstance(truth, StrokesSource) else StrokesSource(truth)
    figures = evaluate_volumes(
        facts.location, source, match=match, storage_options=storage_options, progress=progress
    )
    names = list(figures["iou"])
    used = [
        number
        for number, name in enumerate(names)
        if figures["iou"][name] is not None or any(row[number] for row in figures["confusion"])
    ]
    scores = [
        [
            printable(names[number], 100),
            _score(figures["iou"][names[number]]),
            _score(figures["dice"][names[number]]),
        ]
        for number in used
    ]
    shown = used[:_SHOWN]
    rows = []
    for number in shown:
        row = figures["confusion"][number]
        total = sum(row)
        shares = [percent(row[other] / total if total else None, 1) for other in shown]
        rows.append([printable(names[number], 100), *shares, f"{total:,}"])
    matched = " Classes were matched to the true ones first, as their numbers are arbitrary." if match else ""
    missing = figures["unlabelled"]
    unlabelled = f" {missing:,} voxels have a truth but no label; they count as wrong." if missing else ""
    cut = f" The first {_SHOWN} of {len(used)} classes are shown." if len(used) > _SHOWN else ""
    return {
        "text": (
            f"Against the ground truth: mean IoU {_score(figures['miou'])}, pixel accuracy"
            f" {_score(figures['accuracy'])}.{matched}{unlabelled}{cut}"
        ),
        "scores": PageTable("Agreement with the truth by class", ["class", "IoU", "Dice"], scores),
        "confusion": PageTable(
            "Confusion: how the voxels of each true class (row) were labelled (column)",
            ["true class", *(printable(names[number], 100) for number in shown), "voxels"],
            rows,
        ),
        "values": figures,
    }


def student_section(facts: Facts, model: Model | None) -> dict[str, Any] | None:
    """Return how a student agrees with its teacher, as its model records; ``None`` for other models."""
    if model is None or not isinstance(model.classifier, StudentClassifier):
        return None
    taught = model.classifier.taught
    agreement, training = (_mapping(taught.get(key)) for key in ("agreement", "on_training"))
    if not agreement:
        return None
    both = agreement, training
    rows = [
        [row.info.name, *(_at(values.get("iou"), number) for values in both)]
        for number, row in enumerate(facts.classes.classes)
    ]
    names = {"miou": "mean", "share": "same label", "lowest_tile": "same label, worst tile"}
    rows += [[name, *(_number(values.get(key)) for values in both)] for key, name in names.items()]
    teacher = _mapping(taught.get("teacher")).get("source")
    tiles, kept = taught.get("tiles"), taught.get("kept_back")
    text = f"The labels are those of a student, a small network. Teacher: {printable(str(teacher), 300)}."
    if isinstance(tiles, int) and isinstance(kept, int):
        text += f" It was taught with {tiles} tiles; {kept} others were kept back to compare both."
    problems = taught.get("problems")
    listed = problems if isinstance(problems, Sequence) and not isinstance(problems, str) else ()
    return {
        "text": text,
        "table": PageTable(
            "IoU of the student's labels with the teacher's by class, their mean, and shares of voxels",
            ["class", "kept-back tiles", "training tiles"],
            rows,
        ),
        "problems": [printable(str(problem), 400) for problem in list(listed)[:10]],
        "values": {"agreement": dict(agreement), "on_training": dict(training)},
    }


def cluster_section(facts: Facts) -> dict[str, Any] | None:
    """Return what is recorded of classes that were found without strokes; ``None`` for other outputs."""
    found = _mapping(facts.attributes.get("clusters"))
    if not found:
        return None
    shares, density = _mapping(found.get("share")), _mapping(found.get("attention_density"))
    foreground = found.get("foreground")
    front = {str(value) for value in foreground} if isinstance(foreground, list) else set()
    rows = [
        [
            row.info.name,
            percent(share if isinstance(share := shares.get(str(row.info.value)), float) else None, 1),
            _number(density.get(str(row.info.value))),
            "yes" if str(row.info.value) in front else "no",
        ]
        for row in facts.classes.classes
    ]
    count, distance = found.get("count"), _number(found.get("semantic_distance"))
    columns = ["class", "share of the samples", "attention density", "foreground"]
    number = str(count) if isinstance(count, int) else "-"
    return {
        "text": f"{number} clusters were merged up to a distance of {distance}.",
        "table": PageTable("Classes by the attention of the network", columns, rows),
        "values": dict(found),
    }


def seams_text(facts: Facts) -> str:
    """Return how far neighbouring tiles disagreed; empty where none were compared."""
    if facts.totals is None or not facts.totals.seams.pixels:
        return ""
    seams = facts.totals.seams
    return (
        f"Where tiles inside of a block overlap, {percent(seams.label_share)} of {seams.pixels:,} pixels had"
        " different labels before blending; probabilities differed by"
        f" {percent(seams.mean_probability_difference)} on average."
    )


def _mapping(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, Mapping) else {}


def _at(values: Any, number: int) -> str:
    """Return an entry of a list from a file; a dash where it is missing."""
    return _number(values[number]) if isinstance(values, list) and number < len(values) else "-"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def _score(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
