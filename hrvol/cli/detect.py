"""The command detect: box the objects of images without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import (
    bundle,
    compute_options,
    crf_option,
    finding_options,
    fresh_option,
    json_option,
    min_size_option,
)
from hrvol.cli.common.output import echo, echo_table, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.errors import HrvolError, WeightsError

if TYPE_CHECKING:
    from hrvol.run.options import ClusterOptions


object_options = bundle(
    "objects",
    dict,
    {
        "plane": click.option("--plane", type=click.IntRange(0), metavar="z", help="Which plane of a stack."),
        "single": click.option(
            "--single", is_flag=True, help="One box only, around the largest piece of foreground."
        ),
        "min_size": min_size_option,
        "crf": crf_option,
    },
)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o", "--output", metavar="DIR", help="Write NAME.png and NAME_foreground.tif for each image here."
)
@finding_options
@object_options
@json_option
@fresh_option
@compute_options
@reads("images")
def detect(
    images: tuple[str, ...],
    output: str | None,
    finding: ClusterOptions,
    objects: dict[str, Any],
    as_json: bool,
    fresh: bool,
    computing: dict[str, Any],
) -> None:
    """Box the objects of images, without strokes.

    Each image is processed on its own: its classes are found as by hrvol cluster, those with high attention
    are its foreground, and each connected piece of a foreground class gets a box. The superbox is around the
    largest connected piece of the whole foreground. Without --recipe the features are those of the preset
    cas, or cas-volume for an image larger than one tile. A stack of planes needs --plane; hrvol cluster
    labels and boxes a whole volume.

    \b
    Examples:
        hrvol detect image.tif
        hrvol detect *.tif -o boxes --classes 3
        hrvol detect stack.ome.zarr --plane 40 --merge 1.1 -o boxes
        hrvol detect image.tif --single --json

    With --json each image is one line. An image that fails does not end the run: it is reported at the
    end, and the exit code is 1.
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.device import choose_device
    from hrvol.explore.detect import detect_objects, detection_files, detection_recipe, write_detection
    from hrvol.progress import renamed
    from hrvol.volume.guard import file_or_none

    detection_recipe(crf=objects["crf"], **vars(finding))  # checked before any image is read
    with suggest_fresh():
        files = (
            {}
            if output is None
            else detection_files(
                images,
                output,
                overwrite=fresh,
                others=(file_or_none(finding.recipe), computing["weights_path"]),
            )
        )
    choice = choose_device(computing["device"])
    echo(str(choice), err=True)  # once, not for each image
    failed: list[HrvolError | OSError] = []
    distinct = list(dict.fromkeys(images))
    for image in distinct:
        try:
            with display() as progress:
                detection = detect_objects(
                    image,
                    **objects,
                    **vars(finding),
                    **computing | {"device": choice.device},
                    progress=progress
                    if len(distinct) == 1
                    else renamed(progress, prefix=f"{Path(image).name}: "),
                )
            if image in files:
                write_detection(detection, files[image])
        except WeightsError:  # all other images would fail as well
            raise
        except (HrvolError, OSError) as error:
            if len(distinct) == 1:
                raise
            failed.append(error)
            continue
        # Not inside display(), which captures standard output.
        if as_json:
            click.echo(json.dumps(detection.to_dict()))
        else:
            _echo_detection(detection.to_dict())
            if image in files:
                echo(f"picture: {files[image].picture}")
                echo(f"foreground: {files[image].mask}")
    if failed:
        for reason in failed:
            echo(f"failed: {reason}", err=True)
        raise HrvolError(f"{len(failed)} of {len(distinct)} images failed; the first: {failed[0]}")


def _echo_detection(values: dict[str, Any]) -> None:
    """Print the classes and foreground of an image, and a table of its boxes."""
    share = f"{100 * values['foreground_share']:.1f} %"
    classes, foreground = values["classes"], len(values["foreground"])
    echo(
        f"{values['image']}: {classes} class{'' if classes == 1 else 'es'}, {foreground} in the foreground,"
        f" which is {share} of the image"
    )
    if values["boxes"]:
        rows = [
            [
                "superbox" if box["superbox"] else box["name"],
                *(str(box[field]) for field in ("size", "y0", "x0", "y1", "x1")),
            ]
            for box in values["boxes"]
        ]
        echo_table(["box", "pixels", "y0", "x0", "y1", "x1"], rows)
    else:
        echo("no objects found")
