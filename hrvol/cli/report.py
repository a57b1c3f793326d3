"""The command report: one HTML page about an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import bundle, fresh_option, json_option, storage_option
from hrvol.cli.common.output import echo, echo_json, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.report.options import ReportOptions


def _report_options(**values: Any) -> ReportOptions:
    """Return the request of the command; its values by the names of the options."""
    from hrvol.report.options import ReportOptions

    return ReportOptions(**values)


_REPORT = {
    "volume": click.option(
        "--volume",
        metavar="VOLUME",
        help="The grey volume [the recorded input, if it is here and unchanged].",
    ),
    "model": click.option(
        "-m",
        "--model",
        metavar="FILE",
        help="The model's file [the recorded one, if it is here and unchanged].",
    ),
    "measurement": click.option(
        "--measure",
        "measurement",
        metavar="FOLDER|FILE",
        help="Results of hrvol measure, for intervals and sizes: the folder, or its table of components.",
    ),
    "truth": click.option("--truth", metavar="TRUTH", help="Ground truth, for confusion and IoU."),
    "surfaces": click.option(
        "--surface",
        "surfaces",
        multiple=True,
        metavar="CLASS",
        help="Class (name or number) whose surface is drawn in 3D; may be repeated [the rarest].",
    ),
    "title": click.option("--title", metavar="TEXT", help="Title of the page [name of the output]."),
    "seed": click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws of intervals."
    ),
}

report_options = bundle("options", _report_options, _REPORT)


@click.command()
@click.argument("store", metavar="OUT.ome.zarr")
@click.option("-o", "--output", required=True, metavar="FILE.html", help="Write the page to this file.")
@report_options
@fresh_option
@storage_option
@json_option
@reads("options.volume", "options.truth")
def report(
    store: str,
    output: str,
    options: ReportOptions,
    fresh: bool,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Write a report about an output of segment, cluster or clean: one HTML file that needs no network.

    It shows slices, a montage and surfaces, fractions with intervals, uncertainty with the planes to annotate
    next, agreement with a truth (--truth), sizes (--measure), and how the output was made. An unfinished
    output is reported as far as it is done. FILE.json and FILE-fractions.csv get the same figures.

    \b
    Examples:
        hrvol report labels.ome.zarr -o report.html
        hrvol report labels.ome.zarr -o report.html --measure measures --truth truth.tif
        hrvol report labels.ome.zarr -o report.html --volume scan.tif --surface pore --title "Sandstone 4"
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.progress import format_size
    from hrvol.report.write_report import report as run_report

    with suggest_fresh(), display() as progress:
        files = run_report(store, output, options, fresh, storage_options, progress)
    if as_json:
        echo_json(files.values)
        return
    echo(f"{files.page}: {format_size(files.page.stat().st_size)}, state {files.values['status']['state']}")
    echo(f"{files.figures}, {files.table}: the same figures")
