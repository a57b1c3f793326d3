"""Steps whose outputs do not say what they were made of: a record beside them does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.errors import HrvolError, OutputExistsError
from hrvol.recipe.recipe import Recipe
from hrvol.series.identity import Inputs, Known
from hrvol.series.records import (
    Record,
    changed_output,
    differences,
    read_record,
    sha256_of,
    size_of,
    write_record,
)
from hrvol.series.steps.step import DONE, STALE, TODO, Context, Result, Status, Step
from hrvol.series.tasks import Task, exists

FRESH = "--fresh replaces outputs that are out of date"


@dataclass(frozen=True)
class Made:
    """What a step has written.

    Attributes
    ----------
    files
        Files and folders, all in the folder of the output.
    values
        Figures for the table.
    digested
        Whether the record has digests of the files: of small ones.
    """

    files: tuple[Path, ...]
    values: Mapping[str, Any]
    digested: bool = True


def recorded_step(
    settings: Callable[[Task], dict[str, Any]],
    inputs: Callable[[Task, Known], Inputs],
    make: Callable[[Task, Context, bool], Made],
) -> Step:
    """Return a step that is recognised by its record.

    Parameters
    ----------
    settings
        Returns what of the settings determines the output, as JSON values.
    inputs
        Returns digests of the inputs.
    make
        Writes the output, ``make(task, context, overwrite)``.
    """

    def request(task: Task, known: Known) -> tuple[dict[str, Any], dict[str, str]]:
        found = inputs(task, known)
        return {"settings": settings(task), "inputs": found.digests}, found.states

    def judge(task: Task, context: Context) -> tuple[Status, Record | None, dict[str, Any], dict[str, str]]:
        record = read_record(task.output, context.out)
        now, states = request(task, Known(record))
        return _status(task, record, now), record, now, states

    def status(task: Task, context: Context) -> Status:
        return judge(task, context)[0]

    def run(task: Task, context: Context) -> Result:
        found, record, now, states = judge(task, context)
        if found.state == DONE and record is not None:
            return Result(False, record.seconds, record.results)
        if found.state == STALE and not context.fresh:
            raise OutputExistsError(f"{task.output}: is out of date ({found.reason}); {FRESH}")
        Path(task.output).parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        made = make(task, context, context.fresh)
        seconds = round(time.monotonic() - began, 3)
        digests = {file.name: sha256_of(file) for file in made.files} if made.digested else {}
        record = Record(
            step=task.step,
            request=now,
            states={name: state for name, state in states.items() if state},
            files={file.name: size_of(file) or 0 for file in made.files},
            sha256=digests,
            seconds=seconds,
            results=dict(made.values),
        )
        write_record(task.output, context.out, record)
        return Result(True, seconds, made.values)

    return Step(status, run)


def _status(task: Task, record: Record | None, request: Mapping[str, Any]) -> Status:
    if record is None or not record.files:
        return Status(TODO, "exists already" if exists(task.output) else "")
    changed = changed_output(record, task.output)
    if changed is not None and changed.endswith("is missing"):
        gone = not any(size_of(Path(task.output).parent / name) is not None for name in record.files)
        return Status(TODO) if gone else Status(STALE, changed)
    if changed is not None:
        return Status(STALE, changed)
    different = differences(_completed(record.request), request)
    return Status(STALE, f"changed: {_told(task, different)}") if different else Status(DONE)


def _completed(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recorded request whose recipe has the keys that were added since, with their defaults."""
    settings = request.get("settings")
    recipe = settings.get("recipe") if isinstance(settings, Mapping) else None
    if not isinstance(recipe, Mapping):
        return request
    try:
        whole = json.loads(json.dumps(Recipe.from_dict(recipe).to_dict()))
    except HrvolError:  # of a version with other keys
        return request
    return {**request, "settings": {**request["settings"], "recipe": whole}}


def _told(task: Task, names: str) -> str:
    """Return names of what differs with the paths of pairs, which records do not hold."""

    def path(found: re.Match[str]) -> str:
        number = int(found[2]) - 1
        if number >= len(task.pairs):
            return found[0]
        pair = task.pairs[number]
        return f"{found[1]} {pair.volume if found[1] == 'volume' else pair.strokes}"

    named = re.sub(r"inputs\.(volume|strokes|classes) (\d{1,5})\b", path, names)
    return re.sub(r"\b(inputs|settings)\.", "", named)
