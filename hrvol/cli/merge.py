"""The command merge: merge the classes of a model of hrvol cluster again."""

from __future__ import annotations

import click

from hrvol.cli.common.options import fresh_option
from hrvol.cli.common.output import echo, echo_table, suggest_fresh


@click.command()
@click.argument("model", metavar="MODEL.hrvol")
@click.option("-o", "--output", required=True, metavar="OUT.hrvol", help="The model file to write.")
@click.option("--classes", type=click.IntRange(1), metavar="N", help="Merge until N classes are left.")
@click.option(
    "--merge",
    "factor",
    type=click.FloatRange(0, min_open=True),
    metavar="LAMBDA",
    help="Scale of the merging distance: below 1 merges less, above 1 more.",
)
@fresh_option
def merge(model: str, output: str, classes: int | None, factor: float | None, fresh: bool) -> None:
    """Merge the classes that hrvol cluster found again, to more or fewer.

    MODEL is a file of hrvol cluster --model. Its clusters stay, so this takes seconds and no volume;
    segment -m labels volumes with the new classes.

    \b
    Examples:
        hrvol merge classes.hrvol -o four.hrvol --classes 4
        hrvol merge classes.hrvol -o fewer.hrvol --merge 1.2
    """  # noqa: D301 (click needs the escape)
    if (classes is None) == (factor is None):
        raise click.UsageError("--merge sets a distance and --classes a number of classes: choose one")
    from hrvol.files import MODEL, check_file
    from hrvol.segment.cluster_classifier import ClusterClassifier
    from hrvol.segment.model.model import load_model, save_model
    from hrvol.training.merging import merge_classes
    from hrvol.volume.guard import keep_inputs

    keep_inputs(output, model)
    with suggest_fresh():
        check_file(output, MODEL, fresh)
    merged = merge_classes(load_model(model), merge=factor, classes=classes)
    save_model(merged, output)
    clusters = merged.classifier
    assert isinstance(clusters, ClusterClassifier)
    shares = clusters.class_tally.pixels / clusters.tally.pixels.sum()
    rows = [[info.name, f"{100 * share:.2f} %"] for info, share in zip(merged.classes, shares, strict=True)]
    echo_table(["class", "share of the sample"], rows)
    echo(f"{output}: {len(merged.classes)} classes from {len(clusters.of_cluster)} clusters")
