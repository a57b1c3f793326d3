"""The step convert: its output tells by its provenance what it was made of."""

from __future__ import annotations

from typing import Any

from hrvol.errors import OtherRunError
from hrvol.run.convert.convert_volume import ConvertReport, convert
from hrvol.run.convert.prepare_conversion import find_conversion, prepare_conversion
from hrvol.run.ledger import LEDGER
from hrvol.series.steps.requests import convert_options, source
from hrvol.series.steps.step import DONE, STALE, TODO, UNFINISHED, Context, Result, Status, Step
from hrvol.series.steps.timed import Work, check_blocks, make_folders, replacing, timed, unfinished
from hrvol.series.tasks import Task


def _status(task: Task, context: Context) -> Status:
    options = convert_options(task)
    prepared = prepare_conversion(source(task, "volume"), task.output, options)
    try:
        exists = find_conversion(prepared)
    except OtherRunError as error:
        return Status(STALE, str(error).partition("to resume it: ")[2] or str(error))
    if not exists:
        return Status(TODO)
    if not prepared.job.store.complete:
        return unfinished(task, options.storage_options)
    spec: Any = task.spec
    compared = not spec.verify or not prepared.location.children(LEDGER)  # deleted when all is compared
    return Status(DONE) if compared else Status(UNFINISHED, "not compared with its source")


def _convert(task: Task, context: Context) -> Result:
    spec: Any = task.spec
    volume = source(task, "volume")
    make_folders(task)

    def once(overwrite: bool) -> ConvertReport:
        # A complete output was compared when it was completed, if it should be.
        verify = spec.verify and (overwrite or _status(task, context).state != DONE)
        options = convert_options(task, overwrite=overwrite, verify=verify)
        return convert(volume, task.output, options, context.stop, context.progress)

    def work() -> Work:
        report = replacing(context, once)
        check_blocks(report.failed, task.output)
        return Work(report.before < report.voxels, {"voxels": report.voxels})

    return timed(task, context, work)


CONVERT = Step(_status, _convert)
"""Convert a volume to OME-Zarr."""
