"""The command similar: find pixels similar to a point."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import bundle, fresh_option, json_option, recipe_compute_options
from hrvol.cli.common.output import echo, echo_json, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.reading.region_text import whole_number


def parse_points(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return points of ``y,x`` or ``z,y,x``."""
    points = []
    for point in value:
        parts = [part.strip() for part in point.split(",")]
        if len(parts) not in (2, 3) or any(whole_number(part) is None for part in parts):
            raise click.BadParameter(f"found {point!r}, expected y,x in pixels (or z,y,x in a stack)")
        points.append(tuple(map(int, parts)))
    return tuple(points)


search_options = bundle(
    "search",
    dict,
    {
        "top": click.option(
            "--top",
            type=click.IntRange(1),
            default=5,
            show_default=True,
            help="Most matches of a point in a target.",
        ),
        "apart": click.option(
            "--apart",
            type=click.IntRange(0),
            help="Pixels between matches [14, or 5 % of the longer side if more].",
        ),
        "planes": click.option(
            "--plane",
            "planes",
            multiple=True,
            type=click.IntRange(0),
            metavar="z",
            help="Plane of stacks to search [the point's]. May be repeated.",
        ),
    },
)


@click.command()
@click.argument("image")
@click.argument("targets", nargs=-1, metavar="[TARGET...]")
@click.option(
    "--at",
    "points",
    multiple=True,
    required=True,
    callback=parse_points,
    metavar="y,x",
    help="The point to search for, in pixels (z,y,x in a stack). May be repeated for keypoints.",
)
@click.option("-o", "--output", metavar="FILE.png", help="Draw the points, similarity maps and matches.")
@json_option
@fresh_option
@search_options
@recipe_compute_options
@reads("image", "targets")
def similar(
    image: str,
    targets: tuple[str, ...],
    points: tuple[tuple[int, ...], ...],
    output: str | None,
    search: dict[str, Any],
    as_json: bool,
    fresh: bool,
    computing: dict[str, Any],
) -> None:
    """Find pixels similar to a point of IMAGE, in it or in others.

    The network's features at the point are compared with those of every pixel of each TARGET (IMAGE itself
    without any). The cosine similarity is 1 for equal features. The picture shows the map of the first
    point, red for similar; further points are keypoints, with their best match each. Without --recipe the
    features are those of the preset deep, less their positional component.

    \b
    Examples:
        hrvol similar cell.tif --at 120,340 -o alike.png
        hrvol similar a.tif b.tif c.tif --at 120,340 --at 60,80 -o alike.png
        hrvol similar volume.ome.zarr --at 12,120,340 --plane 12 --plane 40 -o alike.png
        hrvol similar cell.tif other.tif --at 120,340 --top 10 --json
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.explore.similar import find_similar

    with news(), suggest_fresh(), display() as progress:
        result = find_similar(
            image,
            points,
            targets,
            **search,
            picture=output,
            overwrite=fresh,
            **computing,
            progress=progress,
        )
    if as_json:
        echo_json(result.to_dict())
        return
    rows = [
        [target.name, *map(str, (number, rank, match.y, match.x)), f"{match.similarity:.3f}"]
        for target in result.targets
        for number, matches in enumerate(target.matches, start=1)
        for rank, match in enumerate(matches, start=1)
    ]
    echo_table(["target", "point", "rank", "y", "x", "similarity"], rows)
    if output is not None:
        echo(f"picture: {output}")
