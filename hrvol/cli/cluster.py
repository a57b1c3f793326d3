"""The command that finds classes where nothing is drawn: cluster."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.options import (
    Roi,
    check_blocks,
    cluster_options,
    confirm_fresh,
    crf_option,
    echo_segmentation,
    engine_options,
    fresh_options,
    input_options,
    news,
    one_way_to_merge,
    recipe_option,
    storage_option,
    suggest_fresh,
    weights_options,
)


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@recipe_option
@cluster_options
@crf_option
@click.option("--boxes", metavar="FILE.csv", help="Write boxes around the objects of foreground classes.")
@click.option(
    "--model", metavar="OUT.hrvol", help="Keep the classes, to label other volumes with segment -m."
)
@engine_options
@input_options
@fresh_options
@storage_option
@weights_options
def cluster(
    volume: str,
    output: str,
    recipe: str | None,
    clusters: int | None,
    merge: float | None,
    classes: int | None,
    crf: bool,
    boxes: str | None,
    min_size: int,
    model: str | None,
    seed: int | None,
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    device: str,
    devices: tuple[str, ...] | None,
    probabilities: bool,
    uncertainty: bool,
    roi: Roi | None,
    mask: str | None,
    level: int,
    fresh: bool,
    yes: bool,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
) -> None:
    """Find the classes of a volume where nothing is drawn, and label all of it.

    A sample of the volume is cut into clusters of alike pixels; what the network attends to is foreground;
    clusters nearer to each other than foreground is to background become one class. It is decided once, so
    a class means the same everywhere. Without --recipe the features are those of the preset cas. A run that
    was stopped or killed is gone on with by the same command.

    \b
    Examples:
        hrvol cluster volume.ome.zarr classes.ome.zarr
        hrvol cluster volume.ome.zarr classes.ome.zarr --classes 4 --model phases.hrvol
        hrvol cluster image.tif objects.ome.zarr --merge 1.1 --boxes boxes.csv
    """  # noqa: D301 (click needs the escape)
    one_way_to_merge(merge, classes)
    from hrvol.cli.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.cluster import cluster_volume

    if fresh:
        confirm_fresh(output, storage_options, yes)
    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = cluster_volume(
            volume,
            output,
            recipe=recipe,
            clusters=clusters,
            merge=merge,
            classes=classes,
            crf=crf,
            boxes=boxes,
            min_size=min_size,
            model=model,
            seed=seed,
            engine=engine,
            workers=workers,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            device=device,
            devices=devices,
            probabilities=probabilities,
            uncertainty=uncertainty,
            roi=roi,
            mask=mask,
            level=level,
            overwrite=fresh,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            stop=stop,
            progress=progress,
        )
    check_blocks(report.segmentation, output)
    echo_segmentation(report.segmentation, output)
    if report.objects is not None:
        click.echo(f"{boxes}: {len(report.objects)} boxes")
    if model is not None:
        click.echo(
            f"{model}: {len(report.model.classes)} classes from {len(report.clusters.of_cluster)} clusters"
        )
