"""The command cluster: label a volume without strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.common.options import finding_options, min_size_option, run_options, yes_option
from hrvol.cli.common.output import check_blocks, confirm_fresh, echo, echo_segmentation, news, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.cli.common.reporting import ReportChoice, report_choice, write_run_report

if TYPE_CHECKING:
    from hrvol.run.options import ClusterOptions, RunOptions


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@finding_options
@click.option("--boxes", metavar="FILE.csv", help="Write boxes around the objects of foreground classes.")
@min_size_option
@click.option("--model", metavar="OUT.hrvol", help="Write a model, to label other volumes with segment -m.")
@run_options
@report_choice
@yes_option
@reads("volume", "options.input.mask")
def cluster(
    volume: str,
    output: str,
    finding: ClusterOptions,
    boxes: str | None,
    min_size: int,
    model: str | None,
    options: RunOptions,
    reporting: ReportChoice,
    yes: bool,
) -> None:
    """Find the classes of a volume without strokes, and label all of it.

    Pixels of a sample are grouped into k-means clusters; clusters with high attention are foreground;
    clusters closer than the typical foreground-background distance are merged. Classes are fitted once, so
    a class means the same everywhere. Without --recipe the features are those of the preset cas, or
    cas-volume for planes larger than one tile. A stopped or killed run is resumed by the same command.

    \b
    Examples:
        hrvol cluster volume.ome.zarr classes.ome.zarr
        hrvol cluster volume.ome.zarr classes.ome.zarr --classes 4 --model phases.hrvol
        hrvol cluster image.tif objects.ome.zarr --merge 1.1 --boxes boxes.csv
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.cluster import cluster as run_cluster
    from hrvol.run.options import ClusterFiles

    confirm_fresh(output, options, yes)
    files = ClusterFiles(boxes, min_size, model)
    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = run_cluster(volume, output, finding, files, options, stop, progress)
    try:
        check_blocks(report.segmentation, output)
        echo_segmentation(report.segmentation, output)
    finally:  # blocks that failed are in it
        write_run_report(reporting, output, report.segmentation, options.storage_options)
    if report.objects is not None:
        echo(f"{boxes}: {len(report.objects)} boxes")
    if model is not None:
        echo(f"{model}: {len(report.model.classes)} classes from {len(report.clusters.of_cluster)} clusters")
