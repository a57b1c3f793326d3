"""The command distil: teach a small network what a model predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.common.distilling import distil_run_options, distilling_options
from hrvol.cli.common.options import json_option
from hrvol.cli.common.output import echo, echo_json, echo_table, news, score, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.distil.options import DistilOptions
    from hrvol.distil.teach import DistilReport
    from hrvol.run.options import RunOptions


@click.command()
@click.argument("volume")
@click.argument("model", metavar="MODEL.hrvol")
@click.option("-o", "--output", required=True, metavar="STUDENT.hrvol", help="The student's file to write.")
@distilling_options
@click.option("--picture", metavar="FILE.png", help="Also draw the kept-back tiles that agree least.")
@click.option("--fresh", is_flag=True, help="Replace a model that exists.")
@distil_run_options
@json_option
@reads("volume", "distilling.held_out")
def distil(
    volume: str,
    model: str,
    output: str,
    distilling: DistilOptions,
    picture: str | None,
    fresh: bool,
    options: RunOptions,
    as_json: bool,
) -> None:
    """Teach a small network what a model predicts, to segment large volumes many times as fast.

    Tiles spread over VOLUME are labelled with MODEL, the teacher. A small convolutional network, the student,
    is trained on most of them and compared with its teacher on the others. STUDENT.hrvol is a model for
    hrvol segment and hrvol plan; its labels have no seams.

    \b
    Examples:
        hrvol distil volume.ome.zarr phases.hrvol -o fast.hrvol
        hrvol distil volume.ome.zarr phases.hrvol -o fast.hrvol --minutes 30 --picture worst.png
        hrvol segment volume.ome.zarr labels.ome.zarr -m fast.hrvol

    Labelled tiles are cached: a stopped command is resumed by the same one, and another student of the same
    volume needs few minutes. A student that agrees with its teacher on tiles that it was trained on but not
    on others is not written without --accept.
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.distil.distil import distil as run_distil
    from hrvol.engine.stop import stop_signals
    from hrvol.files import MODEL, check_file, check_picture
    from hrvol.segment.model.model import save_model
    from hrvol.volume.guard import keep_inputs
    from hrvol.volume.strokes.source import place_of

    drawn = place_of(distilling.held_out)
    keep_inputs(output, volume, model, drawn, options.weights.path, options.engine.scheduler_file)
    if picture is not None:
        keep_inputs(picture, volume, model, drawn, output)
    with suggest_fresh():  # before the work, not after it
        check_file(output, MODEL, fresh)
        if picture is not None:
            check_picture(picture, fresh)
    with news(), stop_signals(ends=True) as stop, display() as progress:
        report = run_distil(volume, model, distilling, options, stop, progress)
    save_model(report.student, output)
    if picture is not None:
        from hrvol.figures.students import draw_students

        draw_students(picture, report.examples, report.student.classes)
    if as_json:
        echo_json(report.to_dict())
        return
    echo_report(report)
    echo(f"{output}: {report.size} student of {report.tiles} tiles")


def echo_report(report: DistilReport) -> None:
    """Print how a student compares with its teacher, and what speaks against it."""
    found, seen = report.agreement, report.on_training
    echo("IoU of the student's labels with the teacher's, which is no measure of quality:")
    rows = [
        [info.name, score(float(of_others)), score(float(of_seen))]
        for info, of_others, of_seen in zip(report.student.classes, found.iou, seen.iou, strict=True)
    ]
    rows.append(["mean", score(found.mean_iou), score(seen.mean_iou)])
    echo_table(["class", f"{report.kept_back} tiles kept back", "tiles of the training"], rows)
    if report.on_strokes is not None:
        by_teacher, by_student = report.on_strokes
        echo(f"mean IoU on held-out strokes: teacher {by_teacher:.3f}, student {by_student:.3f}")
    if len(report.by_size) > 1:
        echo_table(["size", "mean IoU"], [[name, score(value)] for name, value in report.by_size.items()])
    for line in (*report.problems, *report.notes):
        echo(f"note: {line}")
