"""The command train: train a pixel classifier on strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.of_strokes import offsets_option, pairs_of, paths_of
from hrvol.cli.common.options import classes_option, train_options
from hrvol.cli.common.output import echo, echo_table, news, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.cli.tune import echo_tuned

if TYPE_CHECKING:
    from hrvol.quality.calibration import Calibration
    from hrvol.training.tuning.tune import TuningResult


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="VOLUME STROKES [VOLUME STROKES ...]")
@click.option("-o", "--output", required=True, metavar="MODEL.hrvol", help="The model file to write.")
@classes_option
@click.option("--seed", type=click.IntRange(0), help="Overrides the recipe's seed (0).")
@click.option("--fresh", is_flag=True, help="Replace a model that exists.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Fit a temperature to the probabilities on held-out strokes; labels stay, training takes longer.",
)
@click.option(
    "--reliability",
    metavar="FILE.png",
    help="With --calibrate: draw how often labels are right against their probability.",
)
@offsets_option
@train_options
@reads("data")
def train(
    data: tuple[str, ...],
    output: str,
    classes: tuple[str, ...] | None,
    seed: int | None,
    fresh: bool,
    calibrate: bool,
    reliability: str | None,
    offsets: tuple[tuple[int, int, int], ...],
    computing: dict[str, Any],
) -> None:
    """Train a pixel classifier on strokes.

    STROKES is an integer image or volume of the same shape as its VOLUME: 0 where nothing is drawn, 1, 2,
    ... for the classes. A few strokes per class on a few planes are enough. Several pairs train one model.
    STROKES may also be a crop (--offset), of Zarr with few chunks, points or shapes (CSV, also of napari;
    GeoJSON), ROIs of ImageJ (*.roi, RoiSet.zip) or an ilastik project (*.ilp, or *.ilp::LANE).

    \b
    Examples:
        hrvol train volume.ome.zarr strokes.tif -o phases.hrvol --classes pore,binder,particle
        hrvol train a.tif a_strokes.tif b.tif b_strokes.tif -o cells.hrvol --recipe fast
        hrvol train volume.zarr strokes.zarr -o quick.hrvol --recipe classical
        hrvol train volume.zarr strokes.zarr -o tuned.hrvol --recipe auto
        hrvol train volume.zarr project.ilp -o cells.hrvol
        hrvol train volume.zarr strokes.zarr -o phases.hrvol --calibrate --reliability phases.png
        hrvol train volume.zarr crop.tif -o cells.hrvol --offset 120,0,512

    --recipe auto chooses one by cross-validation on the strokes in about five minutes, as hrvol tune does.

    Files: Zarr, OME-Zarr (its labels are taken as strokes), TIFF, folders of images, HDF5 and NeXus
    (FILE::/PATH), MRC, NIfTI, NRRD, DICOM, raw files and more.
    """  # noqa: D301 (click needs the escape)
    if reliability is not None and not calibrate:
        raise click.UsageError("--reliability draws what --calibrate measures: give both")
    pairs = pairs_of(data, offsets)
    from hrvol.cli.common.progress import display
    from hrvol.files import MODEL, check_file, check_picture
    from hrvol.segment.model.model import save_model
    from hrvol.training.train import train_model
    from hrvol.volume.guard import file_or_none, keep_inputs

    given = paths_of(pairs)
    for file in filter(None, (output, reliability)):
        keep_inputs(file, *given, file_or_none(computing["recipe"]), computing["weights_path"])
    with suggest_fresh():
        check_file(output, MODEL, fresh)  # before the work, not after it
        if reliability is not None:
            check_picture(reliability, fresh)
    tuned: list[TuningResult] = []
    try:
        with news(), display() as progress:
            model = train_model(
                pairs,
                classes=classes,
                seed=seed,
                **computing,
                calibrate=calibrate,
                on_tuned=tuned.append,
                progress=progress,
            )
    finally:  # not inside display(), which captures standard output; and even if the training fails
        for result in tuned:
            echo_tuned(result)
            echo()
    save_model(model, output)
    counts: dict[int, int] = {}
    for entry in model.trained_on:
        for value, n in entry["samples"].items():
            counts[int(value)] = counts.get(int(value), 0) + n
    rows = [[info.name, str(info.value), str(counts.get(info.value, 0))] for info in model.classes]
    echo_table(["class", "value", "pixels used"], rows)
    if model.calibration is not None:
        _echo_calibration(model.calibration, reliability)
    echo(f"{output}: {len(model.channels)} features, {len(model.classes)} classes")


def _echo_calibration(found: Calibration, picture: str | None) -> None:
    """Print what a calibration does on held-out strokes, and draw it."""
    echo(
        f"calibration: temperature {found.temperature:g}; expected calibration error {found.before.error:.4f}"
        f" before, {found.after.error:.4f} after, on {found.pixels} held-out pixels ({found.held_out})"
    )
    if picture is not None:
        from hrvol.figures.reliability import write_reliability

        write_reliability(picture, found)
        echo(f"{picture}: written")
