"""The command that says what a run will take, before it begins: plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.options import (
    Roi,
    crf_option,
    echo_json,
    echo_table,
    engine_options,
    input_options,
    json_option,
    news,
    parse_part,
    storage_option,
    suggest_fresh,
    weights_options,
)

if TYPE_CHECKING:
    from hrvol.planning.plan import Plan

SECONDS = 30.0


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@click.option("-m", "--model", required=True, metavar="MODEL.hrvol", help="A model made by hrvol train.")
@engine_options
@click.option("--part", callback=parse_part, metavar="k/n", help="Only the k-th of n parts of the work.")
@crf_option
@input_options
@click.option("--fresh", is_flag=True, help="As if an output that is there would be replaced.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=SECONDS,
    show_default=True,
    help="How long to try blocks, besides the start of the workers.",
)
@storage_option
@weights_options
@json_option
def plan(
    volume: str,
    output: str,
    model: str,
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    device: str,
    devices: tuple[str, ...] | None,
    probabilities: bool,
    uncertainty: bool,
    crf: bool,
    roi: Roi | None,
    mask: str | None,
    level: int,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
    part: tuple[int, int] | None = None,
    fresh: bool = False,
    seconds: float = SECONDS,
    as_json: bool = False,
) -> None:
    """Say what hrvol segment will take: time, memory (a GPU's too), disk. Takes the same options.

    A few blocks are tried for real, with as many workers as are asked for. Nothing is left behind.

    \b
    Examples:
        hrvol plan volume.ome.zarr labels.ome.zarr -m phases.hrvol --workers 8
        hrvol plan volume.ome.zarr labels.ome.zarr -m phases.hrvol --uncertainty --json

    Where memory, disk space or permissions do not suffice, the exit code is 1, and the last line says what
    was found and what is needed. Of an output that is there, unfinished, what is left is planned.
    """  # noqa: D301 (click needs the escape)
    from hrvol.planning.plan import check_resources
    from hrvol.planning.plan_run import plan_run

    if not as_json:
        click.echo(f"trying a few blocks, about {seconds:.0f} s and the start of the workers", err=True)
    with news(), suggest_fresh():
        found = plan_run(
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
            seconds=seconds,
        )
    if as_json:
        echo_json(found.to_dict())
    else:
        echo_plan(found)
    check_resources(found)


def echo_plan(found: Plan) -> None:
    """Print a plan as tables, and what else there is to say about it."""
    from hrvol.planning.plan import size
    from hrvol.progress import count, duration

    def beside(nbytes: int | None) -> str:
        return "not known" if nbytes is None else size(nbytes)

    earlier = f", {found.done} are done" if found.done else ""
    gpu = []
    if found.gpu_needed is not None:
        gpu = [["GPU memory needed", size(found.gpu_needed)], ["  free there", beside(found.gpu_free)]]
    per_block = " x ".join(map(str, found.block_shape))
    rows = [
        ["time", duration(found.seconds)],
        ["  to start", duration(found.start_s)],
        *([["  to check what is done", duration(found.check_s)]] if found.done else []),
        [f"  for {found.blocks} blocks of {per_block}{earlier}", duration(found.segment_s)],
        ["  for the coarser levels", duration(found.pyramid_s)],
        ["  a worker computes a block for", duration(found.block_s)],
        ["voxels", count(found.voxels)],
        ["voxels/s", count(found.voxels_per_s)],
        ["input read", size(found.read)],
        ["  times what is labelled", f"{found.read_amplification:.2f}"],
        ["memory of a worker", size(found.worker_memory)],
        ["memory needed", size(found.memory_needed)],
        [f"  free {found.memory_where}", beside(found.memory_free)],
        *gpu,
        ["output", size(found.output_bytes)],
        ["  free on its disk", beside(found.disk_free)],
        ["files", str(found.files)],
    ]
    echo_table([found.engine, f"{found.workers} worker{'s' * (found.workers > 1)}"], rows)
    if len(found.by_workers) > 1:
        click.echo()
        echo_table(["workers", "time"], [[str(n), duration(seconds)] for n, seconds in found.by_workers])
    for note in found.notes:
        click.echo(note)
