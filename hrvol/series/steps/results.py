"""The steps evaluate and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.files import FileKind, atomic_write, check_file, json_text
from hrvol.run.export.export_volume import export
from hrvol.run.export.options import ExportFiles, ExportSelection
from hrvol.series.identity import Inputs, Known, class_names_of, labels_digest, truth_input, volume_digest
from hrvol.series.steps.recorded import Made, recorded_step
from hrvol.series.steps.requests import region_of, source, storage_of
from hrvol.series.steps.step import Context
from hrvol.series.tasks import Task
from hrvol.volume.guard import keep_inputs
from hrvol.volume.strokes.source import StrokesSource

_SCORES = FileKind("table of scores", (b'{\n  "miou"',))


def _evaluate_settings(task: Task) -> dict[str, Any]:
    spec: Any = task.spec
    return {"match": spec.match, "classes": None if spec.classes is None else list(spec.classes)}


def _evaluate_inputs(task: Task, known: Known) -> Inputs:
    spec: Any = task.spec
    storage, labels = storage_of(task.compute), task.paths["labels"]
    names = spec.classes or (() if spec.match else class_names_of(labels, storage)) or None
    truth = truth_input(_truth(task), labels, names, storage, known)
    return Inputs({"labels": labels_digest(labels, storage), **truth.digests}, truth.states)


def _truth(task: Task) -> StrokesSource:
    spec: Any = task.spec
    return StrokesSource(source(task, "truth"), spec.offset)


def _evaluate(task: Task, context: Context, overwrite: bool) -> Made:
    spec: Any = task.spec
    keep_inputs(task.output, *task.inputs)
    file = check_file(task.output, _SCORES, overwrite)
    figures = evaluate_volumes(
        task.paths["labels"],
        _truth(task),
        classes=spec.classes,
        match=spec.match,
        storage_options=storage_of(task.compute),
        progress=context.progress,
    )
    with atomic_write(file, durable=True) as partial:
        partial.write_text(json_text(figures) + "\n", encoding="utf-8")
    return Made((file,), {"miou": figures["miou"], "iou": figures["iou"], "accuracy": figures["accuracy"]})


def _export_settings(task: Task) -> dict[str, Any]:
    spec: Any = task.spec
    own = spec.to_dict()
    kept = ("format", "what", "per_class", "mesh", "only", "level", "compress")
    return {name: own[name] for name in kept} | {"roi": task.roi, "url": task.url}


def _export_inputs(task: Task, known: Known) -> Inputs:
    spec: Any = task.spec
    digest = volume_digest if spec.what == "image" else labels_digest
    return Inputs({"source": digest(_exported(task), storage_of(task.compute))}, {})


def _exported(task: Task) -> Any:
    """Return what is exported: labels, or a volume with how it is read."""
    spec: Any = task.spec
    return source(task, "labels") if spec.what == "image" else task.paths["labels"]


def _export(task: Task, context: Context, overwrite: bool) -> Made:
    spec: Any = task.spec
    report = export(
        _exported(task),
        Path(task.output),
        ExportSelection(spec.what, level=spec.level, roi=region_of(task), only=spec.only),
        ExportFiles(
            spec.format,
            spec.per_class,
            spec.mesh,
            spec.compress,
            None if spec.memory is None else round(spec.memory * 2**30),
            task.url,
            overwrite,
        ),
        storage_of(task.compute),
        context.progress,
    )
    sidecars = (file.with_suffix(".raw") for file in report.files if file.suffix == ".mhd")
    files = (*report.files, *(file for file in sidecars if file.exists()))
    return Made(files, {"empty": list(report.empty)}, digested=False)


EVALUATE = recorded_step(_evaluate_settings, _evaluate_inputs, _evaluate)
"""Compare labels with a ground truth."""

EXPORT = recorded_step(_export_settings, _export_inputs, _export)
"""Write labels in another format."""
