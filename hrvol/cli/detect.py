"""The command detect: box the objects of images without strokes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hrvol.cli.options import (
    cluster_options,
    crf_option,
    device_option,
    echo_table,
    fresh_option,
    json_option,
    one_way_to_merge,
    recipe_option,
    suggest_fresh,
    weights_options,
)
from hrvol.errors import HrvolError, WeightsError

if TYPE_CHECKING:
    from hrvol.explore.detect import Detection


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
    from hrvol.cli.progress import display
    from hrvol.device import choose_device
    from hrvol.explore.detect import detect_objects, detection_files, detection_recipe, write_detection
    from hrvol.progress import renamed

    detection_recipe(recipe, clusters, merge, classes, crf, seed)  # before any image is looked at
    with suggest_fresh():
        files = {} if output is None else detection_files(images, output, overwrite=fresh)
    choice = choose_device(device)
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
                    progress=progress
                    if len(named) == 1
                    else renamed(progress, prefix=f"{Path(image).name}: "),
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
