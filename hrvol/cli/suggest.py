"""The command suggest: where to draw next."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import fresh_option, json_option, recipe_compute_options
from hrvol.cli.common.output import echo, echo_json, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads


@click.command()
@click.argument("volume")
@click.argument("strokes")
@click.option(
    "-n", "--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="Number of places."
)
@click.option(
    "--tiles",
    type=click.IntRange(1, 10_000),
    default=48,
    show_default=True,
    help="Tiles of the volume to look at, spread over it.",
)
@click.option("-o", "--output", metavar="FILE.csv", help="Write the places as a table.")
@click.option("--picture", metavar="FILE.png", help="Draw the windows around the places.")
@json_option
@fresh_option
@recipe_compute_options
@reads("volume", "strokes")
def suggest(
    volume: str,
    strokes: str,
    count: int,
    tiles: int,
    output: str | None,
    picture: str | None,
    as_json: bool,
    fresh: bool,
    computing: dict[str, Any],
) -> None:
    """Suggest where to draw next: places of VOLUME that STROKES teach least about.

    A quick classifier of the strokes is applied to tiles that are spread over the volume. A place stands for
    many uncertain pixels unlike what is drawn, and the places differ from each other: the best first. The
    window is what to look at around it. Without --recipe the features are those of the preset fast.

    \b
    Examples:
        hrvol suggest volume.ome.zarr strokes.ome.zarr
        hrvol suggest volume.ome.zarr strokes.tif -n 5 --picture next.png -o next.csv
        hrvol suggest volume.ome.zarr strokes.tif --tiles 200 --recipe balanced --json
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.interactive.suggest import suggest_places, to_dict

    with news(), suggest_fresh(), display() as progress:
        found = suggest_places(
            volume,
            strokes,
            count=count,
            tiles=tiles,
            table=output,
            picture=picture,
            overwrite=fresh,
            **computing,
            progress=progress,
        )
    if as_json:
        echo_json(to_dict(found))
        return
    rows = [
        [
            str(rank),
            *map(str, (one.z, one.y, one.x)),
            *(f"{start}:{stop}" for start, stop in (one.rows, one.columns)),
            f"{one.uncertainty:.2f}",
        ]
        for rank, one in enumerate(found, start=1)
    ]
    echo_table(["place", "z", "y", "x", "rows", "columns", "uncertainty"], rows)
    for file in (output, picture):
        if file is not None:
            echo(file)
