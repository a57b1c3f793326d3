"""The command instances: separate the touching objects of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import ENGINE, SCRATCH, STORAGE, bundle, engine_of
from hrvol.cli.common.output import echo, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.run.instances.prepare_instances import InstanceOptions
    from hrvol.run.instances.separate_instances import InstanceReport


def _instance_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> InstanceOptions:
    """Return the request of the command; its values by the names of the options."""
    from hrvol.run.instances.prepare_instances import InstanceOptions

    values["overwrite"] = values.pop("fresh")
    return InstanceOptions(engine=engine_of(engine, scheduler_file, engine_options, workers), **values)


_INSTANCES = {
    "classes": click.option(
        "--class",
        "classes",
        multiple=True,
        required=True,
        metavar="NAME",
        help="Class whose objects are separated, by name or number; may be repeated. 'all': each class.",
    ),
    "depth": click.option(
        "--depth",
        default="30%",
        show_default=True,
        metavar="DEPTH",
        help="How far an object rises above the neck to a thicker one: part of its own radius (30%), a length"
        " (0.5um) or voxels. Larger depths separate less.",
    ),
    "largest": click.option(
        "--largest",
        metavar="LENGTH",
        help="Diameter from which on all is equally thick, 40um or voxels: limits what is read around blocks"
        " [256 voxels].",
    ),
    "min_size": click.option(
        "--min-size", metavar="SIZE", help="Remove smaller objects: 500um3 (of an image 500um2) or voxels."
    ),
    "border": click.option(
        "--border/--no-border", default=True, help="Keep objects that reach a border of the volume [keep]."
    ),
    "landscape": click.option(
        "--landscape",
        type=click.Choice(["distance", "probability"]),
        default="distance",
        show_default=True,
        help="What separates: the distance to the border of the class, or its probability.",
    ),
    "probabilities": click.option(
        "--probabilities", metavar="RUN", help="Output that has the probabilities, if LABELS has none."
    ),
    "name": click.option("--name", metavar="NAME", help="Name of the labels, if the image has several."),
    "fresh": click.option("--fresh", is_flag=True, help="Delete an earlier output instead of resuming it."),
}

instance_options = bundle("options", _instance_options, _INSTANCES | ENGINE | SCRATCH | STORAGE)


@click.command()
@click.argument("labels", metavar="LABELS")
@click.argument("output", metavar="OUT.ome.zarr")
@instance_options
@reads("labels")
def instances(labels: str, output: str, options: InstanceOptions) -> None:
    """Separate touching objects: particles, fibres, cells.

    Writes the number of each voxel's object. An object has a peak of the distance to the border of its class;
    where two objects touch, the narrowest place between their peaks divides them. The result is that of the
    whole array, however large it is. A stopped or killed run is resumed by the same command.

    \b
    Examples:
        hrvol instances labels.ome.zarr particles.ome.zarr --class particle
        hrvol instances labels.ome.zarr particles.ome.zarr --class particle --depth 0.5um --min-size 20um3
        hrvol instances mask.tif cells.ome.zarr --class 1 --no-border --workers 8
        hrvol measure particles.ome.zarr -o particles
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.instances.separate_instances import separate

    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = separate(labels, output, options, stop, progress)
    _echo(report, output)


def _echo(report: InstanceReport, output: str) -> None:
    """Print the number of objects; raise an error that names the first failed block, if there is one."""
    from hrvol.errors import BlockError
    from hrvol.progress import count, duration

    if report.failed:
        first = report.failed[0]
        raise BlockError(
            f"{len(report.failed)} blocks failed, {output} is not complete;"
            f" block {first.index}: {first.reason}"
        )
    echo_table(["class", "objects"], [[name, f"{number:,}"] for name, number in report.objects.items()])
    fresh = report.voxels - report.before
    if not fresh:
        echo(f"{output}: is already complete")
        return
    earlier = f", {count(report.before)} by earlier runs" if report.before else ""
    echo(
        f"{output}: {count(fresh)} voxels in {duration(report.seconds)}"
        f" ({count(report.voxels_per_s)} voxels/s){earlier}"
    )
