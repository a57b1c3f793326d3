"""Find the student of a model for a volume in its file, or distil it there, before a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hrvol.distil.distil import distil, request_of
from hrvol.distil.options import AUTO, DistilOptions
from hrvol.distil.stand_in import stand_in
from hrvol.distil.teach import DistilReport
from hrvol.engine.stop import Stop
from hrvol.errors import ModelError, OutputExistsError, UsageError
from hrvol.files import MODEL, check_file
from hrvol.progress import ProgressCallback
from hrvol.run.job import ModelContent
from hrvol.run.options import OutputOptions, RunOptions
from hrvol.run.prepare import prepare
from hrvol.run.resume import check_output
from hrvol.run.students.slow_notice import student_path
from hrvol.segment.model.model import Model, load_model, read_model, save_model
from hrvol.segment.student.spec import NAMES, student_spec
from hrvol.segment.student.student import StudentClassifier
from hrvol.text import printable
from hrvol.training.colour import STUDENTS
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.region import region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.strokes.source import place_of
from hrvol.volume.volume import expect_grey, open_volume

LOG = logging.getLogger("hrvol.run")

_SHOWN = 3  # differences


def student_file(out: str | Path | Location) -> Path:
    """Return the file of the student that is made for an output: beside it, named after it.

    Raises
    ------
    UsageError
        The output is a URL.
    """
    path = Location.of(out).path
    if path is None:
        raise UsageError(
            f"{out}: found a URL, beside which no student is written; expected a file for it (--student)"
        )
    return student_path(path)


def distil_options(options: RunOptions) -> RunOptions:
    """Return the request of the distillation that comes before a run."""
    return replace(options, input=replace(options.input, mask=None), output=OutputOptions(), companion=None)


def find_student(
    volume: Any,
    teacher: str | Path | Model,
    file: str | Path,
    distilling: DistilOptions,
    options: RunOptions,
) -> Model | None:
    """Return the student in a file if it is the one that a distillation would make.

    ``None`` if there is no file, or if ``options.output.overwrite`` lets another student be replaced.

    Parameters
    ----------
    volume, teacher
        What is distilled.
    file
        Of the student.
    distilling, options
        How, and the request of the run.

    Raises
    ------
    OutputExistsError
        The file is a student of another model, volume or request, or something else.
    ModelError
        The teacher is a student itself, or a file is damaged.
    """
    content = ModelContent.of(teacher)
    if isinstance(read_model(content.data, str(content.file)).classifier, StudentClassifier):
        raise ModelError(f"{content.file}: found a student, expected a model of hrvol train or cluster")
    if not Path(file).exists():
        return None
    try:
        return _checked(load_model(file), file, content, volume, distilling, options)
    except (OutputExistsError, ModelError):
        if not options.output.overwrite:
            raise
        return None


def _checked(
    found: Model,
    file: str | Path,
    teacher: ModelContent,
    volume: Any,
    distilling: DistilOptions,
    options: RunOptions,
) -> Model:
    """Return a model if it is the student of a request; raise :class:`OutputExistsError` if not."""
    opened = open_volume(located(volume, options.storage_options), level=options.input.level)
    expect_grey(opened, STUDENTS)
    expected = {
        "teacher": teacher.sha256,
        "volume": opened.identity()["sha256"],
        **request_of(distilling, region_box(options.input.roi, opened)),
    }
    differences = list(_differences(found, json.loads(json.dumps(expected))))
    if differences:
        raise OutputExistsError(
            f"{file}: found {differences[0]}, expected the student of {teacher.file} for {opened.source}"
        )
    return found


def _differences(found: Model, expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a model is that is not the student expected."""
    if not isinstance(found.classifier, StudentClassifier):
        yield "no student"
        return
    taught = found.classifier.taught
    entries = {name: taught.get(name) for name in ("teacher", "volume", "request")}
    known = {name: entry if isinstance(entry, Mapping) else {} for name, entry in entries.items()}
    for name, what in (("teacher", "of another model"), ("volume", "of another volume")):
        if known[name].get("sha256") != expected[name]:
            source = printable(str(known[name].get("source", "unknown")), 200)
            yield f"a student {what} ({source})"
    request = known["request"]
    others = [name for name in expected if name not in ("teacher", "volume")]
    changed = [name for name in others if name not in request or request[name] != expected[name]]
    if changed:
        shown = "; ".join(
            f"{name} was {printable(json.dumps(request.get(name)), 60)}, now {json.dumps(expected[name])}"
            for name in changed[:_SHOWN]
        )
        yield f"a student of another request ({shown})"


def distil_into(
    volume: Any,
    out: str | Path | Location,
    teacher: str | Path,
    file: str | Path,
    distilling: DistilOptions,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> DistilReport | None:
    """Make sure that a file holds the student of a model for a volume, before the volume is segmented.

    Parameters
    ----------
    volume, out, options
        The request of the run; all of it is checked before the minutes of distilling. With
        ``options.output.overwrite`` another student in the file is replaced.
    teacher, file, distilling
        As for :func:`find_student`.
    stop, progress
        As in :func:`hrvol.distil_model`.

    Returns
    -------
    DistilReport or None
        ``None`` if the file holds the student already.

    Raises
    ------
    HrvolError
        As :func:`find_student`, :func:`hrvol.distil_model` and :func:`hrvol.segment_volume`.
    """
    files = (place_of(distilling.held_out), options.weights.path, options.engine.scheduler_file)
    keep_inputs(file, volume, teacher, options.input.mask, *files)
    keep_inputs(file, out, role="output")
    if find_student(volume, teacher, file, distilling, options) is not None:
        LOG.info("%s: found the student of this model and volume", file)
        return None
    check_file(file, MODEL, options.output.overwrite)
    _check_run(volume, out, teacher, distilling, options)
    report = distil(volume, teacher, distilling, distil_options(options), stop, progress)
    save_model(report.student, file)
    return report


def _check_run(
    volume: Any,
    out: str | Path | Location,
    teacher: str | Path,
    distilling: DistilOptions,
    options: RunOptions,
) -> None:
    """Raise what the run would raise before it starts, whatever the student will be."""
    name = NAMES[0] if distilling.size == AUTO else distilling.size
    model = stand_in(load_model(teacher), student_spec(name))
    output = options.output
    with ExitStack() as stack:
        prepared = prepare(volume, out, model, stack, options.placed()[0])
    if output.overwrite:
        check_overwrite(prepared.location, True)
        return
    unknown = ("model", "recipe")
    known = {name: value for name, value in prepared.attributes.items() if name not in unknown}
    check_output(prepared.location, known)
