"""The command demo: run the whole workflow on a synthetic volume."""

from __future__ import annotations

from pathlib import Path

import click

from hrvol.cli.common.output import echo, echo_table, score


@click.command()
@click.option(
    "--out",
    default="hrvol-demo",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the volume, models, labels and pictures.",
)
@click.option("--classical-only", is_flag=True, help="Use filters only: no network, no weights.")
@click.option("--weights", "file", metavar="PATH", help="Read the network's weights from this file.")
@click.option("--offline", is_flag=True, help="Search this machine only for network weights.")
def demo(out: Path, classical_only: bool, file: str | None, offline: bool) -> None:
    """Segment a synthetic battery electrode, from strokes to pictures, in a few minutes.

    Creates a volume of particles, pores, binder and cracks, and draws strokes on two of its twelve planes.
    Trains a classifier of classical filters, and one of filters and network features (hybrid), and teaches a
    small network, the student, what the latter predicts. Segments the whole volume with each, and compares
    all with the ground truth.

    \b
    Example:
        hrvol demo --out /tmp/hrvol-demo
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.demo import run_demo

    with display() as progress:
        report = run_demo(
            out, classical_only=classical_only, weights_path=file, offline=offline, progress=progress
        )
    names = list(next(iter(report.scores.values()))["iou"])
    rows = [
        [
            method,
            *(score(figures["iou"][name]) for name in names),
            score(figures["miou"]),
            f"{report.costs[method]:.2f}",
        ]
        for method, figures in report.scores.items()
    ]
    echo_table(
        ["model", *names, "mIoU", "us per voxel"],
        rows,
        title="IoU with the ground truth (1 is perfect) and time on one core, whole volume",
    )
    echo("")
    for picture in report.pictures:
        echo(f"picture: {picture}")
    echo()
    echo("Next: inspect the model, score the labels, then train and segment yourself:")
    for line in report.commands:
        echo(f"  {line}")
