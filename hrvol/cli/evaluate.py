"""The command evaluate: compare labels with a ground truth."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.of_strokes import offset_option
from hrvol.cli.common.options import classes_option, json_option, storage_option
from hrvol.cli.common.output import echo, echo_json, echo_table, score
from hrvol.cli.common.reading import reads


@click.command()
@click.argument("pred")
@click.argument("truth")
@click.option(
    "--match",
    is_flag=True,
    help="First match the predicted classes to the true ones, regardless of their numbers.",
)
@classes_option
@offset_option
@storage_option
@json_option
@reads("pred", "truth")
def evaluate(
    pred: str,
    truth: str,
    match: bool,
    classes: tuple[str, ...] | None,
    offset: tuple[int, int, int] | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Compare labels with a ground truth.

    Both are integer volumes or images of one shape. Where TRUTH is 0 nothing is counted. TRUTH may be strokes
    in any form that hrvol train takes, also on a crop (--offset).

    Classes found without labels have arbitrary numbers: --match assigns each to one true class, so that the
    sum of their IoUs is largest, and prints the assignment. A predicted class without a match counts as
    wrong. Purity is the share of voxels whose true class is the most frequent one of their predicted class.

    \b
    Examples:
        hrvol evaluate labels.ome.zarr truth.tif
        hrvol evaluate labels.ome.zarr truth.ome.zarr --json
        hrvol evaluate clusters.ome.zarr truth.tif --match --classes pore,binder,particle
    """  # noqa: D301 (click needs the escape)
    from hrvol.analysis.evaluate import evaluate_volumes
    from hrvol.cli.common.progress import display
    from hrvol.volume.strokes.source import StrokesSource

    with display() as progress:
        figures = evaluate_volumes(
            pred,
            StrokesSource(truth, offset),
            classes=classes,
            match=match,
            storage_options=storage_options,
            progress=progress,
        )
    if as_json:
        echo_json(figures)
        return
    predicted = {name: value for value, name in figures.get("matching", {}).items()}
    rows = [
        [name, *([predicted.get(name, "-")] if match else []), score(iou), score(figures["dice"][name])]
        for (name, iou), predictions in zip(
            figures["iou"].items(), zip(*figures["confusion"], strict=True), strict=True
        )
        if iou is not None or any(predictions)  # label values may have gaps
    ]
    echo_table(["class", *(["predicted"] if match else []), "IoU", "Dice"], rows)
    summary = f"mIoU {score(figures['miou'])}, pixel accuracy {score(figures['accuracy'])}"
    echo(f"{summary}, purity {score(figures['purity'])}" if match else summary)
    unmatched = [value for value, name in figures.get("matching", {}).items() if name is None]
    if unmatched:
        echo(f"predicted classes that match no true class: {', '.join(unmatched)}")
    if figures["unlabelled"]:
        missing = "label, or one that matches no class" if unmatched else "label"
        echo(f"{figures['unlabelled']} voxels have a truth but no {missing}; they count as wrong")
