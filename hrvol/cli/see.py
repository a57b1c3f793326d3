"""Commands that look at images without labels: detect, similar, pca."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrvol.cli.options import (
    cluster_options,
    crf_option,
    device_option,
    echo_json,
    echo_table,
    json_option,
    news,
    one_way_to_merge,
    recipe_option,
    suggest_fresh,
    weights_options,
)
from hrvol.errors import HrvolError, WeightsError

if TYPE_CHECKING:
    from hrvol.run.detect import Detection
    from hrvol.run.progress import ProgressCallback

fresh_option = click.option("--fresh", is_flag=True, help="Replace earlier files.")


def parse_points(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return points of ``y,x`` or ``z,y,x``."""
    points = []
    for point in value:
        parts = [part.strip() for part in point.split(",")]
        if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
            raise click.BadParameter(f"found {point!r}, expected y,x in pixels (or z,y,x in a stack)")
        points.append(tuple(map(int, parts)))
    return tuple(points)


def parse_planes(ctx: click.Context, param: click.Parameter, value: str) -> int | tuple[int, ...]:
    """Return a number of planes, or the planes of a list with commas: ``0,`` is plane 0."""
    parts = [part.strip() for part in value.split(",")]
    several = len(parts) > 1
    if several and not parts[-1]:
        parts = parts[:-1]
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(numbers) != len(parts) or not (several or numbers[0]):
        raise click.BadParameter(
            f"found {value!r}, expected how many planes, or which, with commas between ('0,' is plane 0)"
        )
    return numbers if several else numbers[0]


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o", "--output", metavar="DIR", help="Write NAME.png and NAME_foreground.tif for each image here."
)
@click.option("--plane", type=click.IntRange(0), metavar="z", help="Which plane of a stack.")
@recipe_option
@cluster_options
@click.option("--single", is_flag=True, help="One box only, around the largest piece of foreground.")
@crf_option
@json_option
@fresh_option
@device_option
@weights_options
def detect(
    images: tuple[str, ...],
    output: str | None,
    plane: int | None,
    recipe: str | None,
    clusters: int | None,
    merge: float | None,
    classes: int | None,
    single: bool,
    min_size: int,
    crf: bool,
    seed: int | None,
    as_json: bool,
    fresh: bool,
    device: str,
    weights_path: str | None,
    offline: bool,
) -> None:
    """Box the objects of images, where nothing is drawn.

    Each image is looked at by itself: its classes are found as by hrvol cluster, those that the network
    attends to are its foreground, and each connected piece of a foreground class gets a box. The superbox
    is around the largest piece of all foreground together. Without --recipe the features are those of the
    preset cas, or cas-volume for an image larger than one tile. A stack of planes needs --plane; hrvol
    cluster labels and boxes a whole volume.

    \b
    Examples:
        hrvol detect image.tif
        hrvol detect *.tif -o boxes --classes 3
        hrvol detect stack.ome.zarr --plane 40 --merge 1.1 -o boxes
        hrvol detect image.tif --single --json

    With --json each image is one line. An image that fails does not end the run: it is named at the end,
    and the exit code is 1.
    """  # noqa: D301 (click needs the escape)
    one_way_to_merge(merge, classes)
    from hrvol.run.detect import detect_objects, detection_files, detection_recipe, write_detection
    from hrvol.run.devices import choose
    from hrvol.run.progress import display

    detection_recipe(recipe, clusters, merge, classes, crf, seed)  # before any image is looked at
    with suggest_fresh():
        files = {} if output is None else detection_files(images, output, overwrite=fresh)
    choice = choose(device)
    click.echo(str(choice), err=True)  # once, not for each image
    failed: list[HrvolError | OSError] = []
    named = list(dict.fromkeys(images))
    for image in named:
        try:
            with display() as progress:
                found = detect_objects(
                    image,
                    plane=plane,
                    recipe=recipe,
                    clusters=clusters,
                    merge=merge,
                    classes=classes,
                    single=single,
                    min_size=min_size,
                    crf=crf,
                    seed=seed,
                    device=choice.device,
                    weights_path=weights_path,
                    offline=offline,
                    progress=progress if len(named) == 1 else _named(progress, Path(image).name),
                )
            if image in files:
                write_detection(found, files[image])
        except WeightsError:  # not the image's fault: the next would fail as well
            raise
        except (HrvolError, OSError) as error:
            if len(named) == 1:
                raise
            failed.append(error)
            continue
        # Not inside display(), which takes over what is printed.
        if as_json:
            click.echo(json.dumps(found.to_dict()))
        else:
            _echo_detection(found)
            if image in files:
                click.echo(f"picture: {files[image].picture}\nforeground: {files[image].mask}")
    if failed:
        for reason in failed:
            click.echo(f"failed: {reason}", err=True)
        raise HrvolError(f"{len(failed)} of {len(named)} images failed; the first: {failed[0]}")


def _named(progress: ProgressCallback, image: str) -> ProgressCallback:
    return lambda stage, done, total: progress(f"{image}: {stage}", done, total)


def _echo_detection(found: Detection) -> None:
    """Print what was found in an image, and a table of its boxes."""
    said = found.to_dict()
    share = f"{100 * said['foreground_share']:.1f} %"
    number, front = said["classes"], len(said["foreground"])
    click.echo(
        f"{said['image']}: {number} class{'' if number == 1 else 'es'}, {front} in the foreground,"
        f" which is {share} of the image"
    )
    if said["boxes"]:
        rows = [
            [
                "superbox" if box["superbox"] else box["name"],
                *(str(box[field]) for field in ("size", "y0", "x0", "y1", "x1")),
            ]
            for box in said["boxes"]
        ]
        echo_table(["box", "pixels", "y0", "x0", "y1", "x1"], rows)
    else:
        click.echo("no object: nothing stands out")


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
    help="The point to look for, in pixels (z,y,x in a stack). Again for keypoints to follow.",
)
@click.option("-o", "--output", metavar="FILE.png", help="Draw the points, similarity maps and matches.")
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Matches of a point in a target."
)
@click.option(
    "--apart", type=click.IntRange(0), help="Pixels between matches [14, or 5 % of the longer side if more]."
)
@click.option(
    "--plane",
    "planes",
    multiple=True,
    type=click.IntRange(0),
    metavar="z",
    help="Which plane of stacks to search [the point's]. May be given again.",
)
@recipe_option
@json_option
@fresh_option
@device_option
@weights_options
def similar(
    image: str,
    targets: tuple[str, ...],
    points: tuple[tuple[int, ...], ...],
    output: str | None,
    top: int,
    apart: int | None,
    planes: tuple[int, ...],
    recipe: str | None,
    as_json: bool,
    fresh: bool,
    device: str,
    weights_path: str | None,
    offline: bool,
) -> None:
    """Find what looks like a point of IMAGE, in it or in others.

    The network's features at the point are compared with those of every pixel of each TARGET (IMAGE itself
    if there is none). The similarity is the cosine of the angle between them: 1 is alike. The picture shows
    the map of the first point, red for similar; further points are keypoints, with their best match each.
    Without --recipe the features are those of the preset deep, less what they say of the place in the image.

    \b
    Examples:
        hrvol similar cell.tif --at 120,340 -o alike.png
        hrvol similar a.tif b.tif c.tif --at 120,340 --at 60,80 -o alike.png
        hrvol similar volume.ome.zarr --at 12,120,340 --plane 12 --plane 40 -o alike.png
        hrvol similar cell.tif other.tif --at 120,340 --top 10 --json
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.progress import display
    from hrvol.run.similar import find_similar

    with news(), suggest_fresh(), display() as progress:
        found = find_similar(
            image,
            points,
            targets,
            planes=planes,
            top=top,
            apart=apart,
            picture=output,
            overwrite=fresh,
            recipe=recipe,
            device=device,
            weights_path=weights_path,
            offline=offline,
            progress=progress,
        )
    if as_json:
        echo_json(found.to_dict())
        return
    rows = [
        [target.name, *map(str, (number, rank, match.y, match.x)), f"{match.similarity:.3f}"]
        for target in found.targets
        for number, matches in enumerate(target.matches, start=1)
        for rank, match in enumerate(matches, start=1)
    ]
    echo_table(["target", "point", "rank", "y", "x", "similarity"], rows)
    if output is not None:
        click.echo(f"picture: {output}")


@click.command()
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option("-o", "--output", required=True, metavar="FILE.png", help="The picture to write.")
@click.option(
    "--planes",
    default="4",
    show_default=True,
    callback=parse_planes,
    metavar="N|a,b,c",
    help="How many planes of each volume, evenly spaced, or which ('0,' is plane 0).",
)
@click.option("--attention", is_flag=True, help="Also draw where the network's CLS token looks.")
@recipe_option
@fresh_option
@device_option
@weights_options
def pca(
    volumes: tuple[str, ...],
    output: str,
    planes: int | tuple[int, ...],
    attention: bool,
    recipe: str | None,
    fresh: bool,
    device: str,
    weights_path: str | None,
    offline: bool,
) -> None:
    """Draw features as colours: three principal components as red, green and blue.

    The components are fitted once, on a sample of all the volumes, so a colour means the same in every
    plane of every volume of the picture. Attention is in units of what uniform attention would give.
    Without --recipe the features are those of the preset deep, less what they say of the place in the image.

    \b
    Examples:
        hrvol pca image.tif -o features.png --attention
        hrvol pca volume.ome.zarr -o features.png --planes 6
        hrvol pca before.ome.zarr after.ome.zarr -o both.png --planes 10,200
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.pca import pca_picture
    from hrvol.run.progress import display

    with news(), suggest_fresh(), display() as progress:
        report = pca_picture(
            volumes,
            output,
            planes=planes,
            attention=attention,
            recipe=recipe,
            overwrite=fresh,
            device=device,
            weights_path=weights_path,
            offline=offline,
            progress=progress,
        )
    rows = [
        [colour, f"{100 * share:.1f} %"]
        for colour, share in zip(("red", "green", "blue"), report.explained, strict=True)
    ]
    echo_table(["component", "variance"], rows)
    number = len(report.planes)
    click.echo(f"{report.picture}: {number} plane{'' if number == 1 else 's'}")
