"""The command segment: label a volume with a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.common.distilling import first_distil_options
from hrvol.cli.common.options import segment_options, yes_option
from hrvol.cli.common.output import (
    check_blocks,
    confirm_fresh,
    echo,
    echo_segmentation,
    news,
    suggest_fresh,
)
from hrvol.cli.common.reading import reads
from hrvol.cli.common.reporting import ReportChoice, report_choice, write_run_report
from hrvol.cli.distil import echo_report
from hrvol.cli.plan import SECONDS, show_plan

if TYPE_CHECKING:
    from hrvol.cli.common.distilling import FirstDistil
    from hrvol.engine.stop import Stop
    from hrvol.run.options import RunOptions
    from hrvol.segment.model.model import Model


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr", required=False)
@click.option(
    "-m", "--model", required=True, metavar="MODEL.hrvol", help="A model made by hrvol train, or a student."
)
@segment_options
@first_distil_options
@report_choice
@yes_option
@click.option("--dry-run", is_flag=True, help="Only estimate the cost, as hrvol plan does.")
@reads("volume", "options.input.mask", "first_distil.options.held_out")
def segment(
    volume: str,
    output: str | None,
    model: str,
    options: RunOptions,
    first_distil: FirstDistil | None,
    reporting: ReportChoice,
    yes: bool,
    dry_run: bool,
) -> None:
    """Label a volume with a trained model.

    The result is an OME-Zarr whose labels/hrvol has the volume's shape, voxel size, class names and
    colours, and coarser levels for viewers. Label 0 means not processed. A report of it, one HTML file, is
    written beside it (see hrvol report).

    A stopped or killed run is resumed by the same command. Ctrl-C stops after the blocks in progress, a
    second Ctrl-C at once.

    \b
    Examples:
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol --workers 8 --uncertainty
        hrvol segment large.ome.zarr labels.ome.zarr -m phases.hrvol --distil
        hrvol segment volume.ome.zarr --into-input --name phases -m phases.hrvol
        hrvol segment volume.zarr trial.ome.zarr -m phases.hrvol --roi 100:110,:,:
        hrvol segment s3://in/volume.zarr s3://out/labels.ome.zarr -m phases.hrvol --engine tcp://head:8786

    A block that fails is tried three times. It does not end the run: failed blocks are listed at the end, the
    exit code is 1, and the same command tries them again.
    """  # noqa: D301 (click needs the escape)
    if options.output.into_input and reporting.path is not None:
        raise click.UsageError("--report needs an output of its own: found --into-input")
    into, output = output is None, _output(volume, output, options)
    if first_distil is not None:
        _check_distil(options)
    if dry_run:
        planned = model if first_distil is None else _planned(volume, output, model, first_distil, options)
        show_plan(volume, output, planned, options, SECONDS, as_json=False)
        return
    if options.output.part is not None and options.output.overwrite:
        raise click.UsageError("--fresh would delete the blocks of other parts: delete the output first")
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.segment import segment as run_segment

    confirm_fresh(output, options, yes)
    with news(), suggest_fresh(), stop_signals(ends=True) as stop:
        if first_distil is not None:
            model = _student(volume, output, model, first_distil, options, stop)
        with display() as progress:
            report = run_segment(volume, None if into else output, model, options, stop, progress)
    try:
        check_blocks(report, output)
        echo_segmentation(
            report, output if report.left else output.removesuffix(".unfinished") if into else output
        )
    finally:  # blocks that failed are in it
        if not into:
            write_run_report(reporting, output, report, options.storage_options)


def _output(volume: str, output: str | None, options: RunOptions) -> str:
    """Return the output of a run: the one that was named, or a place in the volume."""
    if output is not None and options.output.into_input:
        raise click.UsageError(f"--into-input writes into VOLUME: found the output {output} too, choose one")
    if output is not None:
        return output
    if not options.output.into_input:
        raise click.UsageError("Missing argument 'OUT.ome.zarr' (or --into-input).")
    from hrvol.run.into_input import find_place

    return str(find_place(volume, options.output.name).run)


def _check_distil(options: RunOptions) -> None:
    """Refuse options that go with no student that is made first."""
    if options.output.into_input:
        raise click.UsageError(
            "--into-input needs a student that exists: run hrvol distil first, then with -m STUDENT.hrvol"
        )
    if options.output.part is not None:
        raise click.UsageError(
            "--part needs a student that exists: run hrvol distil first, then each part with -m STUDENT.hrvol"
        )
    if options.companion is not None:
        raise click.UsageError(
            "--distil segments with the student alone, --with beside the model: choose one"
        )


def _student(
    volume: str, output: str, model: str, first: FirstDistil, options: RunOptions, stop: Stop
) -> str:
    """Return the file of the model's student, which is made if it does not exist."""
    from hrvol.cli.common.progress import display
    from hrvol.distil.student_file import distil_into

    file = first.file(output)
    with display() as progress:
        report = distil_into(volume, output, model, file, first.options, options, stop, progress)
    if report is not None:
        echo_report(report)
        echo(f"{file}: {report.size} student of {report.tiles} tiles")
    return str(file)


def _planned(volume: str, output: str, model: str, first: FirstDistil, options: RunOptions) -> str | Model:
    """Return the model's student, or one of random weights in its place."""
    from hrvol.distil.student_file import find_student
    from hrvol.planning.students import planned_student
    from hrvol.segment.model.model import load_model

    file = first.file(output)
    with suggest_fresh():
        if find_student(volume, model, file, first.options, options) is not None:
            return str(file)
    student, remark = planned_student(volume, load_model(model), first.options, options)
    echo(remark)
    return student
