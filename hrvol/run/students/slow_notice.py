"""Tell once, when the pace of a run is known, that a student would save hours."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from hrvol.progress import ProgressCallback, duration
from hrvol.run.job import SegmentJob
from hrvol.run.options import RunOptions
from hrvol.volume.grid.tiling import whole

LOG = logging.getLogger("hrvol.run")

LONG = 3600.0
"""Seconds of a run from which on a student is recommended."""

SETTLED = 60.0
"""Seconds after which the pace is taken as that of the run: until then workers load the model."""

STAGE = "segment"
"""Stage whose pace counts."""


def with_notice(
    progress: ProgressCallback | None, message: str, clock: Callable[[], float] = time.monotonic
) -> ProgressCallback:
    """Return a callback that logs a message once if the run that reports to it will take more than an hour.

    The pace is that of the blocks done so far and of the planes reported from inside of others, at the first
    report a minute or more after the beginning.

    Parameters
    ----------
    progress
        Callback to report to.
    message
        What is logged after the time that the run will take.
    clock
        Returns seconds.
    """
    began: tuple[float, int] | None = None
    decided = False

    def report(stage: str, done: int, total: int) -> None:
        nonlocal began, decided
        if progress is not None:
            progress(stage, done, total)
        if stage != STAGE or decided:
            return
        if began is None:
            began = clock(), done
        seconds = clock() - began[0]
        if seconds < SETTLED or done <= began[1]:
            return
        decided = True
        whole_run = seconds * (total - began[1]) / (done - began[1])
        if whole_run > LONG:
            LOG.info("%s", f"this run will take about {duration(whole_run)}{message}")

    return report


def recommendation(job: SegmentJob, options: RunOptions) -> str:
    """Return how to make a student for a run, as the end of a sentence; the command, if there are files.

    It is empty for colour, of which there are no students.

    Parameters
    ----------
    job
        Of the run.
    options
        Its request.
    """
    if job.volume.colour:
        return ""
    advice = ": a student of the model is many times as fast"
    output = job.store.location
    volume, model = job.volume.source, Path(job.model_source.model_file)
    if job.volume.origin is None or not model.is_file():
        return f"{advice} (hrvol.distil_model, or hrvol distil with files)"
    words = ["hrvol", "distil", volume, str(model), "-o", str(student_path(output.path))]
    if options.input.level:
        words += ["--level", str(options.input.level)]
    if job.region != whole(job.volume.shape):
        spans = (f"{span.start}:{span.stop}" for span in job.region)
        words += ["--roi", ",".join(spans)]
    reading = job.volume.origin[0].reading
    words += [] if reading is None else reading.words()
    if options.weights.path is not None:
        words += ["--weights", options.weights.path]
    return f"{advice}; make one with: {shlex.join(words)}"


def student_path(output: Path | None) -> Path:
    """Return a file for the student that is made for an output, beside it; a bare name if it is a URL."""
    if output is None:
        return Path("student.hrvol")
    name = output.name
    for suffix in (".ome.zarr", ".zarr"):
        name = name.removesuffix(suffix)
    return output.with_name(f"{name}.student.hrvol")
