"""The command features: store the features of a region."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.options import (
    Roi,
    device_option,
    news,
    recipe_option,
    roi_option,
    storage_option,
    suggest_fresh,
    weights_options,
)


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.zarr")
@recipe_option
@click.option("--components", type=click.IntRange(1), help="Principal components to keep [16].")
@click.option("--full", is_flag=True, help="Keep every channel (hundreds; mind the size).")
@click.option("--attention", is_flag=True, help="Add the CLS attention of each head of the network.")
@roi_option
@click.option("--fresh", is_flag=True, help="Replace an output that exists.")
@device_option
@storage_option
@weights_options
def features(
    volume: str,
    output: str,
    recipe: str | None,
    components: int | None,
    full: bool,
    attention: bool,
    roi: Roi | None,
    fresh: bool,
    device: str,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
) -> None:
    """Store the features of a region, reduced by a PCA.

    Writes one Zarr array (channel, z, y, x), or (channel, y, x) for an image. The PCA is fitted once, on
    pixels spread over the region.

    \b
    Examples:
        hrvol features volume.ome.zarr features.zarr --roi 40:44,0:512,0:512 --components 8
        hrvol features image.tif features.zarr --recipe deep --full --attention
    """  # noqa: D301 (click needs the escape)
    if full and components is not None:
        raise click.UsageError("--full keeps every channel and --components some: choose one")
    from hrvol.cli.progress import display
    from hrvol.run.extract_features import extract_features

    with news(), suggest_fresh(), display() as progress:
        report = extract_features(
            volume,
            output,
            recipe=recipe,
            components=components,
            full=full,
            attention=attention,
            roi=roi,
            overwrite=fresh,
            device=device,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            progress=progress,
        )
    kept = f", {100 * report.explained:.1f} % of the variance" if report.explained is not None else ""
    click.echo(f"{output}: shape {'x'.join(map(str, report.shape))}{kept}")
