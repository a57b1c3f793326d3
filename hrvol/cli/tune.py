"""The command tune: choose a recipe by cross-validation on strokes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.of_strokes import offsets_option, pairs_of, paths_of
from hrvol.cli.common.options import json_option, recipe_compute_options
from hrvol.cli.common.output import echo, echo_json, echo_lines, echo_table, news, score, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.training.tuning.tune import TuningResult


MINUTES = 5.0


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="VOLUME STROKES [VOLUME STROKES ...]")
@click.option("-o", "--output", metavar="RECIPE.yaml", help="The recipe file to write [printed].")
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    default=MINUTES,
    show_default=True,
    help="Approximate time. With more, more tiles are read and more recipes tried.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of folds and fits.")
@click.option("--fresh", is_flag=True, help="Replace a recipe that exists.")
@offsets_option
@recipe_compute_options
@json_option
@reads("data")
def tune(
    data: tuple[str, ...],
    output: str | None,
    minutes: float,
    seed: int,
    fresh: bool,
    offsets: tuple[tuple[int, int, int], ...],
    computing: dict[str, Any],
    as_json: bool,
) -> None:
    """Choose a recipe by cross-validation on strokes.

    Kinds of features, input scales, densities of tokens and classifiers are tried: each is trained on some
    strokes and tested on others. All other settings are those of --recipe. Of the recipes that score as well
    as the best, the cheapest is chosen. The table shows the mean IoU on the held-out strokes, its spread
    over 4 folds, and the time per pixel of a segmentation on this machine.

    \b
    Examples:
        hrvol tune  volume.ome.zarr strokes.tif -o recipe.yaml
        hrvol train volume.ome.zarr strokes.tif -o phases.hrvol --recipe recipe.yaml
        hrvol tune  a.tif a_strokes.tif b.tif b_strokes.tif --minutes 20

    STROKES are those of hrvol train. Strokes are held out whole, so a few per class are needed, best on
    several planes.
    """  # noqa: D301 (click needs the escape)
    pairs = pairs_of(data, offsets)
    from hrvol.cli.common.progress import display
    from hrvol.files import FileKind, atomic_write, check_file
    from hrvol.training.tuning.tune import tune_recipe
    from hrvol.volume.guard import file_or_none, keep_inputs

    if output is not None:
        given = paths_of(pairs)
        keep_inputs(output, *given, file_or_none(computing["recipe"]), computing["weights_path"])
        with suggest_fresh():
            check_file(output, FileKind("recipe", (b"# Chosen by hrvol tune",)), fresh)  # before the work
    with news(), display() as progress:
        tuned = tune_recipe(
            pairs,
            minutes=minutes,
            seed=seed,
            **computing,
            progress=progress,
        )
    if output is not None:
        with atomic_write(Path(output)) as partial:
            partial.write_text(tuned.to_yaml(), encoding="utf-8")
    if as_json:
        echo_json(_values(tuned))
        return
    echo_tuned(tuned)
    if output is None:
        echo()
        echo_lines(tuned.to_yaml().rstrip("\n"))
    else:
        echo(f"{output}: written")


def echo_tuned(tuned: TuningResult) -> None:
    """Print the recipes that were tried, those that were not, and the choice with its reason."""
    rows = [
        [
            row.name,
            score(row.mean),
            score(row.spread),
            f"{row.microseconds:.1f}",
            "chosen" if row is tuned.chosen else "",
        ]
        for row in tuned.rows
    ]
    echo_table(["tried", "mIoU", "spread", "us/pixel", ""], rows)
    for line in (*tuned.notes, tuned.why):
        echo(line)


def _values(tuned: TuningResult) -> dict[str, Any]:
    return {
        "recipe": tuned.recipe.to_dict(),
        "why": tuned.why,
        "notes": tuned.notes,
        "tried": [
            {
                "name": row.name,
                "miou": row.mean,
                "spread": row.spread,
                "scores": row.scores,
                "microseconds_per_pixel": row.microseconds,
            }
            for row in tuned.rows
        ],
    }
