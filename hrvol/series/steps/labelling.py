"""The steps cluster, distil and segment: their outputs tell by their provenance what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hrvol.distil.distil import distil
from hrvol.distil.student_file import find_student
from hrvol.errors import OtherRunError, OutputExistsError
from hrvol.files import MODEL, check_file
from hrvol.run.cluster import can_resume, cluster
from hrvol.run.options import ClusterFiles, RunOptions
from hrvol.run.prepare import prepare
from hrvol.run.report import SegmentReport
from hrvol.run.resume import check_output
from hrvol.run.segment import segment
from hrvol.segment.model.model import save_model
from hrvol.series.identity import labels_digest
from hrvol.series.records import read_record, sha256_of
from hrvol.series.steps.requests import cluster_options, distil_options, run_options, source, storage_of
from hrvol.series.steps.step import DONE, STALE, TODO, Context, Result, Status, Step
from hrvol.series.steps.timed import Work, check_blocks, make_folders, replacing, timed, unfinished
from hrvol.series.tasks import WRITTEN, Task
from hrvol.volume.guard import keep_inputs
from hrvol.volume.storage.location import Location


def _provenance(task: Task, options: RunOptions) -> Mapping[str, Any] | None:
    """Return the provenance of an output, ``None`` without one."""
    found = (Location.of(task.output, options.storage_options).attributes() or {}).get("hrvol")
    return found if isinstance(found, Mapping) else None


def _progress(task: Task, options: RunOptions) -> Status:
    """Return the state of labels that were started by the same request."""
    if (_provenance(task, options) or {}).get("complete") is True:
        return Status(DONE)
    return unfinished(task, options.storage_options)


def _segment_status(task: Task, context: Context) -> Status:
    options = run_options(task)
    with ExitStack() as stack:
        prepared = prepare(
            source(task, "volume"), task.output, task.paths["model"], stack, options.placed()[0]
        )
    try:
        settings, _ = check_output(prepared.location, prepared.attributes)
    except OtherRunError as error:
        return Status(STALE, str(error).partition("to resume it: ")[2] or str(error))
    return Status(TODO) if settings is None else _progress(task, options)


def _cluster_status(task: Task, context: Context) -> Status:
    options = run_options(task)
    if not Location.of(task.output, options.storage_options).occupied():
        return Status(TODO)
    if can_resume(source(task, "volume"), task.output, cluster_options(task), options):
        return _progress(task, options)
    return Status(STALE, "other settings, or another volume")


def _distil_status(task: Task, context: Context) -> Status:
    options = run_options(task)
    try:
        student = find_student(
            source(task, "volume"), task.paths["model"], task.output, distil_options(task), options
        )
    except OutputExistsError as error:
        return Status(STALE, str(error).partition(": ")[2])
    return Status(TODO if student is None else DONE)


def _figures(report: SegmentReport, output: str) -> Work:
    check_blocks(report.failed, output)
    values = {"voxels": report.voxels, "fractions": report.fractions}
    return Work(report.before < report.voxels, values)


def _segment(task: Task, context: Context) -> Result:
    make_folders(task)

    def once(overwrite: bool) -> SegmentReport:
        options = run_options(task, overwrite=overwrite)
        inputs = source(task, "volume"), task.output, task.paths["model"]
        return segment(*inputs, options, context.stop, context.progress)

    return timed(task, context, lambda: _figures(replacing(context, once), task.output))


def _written(task: Task) -> dict[str, str]:
    """Return the files that a clustering writes besides its labels, by role."""
    return {role: task.paths[role] for role in WRITTEN if role in task.paths}


def _files_request(task: Task) -> dict[str, Any]:
    """Return what determines these files: the labels and a setting; nothing if there are none."""
    spec: Any = task.spec
    storage = storage_of(task.compute)
    if not _written(task) or not Location.of(task.output, storage).occupied():
        return {}
    return {"labels": labels_digest(task.output, storage), "min_size": spec.min_size}


def _have_files(task: Task, context: Context) -> bool:
    """Whether the files are there that were made of the present labels."""
    record = read_record(task.output, context.out)
    if record is None or not record.request or record.request != _files_request(task):
        return False
    return record.sha256 == _digests(task)


def _digests(task: Task) -> dict[str, str]:
    return {role: sha256_of(path) for role, path in _written(task).items() if Path(path).is_file()}


def _cluster(task: Task, context: Context) -> Result:
    spec: Any = task.spec
    every = ClusterFiles(task.paths.get("boxes"), spec.min_size, task.paths.get("classes_model"))
    make_folders(task)

    def once(overwrite: bool) -> SegmentReport:
        options = run_options(task, overwrite=overwrite)
        finding = cluster_options(task)
        files = every if overwrite or not _have_files(task, context) else ClusterFiles()
        inputs = source(task, "volume"), task.output
        return cluster(*inputs, finding, files, options, context.stop, context.progress).segmentation

    def work() -> Work:
        done = _figures(replacing(context, once), task.output)
        return replace(done, request=_files_request(task), sha256=_digests(task))

    return timed(task, context, work)


def _distil(task: Task, context: Context) -> Result:
    volume, model = source(task, "volume"), task.paths["model"]
    make_folders(task)

    def once(overwrite: bool) -> bool:
        options = run_options(task)
        distilling = distil_options(task)
        keep_inputs(task.output, *task.inputs)
        if not overwrite and find_student(volume, model, task.output, distilling, options) is not None:
            return False
        check_file(task.output, MODEL, overwrite)
        report = distil(volume, model, distilling, options, context.stop, context.progress)
        save_model(report.student, task.output)
        return True

    return timed(task, context, lambda: Work(replacing(context, once)))


SEGMENT = Step(_segment_status, _segment)
"""Segment a volume with a model."""

CLUSTER = Step(_cluster_status, _cluster)
"""Find the classes of a volume and label it."""

DISTIL = Step(_distil_status, _distil)
"""Distil a student."""
