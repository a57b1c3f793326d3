"""The command features: store the features of a region."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import SCRATCH, bundle, recipe_compute_options, roi_option
from hrvol.cli.common.output import echo, news, suggest_fresh
from hrvol.cli.common.reading import reads

kept_options = bundle(
    "kept",
    dict,
    {
        "components": click.option(
            "--components", type=click.IntRange(1), help="Principal components to keep [16]."
        ),
        "full": click.option("--full", is_flag=True, help="Keep every channel (hundreds; mind the size)."),
        "attention": click.option(
            "--attention", is_flag=True, help="Add the CLS attention of each head of the network."
        ),
        "roi": roi_option,
        **SCRATCH,
    },
)


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.zarr")
@click.option("--fresh", is_flag=True, help="Replace an output that exists.")
@kept_options
@recipe_compute_options
@reads("volume")
def features(
    volume: str,
    output: str,
    kept: dict[str, Any],
    fresh: bool,
    computing: dict[str, Any],
) -> None:
    """Store the features of a region, reduced by a PCA.

    Writes one Zarr array (channel, z, y, x), or (channel, y, x) for an image. The PCA is fitted once, on
    pixels spread over the region.

    \b
    Examples:
        hrvol features volume.ome.zarr features.zarr --roi 40:44,0:512,0:512 --components 8
        hrvol features image.tif features.zarr --recipe deep --full --attention
    """  # noqa: D301 (click needs the escape)
    if kept["full"] and kept["components"] is not None:
        raise click.UsageError("--full keeps every channel and --components some: choose one")
    from hrvol.cli.common.progress import display
    from hrvol.run.extract_features import extract_features

    with news(), suggest_fresh(), display() as progress:
        report = extract_features(
            volume,
            output,
            **kept,
            overwrite=fresh,
            **computing,
            progress=progress,
        )
    variance = f", {100 * report.explained:.1f} % of the variance" if report.explained is not None else ""
    echo(f"{output}: shape {'x'.join(map(str, report.shape))}{variance}")
