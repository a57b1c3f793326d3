"""The command demo: segment a synthetic volume."""

from __future__ import annotations

from pathlib import Path

import click

from hrvol.cli.options import echo_table, score


@click.command()
@click.option(
    "--out",
    default="hrvol-demo",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to put the volume, the models, the results and the pictures.",
)
@click.option("--classical-only", is_flag=True, help="Leave the network out: needs no weights.")
@click.option("--weights", "file", metavar="PATH", help="Take the network's weights from this file.")
@click.option("--offline", is_flag=True, help="Look for network weights on this machine only.")
def demo(out: Path, classical_only: bool, file: str | None, offline: bool) -> None:
    """Segment a synthetic battery electrode, from strokes to pictures, in a few minutes.

    Makes a volume with particles, pores, binder and cracks, draws strokes on two of its planes, trains a
    classifier on classical filters and one on filters and network features, segments the whole volume with
    both, and compares them with the truth.

    \b
    Example:
        hrvol demo --out /tmp/hrvol-demo
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.progress import display
    from hrvol.demo import run_demo

    with display() as progress:
        report = run_demo(
            out, classical_only=classical_only, weights_path=file, offline=offline, progress=progress
        )
    names = list(next(iter(report.scores.values()))["iou"])
    rows = [
        [method, *(score(figures["iou"][name]) for name in names), score(figures["miou"])]
        for method, figures in report.scores.items()
    ]
    echo_table(["features", *names, "mIoU"], rows, title="IoU with the truth, over the whole volume")
    click.echo("")
    for picture in report.pictures:
        click.echo(f"picture: {picture}")
    click.echo("\nWhat to try next:")
    for line in report.commands:
        click.echo(f"  {line}")
