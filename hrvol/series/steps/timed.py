"""Do the work of a step: into a folder that exists, replacing what is out of date, with its time recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.errors import BlockError, BusyError, HrvolError, OutputExistsError, StoppedError
from hrvol.run.report import FailedBlock
from hrvol.run.status import run_status
from hrvol.series.records import Record, read_record, write_record
from hrvol.series.steps.recorded import FRESH
from hrvol.series.steps.step import UNFINISHED, Context, Result, Status
from hrvol.series.tasks import Task, exists


@dataclass(frozen=True)
class Work:
    """What a step has done.

    Attributes
    ----------
    computed
        Whether anything was computed.
    values
        Figures for the table.
    request, sha256
        For the record: what determines files besides the output, and their digests by role.
    """

    computed: bool
    values: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)


def timed(task: Task, context: Context, work: Callable[[], Work]) -> Result:
    """Do work and record it; its time is added to that of earlier runs, also if it fails or is stopped."""
    record = read_record(task.output, context.out) if exists(task.output) else None
    before = record or Record(step=task.step)
    began = time.monotonic()

    def note(done: Work) -> float:
        seconds = round(before.seconds + (time.monotonic() - began if done.computed else 0.0), 3)
        now = Record(
            step=task.step,
            request=dict(done.request),
            sha256=dict(done.sha256),
            seconds=seconds,
            results=dict(done.values),
        )
        if now != before.model_copy(update={"at": 0.0}):
            write_record(task.output, context.out, now)
        return seconds

    try:
        done = work()
    except (BlockError, StoppedError):
        note(Work(True, before.results))
        raise
    return Result(done.computed, note(done), done.values)


def replacing(context: Context, work: Callable[[bool], Any]) -> Any:
    """Return the result of work that does not overwrite; if an output is out of date, of work that does."""
    try:
        return work(False)
    except BusyError:
        raise
    except OutputExistsError as error:
        if context.fresh:
            return work(True)
        raise OutputExistsError(f"{error}; {FRESH}") from None


def make_folders(task: Task) -> None:
    """Create the folders of the outputs of a task."""
    for output in task.outputs:
        if "://" not in output:
            Path(output).parent.mkdir(parents=True, exist_ok=True)


def check_blocks(failed: Sequence[FailedBlock], output: str) -> None:
    """Raise :class:`BlockError` that names the first failed block, if there is one."""
    if failed:
        first = failed[0]
        raise BlockError(f"{output}: {len(failed)} blocks failed; block {first.index}: {first.reason}")


def unfinished(task: Task, storage_options: Mapping[str, Any] | None) -> Status:
    """Return the state of an output that is not complete, with its blocks."""
    try:
        status = run_status(task.output, storage_options=storage_options)
    except HrvolError:
        return Status(UNFINISHED)
    return Status(UNFINISHED, f"{status['done']} of {status['total']} blocks done")
