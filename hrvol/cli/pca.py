"""The command pca: draw features as colours."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import fresh_option, recipe_compute_options
from hrvol.cli.common.output import echo, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.reading.region_text import whole_number


def parse_planes(ctx: click.Context, param: click.Parameter, value: str) -> int | tuple[int, ...]:
    """Parse a number of planes, or a comma-separated list of planes: ``0,`` is plane 0."""
    parts = [part.strip() for part in value.split(",")]
    several = len(parts) > 1
    if several and not parts[-1]:
        parts = parts[:-1]
    numbers = tuple(number for part in parts if (number := whole_number(part)) is not None)
    if len(numbers) != len(parts) or not (several or numbers[0]):
        raise click.BadParameter(
            f"found {value!r}, expected how many planes, or a list with commas between ('0,' is plane 0)"
        )
    return numbers if several else numbers[0]


@click.command()
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option("-o", "--output", required=True, metavar="FILE.png", help="The picture to write.")
@click.option(
    "--planes",
    default="4",
    show_default=True,
    callback=parse_planes,
    metavar="N|a,b,c",
    help="Number of planes of each volume, evenly spaced, or a list of planes ('0,' is plane 0).",
)
@click.option("--attention", is_flag=True, help="Also draw the attention of the network's CLS token.")
@fresh_option
@recipe_compute_options
@reads("volumes")
def pca(
    volumes: tuple[str, ...],
    output: str,
    planes: int | tuple[int, ...],
    attention: bool,
    fresh: bool,
    computing: dict[str, Any],
) -> None:
    """Draw features as colours: three principal components as red, green and blue.

    The components are fitted once, on a sample of all the volumes, so a colour means the same in every
    plane of every volume of the picture. Attention is in units of what uniform attention would give.
    Without --recipe the features are those of the preset deep, less their positional component.

    \b
    Examples:
        hrvol pca image.tif -o features.png --attention
        hrvol pca volume.ome.zarr -o features.png --planes 6
        hrvol pca before.ome.zarr after.ome.zarr -o both.png --planes 10,200
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.explore.pca import pca_picture

    with news(), suggest_fresh(), display() as progress:
        report = pca_picture(
            volumes,
            output,
            planes=planes,
            attention=attention,
            overwrite=fresh,
            **computing,
            progress=progress,
        )
    rows = [
        [colour, f"{100 * share:.1f} %"]
        for colour, share in zip(("red", "green", "blue"), report.explained, strict=True)
    ]
    echo_table(["component", "variance"], rows)
    number = len(report.planes)
    echo(f"{report.picture}: {number} plane{'' if number == 1 else 's'}")
