"""Commands that compute: train, segment, features, evaluate."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.options import (
    Roi,
    check_blocks,
    classes_option,
    confirm_fresh,
    crf_option,
    device_option,
    echo_json,
    echo_segmentation,
    echo_table,
    engine_options,
    fresh_options,
    input_options,
    json_option,
    news,
    parse_part,
    recipe_option,
    roi_option,
    score,
    storage_option,
    suggest_fresh,
    weights_options,
)
from hrvol.cli.tune import echo_tuned, pairs_of


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="VOLUME STROKES [VOLUME STROKES ...]")
@click.option("-o", "--output", required=True, metavar="MODEL.hrvol", help="The model file to write.")
@recipe_option
@classes_option
@click.option("--seed", type=click.IntRange(0), help="Overrides the recipe's seed (0).")
@click.option("--fresh", is_flag=True, help="Replace a model that exists.")
@device_option
@storage_option
@weights_options
def train(
    data: tuple[str, ...],
    output: str,
    recipe: str | None,
    classes: tuple[str, ...] | None,
    seed: int | None,
    fresh: bool,
    device: str,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
) -> None:
    """Train a pixel classifier on strokes.

    STROKES is an integer image or volume of the same shape as its VOLUME: 0 where nothing is drawn, 1, 2,
    ... for the classes. A few strokes per class on a few planes are enough. Several pairs train one model.

    \b
    Examples:
        hrvol train volume.ome.zarr strokes.tif -o phases.hrvol --classes pore,binder,particle
        hrvol train a.tif a_strokes.tif b.tif b_strokes.tif -o cells.hrvol --recipe fast
        hrvol train volume.zarr strokes.zarr -o quick.hrvol --recipe classical
        hrvol train volume.zarr strokes.zarr -o tuned.hrvol --recipe auto

    --recipe auto chooses one by cross-validation on the strokes, in some five minutes, as hrvol tune does.

    Files: Zarr 2 or 3, OME-Zarr (its labels are taken as strokes), TIFF image or stack.
    """  # noqa: D301 (click needs the escape)
    pairs = pairs_of(data)
    from hrvol.run.outputs import MODEL, check_file
    from hrvol.run.pipeline import train_model
    from hrvol.run.progress import display
    from hrvol.run.tune import AUTO, tune_recipe
    from hrvol.segment.model import save_model

    with suggest_fresh():
        check_file(output, MODEL, fresh)  # before the work, not after it
    chosen: Any = recipe
    if recipe == AUTO:
        with news(), display() as progress:
            tuned = tune_recipe(
                pairs,
                seed=seed or 0,
                device=device,
                weights_path=weights_path,
                offline=offline,
                storage_options=storage_options,
                progress=progress,
            )
        echo_tuned(tuned)
        click.echo()
        chosen = tuned.recipe
    with news(), display() as progress:
        model = train_model(
            pairs,
            recipe=chosen,
            classes=classes,
            seed=seed,
            device=device,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            progress=progress,
        )
    save_model(model, output)
    counts: dict[int, int] = {}
    for entry in model.trained_on:
        for value, n in entry["samples"].items():
            counts[int(value)] = counts.get(int(value), 0) + n
    rows = [[info.name, str(info.value), str(counts.get(info.value, 0))] for info in model.classes]
    echo_table(["class", "value", "pixels used"], rows)
    click.echo(f"{output}: {len(model.channels)} features, {len(model.classes)} classes")


@click.command()
@click.argument("volume")
@click.argument("output", metavar="OUT.ome.zarr")
@click.option("-m", "--model", required=True, metavar="MODEL.hrvol", help="A model made by hrvol train.")
@engine_options
@click.option(
    "--part",
    callback=parse_part,
    metavar="k/n",
    help="Do the k-th of n parts of the work, in array jobs that need no scheduler.",
)
@crf_option
@input_options
@fresh_options
@click.option("--dry-run", is_flag=True, help="Only say what it would take, as hrvol plan does.")
@storage_option
@weights_options
def segment(
    volume: str,
    output: str,
    model: str,
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    device: str,
    devices: tuple[str, ...] | None,
    part: tuple[int, int] | None,
    probabilities: bool,
    uncertainty: bool,
    crf: bool,
    roi: Roi | None,
    mask: str | None,
    level: int,
    fresh: bool,
    yes: bool,
    dry_run: bool,
    storage_options: dict[str, Any],
    weights_path: str | None,
    offline: bool,
) -> None:
    """Label a volume with a trained model.

    The result is an OME-Zarr whose labels/hrvol has the volume's shape, voxel size, class names and
    colours, and coarser levels for viewers. Label 0 means not processed.

    A run that was stopped or killed is gone on with by the same command. Ctrl-C stops after the blocks in
    progress, a second one at once.

    \b
    Examples:
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol --workers 8 --uncertainty
        hrvol segment volume.zarr trial.ome.zarr -m phases.hrvol --roi 100:110,:,:
        hrvol segment s3://in/volume.zarr s3://out/labels.ome.zarr -m phases.hrvol --engine tcp://head:8786

    A block that fails is tried three times. It does not end the run: it is named at the end, the exit code is
    1, and the same command tries it again.
    """  # noqa: D301 (click needs the escape)
    if dry_run:
        from hrvol.cli.plan import plan

        plan.callback(  # type: ignore[misc]
            volume=volume,
            output=output,
            model=model,
            engine=engine,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            device=device,
            devices=devices,
            workers=workers,
            probabilities=probabilities,
            uncertainty=uncertainty,
            crf=crf,
            roi=roi,
            mask=mask,
            level=level,
            part=part,
            fresh=fresh,
            storage_options=storage_options,
            weights_path=weights_path,
            offline=offline,
        )
        return
    if part is not None and fresh:
        raise click.UsageError("--fresh would delete what other parts have done: delete the output first")
    from hrvol.run.progress import display
    from hrvol.run.segment import segment_volume
    from hrvol.run.stop import stop_signals

    if fresh:
        confirm_fresh(output, storage_options, yes)
    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = segment_volume(
            volume,
            output,
            model,
            engine=engine,
            workers=workers,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            device=device,
            devices=devices,
            part=part,
            probabilities=probabilities,
            uncertainty=uncertainty,
            crf=crf,
            roi=roi,
            mask=mask,
            level=level,
            overwrite=fresh,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            stop=stop,
            progress=progress,
        )
    check_blocks(report, output)
    echo_segmentation(report, output)


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
    from hrvol.run.pipeline import extract_features
    from hrvol.run.progress import display

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


@click.command()
@click.argument("pred")
@click.argument("truth")
@click.option(
    "--match",
    is_flag=True,
    help="First match the predicted classes to the true ones, whatever their numbers.",
)
@classes_option
@storage_option
@json_option
def evaluate(
    pred: str,
    truth: str,
    match: bool,
    classes: tuple[str, ...] | None,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Compare labels with a ground truth.

    Both are integer volumes or images of one shape. Where TRUTH is 0 nothing is counted.

    Classes found without labels have numbers of their own: --match takes each for one true class, so that
    the sum of their IoUs is largest, and says which. A predicted class that is left over counts as wrong.
    Purity is the share of voxels that are of the commonest true class of their predicted class.

    \b
    Examples:
        hrvol evaluate labels.ome.zarr truth.tif
        hrvol evaluate labels.ome.zarr truth.ome.zarr --json
        hrvol evaluate clusters.ome.zarr truth.tif --match --classes pore,binder,particle
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.compare import evaluate_volumes
    from hrvol.run.progress import display

    with display() as progress:
        figures = evaluate_volumes(
            pred, truth, classes=classes, match=match, storage_options=storage_options, progress=progress
        )
    if as_json:
        echo_json(figures)
        return
    predicted = {name: value for value, name in figures.get("matching", {}).items()}
    rows = [
        [name, *([predicted.get(name, "-")] if match else []), score(iou), score(figures["dice"][name])]
        for (name, iou), found in zip(
            figures["iou"].items(), zip(*figures["confusion"], strict=True), strict=True
        )
        if iou is not None or any(found)  # label values may have gaps
    ]
    echo_table(["class", *(["predicted"] if match else []), "IoU", "Dice"], rows)
    summary = f"mIoU {score(figures['miou'])}, pixel accuracy {score(figures['accuracy'])}"
    click.echo(f"{summary}, purity {score(figures['purity'])}" if match else summary)
    left = [value for value, name in figures.get("matching", {}).items() if name is None]
    if left:
        click.echo(f"predicted classes that match no true class: {', '.join(left)}")
    if figures["unlabelled"]:
        what = "label" if not left else "label, or one that matches no class"
        click.echo(f"{figures['unlabelled']} voxels have a truth but no {what}; they count as wrong")
