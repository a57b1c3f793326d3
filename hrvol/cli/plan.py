"""The command plan: estimate the cost of a run before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.common.options import json_option, plan_options
from hrvol.cli.common.output import echo, echo_json, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.planning.plan import Plan
    from hrvol.run.options import RunOptions
    from hrvol.segment.model.model import Model

SECONDS = 30.0


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@click.option("-m", "--model", required=True, metavar="MODEL.hrvol", help="A model made by hrvol train.")
@plan_options
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=SECONDS,
    show_default=True,
    help="Length of the probe, besides the start of the workers.",
)
@json_option
@reads("volume", "options.input.mask")
def plan(volume: str, output: str, model: str, options: RunOptions, seconds: float, as_json: bool) -> None:
    """Estimate the time, memory (also of a GPU) and disk space of hrvol segment. Takes the same options.

    A few blocks are computed as a probe, with the requested number of workers. Nothing is left on the disk.
    Beside it stands what a student of the model would cost (hrvol distil), estimated from one of random
    weights.

    \b
    Examples:
        hrvol plan volume.ome.zarr labels.ome.zarr -m phases.hrvol --workers 8
        hrvol plan volume.ome.zarr labels.ome.zarr -m phases.hrvol --uncertainty --json

    If memory, disk space or permissions do not suffice, the exit code is 1, and the last line reports what
    was found and what is needed. For an unfinished output, the estimate is of the remaining blocks.
    """  # noqa: D301 (click needs the escape)
    show_plan(volume, output, model, options, seconds, as_json)


def show_plan(
    volume: str, output: str, model: str | Model, options: RunOptions, seconds: float, as_json: bool
) -> None:
    """Plan a run and print it; raise :class:`hrvol.errors.ResourceError` if the resources do not suffice."""
    from hrvol.planning.plan import check_resources
    from hrvol.planning.plan_run import plan as estimate_run

    if not as_json:
        echo(f"computing a few blocks for about {seconds:.0f} s, besides the start of the workers", err=True)
    with news(), suggest_fresh():
        estimated = estimate_run(volume, output, model, options, seconds)
    if as_json:
        echo_json(estimated.to_dict())
    else:
        echo_plan(estimated)
    check_resources(estimated)


def echo_plan(plan: Plan) -> None:
    """Print a plan as tables, and its notes."""
    from hrvol.progress import count, duration, format_size

    def or_unknown(nbytes: int | None) -> str:
        return "unknown" if nbytes is None else format_size(nbytes)

    earlier = f", {plan.done} done" if plan.done else ""
    gpu = []
    if plan.gpu_needed is not None:
        gpu = [
            ["GPU memory needed", format_size(plan.gpu_needed)],
            ["  free there", or_unknown(plan.gpu_free)],
        ]
    decoding = []
    if plan.decodes:
        where = "in memory" if plan.scratch is None else f"in {plan.scratch}"
        decoding = [
            ["  times a chunk is decoded", f"{plan.decodes:.2f}"],
            [f"  kept by a worker {where}", format_size(plan.cache)],
        ]
    per_block = " x ".join(map(str, plan.block_shape))
    rows = [
        ["time", duration(plan.seconds)],
        ["  to start", duration(plan.start_s)],
        *([["  to check what is done", duration(plan.check_s)]] if plan.done else []),
        [f"  for {plan.blocks} blocks of {per_block}{earlier}", duration(plan.segment_s)],
        ["  for the coarser levels", duration(plan.pyramid_s)],
        ["  for a block on a worker", duration(plan.block_s)],
        ["voxels", count(plan.voxels)],
        ["voxels/s", count(plan.voxels_per_s)],
        ["input read", format_size(plan.read)],
        ["  times the labelled voxels", f"{plan.read_amplification:.2f}"],
        *decoding,
        ["memory of a worker", format_size(plan.worker_memory)],
        ["memory needed", format_size(plan.memory_needed)],
        [f"  free {plan.memory_where}", or_unknown(plan.memory_free)],
        *gpu,
        ["output", format_size(plan.output_bytes)],
        ["  free on its disk", or_unknown(plan.disk_free)],
        ["files", str(plan.files)],
    ]
    echo_table([plan.engine, f"{plan.workers} worker{'s' * (plan.workers > 1)}"], rows)
    if len(plan.by_workers) > 1:
        echo()
        echo_table(["workers", "time"], [[str(n), duration(seconds)] for n, seconds in plan.by_workers])
    if plan.students:
        echo()
        echo_students(plan)
    for note in plan.notes:
        echo(note)


def echo_students(plan: Plan) -> None:
    """Print what students of the model would cost."""
    from hrvol.progress import duration, format_size

    columns = [
        (
            duration(student.seconds),
            duration(student.distil_s),
            format_size(student.worker_memory),
            f"{student.kflop:.0f}",
        )
        for student in plan.students
    ]
    names = ("time, about", "  before that: to distil it", "memory of a worker", "kFLOP a voxel")
    rows = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    echo_table(["with a student, estimated", *(student.size for student in plan.students)], rows)
