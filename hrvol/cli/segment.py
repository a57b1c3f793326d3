"""The command segment: label a volume with a trained model."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.options import (
    Roi,
    check_blocks,
    confirm_fresh,
    crf_option,
    echo_segmentation,
    engine_options,
    fresh_options,
    input_options,
    news,
    parse_part,
    storage_option,
    suggest_fresh,
    weights_options,
)


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@click.option("-m", "--model", required=True, metavar="MODEL.hrvol", help="A model made by hrvol train.")
@engine_options
@click.option(
    "--part",
    callback=parse_part,
    metavar="k/n",
    help="Do the k-th of n parts of the work, in array jobs that need no scheduler.",
)
@crf_option
@input_options
@fresh_options
@click.option("--dry-run", is_flag=True, help="Only say what it would take, as hrvol plan does.")
@storage_option
@weights_options
def segment(
    volume: str,
    output: str,
    model: str,
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    device: str,
    devices: tuple[str, ...] | None,
    part: tuple[int, int] | None,
    probabilities: bool,
    uncertainty: bool,
    crf: bool,
    roi: Roi | None,
    mask: str | None,
    level: int,
    fresh: bool,
    yes: bool,
    dry_run: bool,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
) -> None:
    """Label a volume with a trained model.

    The result is an OME-Zarr whose labels/hrvol has the volume's shape, voxel size, class names and
    colours, and coarser levels for viewers. Label 0 means not processed.

    A run that was stopped or killed is gone on with by the same command. Ctrl-C stops after the blocks in
    progress, a second one at once.

    \b
    Examples:
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol --workers 8 --uncertainty
        hrvol segment volume.zarr trial.ome.zarr -m phases.hrvol --roi 100:110,:,:
        hrvol segment s3://in/volume.zarr s3://out/labels.ome.zarr -m phases.hrvol --engine tcp://head:8786

    A block that fails is tried three times. It does not end the run: it is named at the end, the exit code is
    1, and the same command tries it again.
    """  # noqa: D301 (click needs the escape)
    if dry_run:
        from hrvol.cli.plan import plan

        plan.callback(  # type: ignore[misc]
            volume=volume,
            output=output,
            model=model,
            engine=engine,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            device=device,
            devices=devices,
            workers=workers,
            probabilities=probabilities,
            uncertainty=uncertainty,
            crf=crf,
            roi=roi,
            mask=mask,
            level=level,
            part=part,
            fresh=fresh,
            storage_options=storage_options,
            weights_path=weights_path,
            offline=offline,
        )
        return
    if part is not None and fresh:
        raise click.UsageError("--fresh would delete what other parts have done: delete the output first")
    from hrvol.cli.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.segment import segment_volume

    if fresh:
        confirm_fresh(output, storage_options, yes)
    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = segment_volume(
            volume,
            output,
            model,
            engine=engine,
            workers=workers,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            device=device,
            devices=devices,
            part=part,
            probabilities=probabilities,
            uncertainty=uncertainty,
            crf=crf,
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
    check_blocks(report, output)
    echo_segmentation(report, output)
