"""The command clean: remove small components, fill holes, open, close and smooth labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import ENGINE, SCRATCH, STORAGE, bundle, engine_of
from hrvol.cli.common.output import echo, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.run.clean.clean_labels import CleanReport
    from hrvol.run.clean.prepare_cleaning import CleanOptions


def _clean_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> CleanOptions:
    """Return the request of the command; its values by the names of the options."""
    from hrvol.run.clean.prepare_cleaning import CleanOptions

    return CleanOptions(
        values["steps"],
        engine_of(engine, scheduler_file, engine_options, workers),
        values["background"],
        values["name"],
        scratch=values["scratch"],
        overwrite=values["fresh"],
        storage_options=values["storage_options"],
    )


_CLEAN = {
    "steps": click.option(
        "--step",
        "steps",
        multiple=True,
        required=True,
        metavar="STEP",
        help="What to do, in order; may be repeated. See above.",
    ),
    "background": click.option(
        "--background",
        is_flag=True,
        help="0 is the background, a class like others [0 is what was not labelled].",
    ),
    "name": click.option("--name", metavar="NAME", help="Name of the labels, if the image has several."),
    "fresh": click.option("--fresh", is_flag=True, help="Delete an earlier output instead of resuming it."),
}

clean_options = bundle("options", _clean_options, _CLEAN | ENGINE | SCRATCH | STORAGE)


@click.command()
@click.argument("labels", metavar="LABELS")
@click.argument("output", metavar="OUT.ome.zarr")
@clean_options
@reads("labels")
def clean(labels: str, output: str, options: CleanOptions) -> None:
    """Clean labels: remove small components, fill holes, open, close, smooth.

    The result is that of the same steps on the whole array, however large it is. CLASSES are names or numbers
    separated by commas, or all. A SIZE is a volume (500um3; of an image an area, 500um2) or a number of
    voxels, a RADIUS a length (2um) or a number of voxels. Names of several words are quoted.

    \b
    Steps:
        remove CLASSES SIZE [into CLASS]     components smaller than SIZE
        keep-largest CLASSES [into CLASS]    all but the largest component of each class
        fill CLASSES [SIZE]                  what a class encloses (and is smaller than SIZE)
        open CLASSES RADIUS [into CLASS]     parts of a class in which no ball fits
        close CLASSES RADIUS                 gaps of a class in which no ball fits
        majority RADIUS                      the most frequent class of a ball around each voxel

    A stopped or killed run is resumed by the same command.

    \b
    Examples:
        hrvol clean labels.ome.zarr clean.ome.zarr --step "remove pore 500um3" --step "fill particle"
        hrvol clean labels.ome.zarr clean.ome.zarr --step "majority 1" --step "remove all 50" --workers 8
        hrvol clean mask.tif clean.ome.zarr --background --step "open 1 2" --step "keep-largest 1"
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.clean.clean_labels import clean as run_clean

    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = run_clean(labels, output, options, stop, progress)
    _echo(report, output)


def _echo(report: CleanReport, output: str) -> None:
    """Print what the labels hold now; raise an error that names the first failed block, if there is one."""
    from hrvol.errors import BlockError
    from hrvol.progress import count, duration

    if report.failed:
        first = report.failed[0]
        raise BlockError(
            f"{len(report.failed)} blocks failed, {output} is not complete;"
            f" block {first.index}: {first.reason}"
        )
    echo_table(["class", "share"], [[name, f"{100 * part:.2f} %"] for name, part in report.fractions.items()])
    fresh = report.voxels - report.before
    if not fresh:
        echo(f"{output}: is already complete")
        return
    earlier = f", {count(report.before)} by earlier runs" if report.before else ""
    echo(
        f"{output}: {count(fresh)} voxels in {duration(report.seconds)}"
        f" ({count(report.voxels_per_s)} voxels/s){earlier}"
    )
