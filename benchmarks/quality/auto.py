"""Measure recipes chosen on strokes: ``python -m benchmarks.quality.auto``.

On crops of each dense data set a recipe is chosen on strokes, as ``hrvol train --recipe auto`` does. It and
the presets are then trained on these strokes and compared with the truth of other crops.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import DENSE, Dense
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.crops import SIDE, crops_of
from benchmarks.quality.sampling import PER_CLASS, plane_stripes
from benchmarks.quality.strokes import draw
from hrvol.device import cpus
from hrvol.errors import HrvolError
from hrvol.features.featuriser import load_featuriser
from hrvol.quality.metrics import Confusion
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.segment.model.model import Model
from hrvol.training.train import train_model
from hrvol.training.tuning.candidates import describe
from hrvol.training.tuning.tune import TuningResult, tune_recipe
from hrvol.volume.volume import open_volume

PRESET_NAMES = ("fast", "balanced", "best")
AIM = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    words = sys.argv[1:] if arguments is None else list(arguments)
    parts: dict[tuple[str, int], dict[str, Any]] = {}
    try:
        for seed, name in product(args.seeds, args.datasets):
            data = crops_of(name, train=args.train, test=args.test, side=args.side)
            parts[name, seed] = compare(data, seed, args)
            args.output.write_text(render(parts, args, words), encoding="utf-8")
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    log(f"{args.output} written")
    return 0


def compare(data: Dense, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Choose a recipe on strokes, and measure it and the presets on test crops.

    Returns
    -------
    dict
        ``tuned``: the result of the choice; ``tune_seconds``; ``rows``: for ``auto`` and each preset the
        description of its recipe, the mean IoU, and the seconds of training and of labelling the test crops.
    """
    strokes = draw(data, seed)
    train = list(data.train)
    pair = (data.images[train], strokes[train])
    base = Recipe().with_(**{"classifier.samples_per_class": PER_CLASS})
    began = time.monotonic()
    minutes = None if args.minutes == 0 else args.minutes
    tuned = tune_recipe([pair], recipe=base, minutes=minutes, seed=seed)
    seconds = time.monotonic() - began
    for row in tuned.rows:
        log(f"{data.name}: {row.mean:.3f} +- {row.spread:.3f}  {row.microseconds:6.1f} us  {row.name}")
    for line in (*tuned.notes, tuned.why):
        log(f"{data.name}: {line}")
    recipes = {"auto": tuned.recipe} | {
        name: PRESETS[name].with_(**{"classifier.samples_per_class": PER_CLASS}) for name in args.presets
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, recipe in recipes.items():
        same = next((rows[other] for other in rows if recipes[other] == recipe), None)
        rows[name] = same or measure(data, pair, recipe, seed, args)
        log(f"{data.name}: {name}: mIoU {rows[name]['miou']:.3f} on test crops ({describe(recipe)})")
    return {"tuned": tuned, "tune_seconds": seconds, "rows": rows}


def measure(
    data: Dense, pair: tuple[Any, Any], recipe: Recipe, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train a recipe on strokes, and compare every ``step``-th pixel of the test crops with the truth."""
    began = time.monotonic()
    model = train_model([pair], recipe=recipe, seed=seed)
    trained = time.monotonic()
    miou = agreement(data, model, args.step, args.threads)
    return {
        "recipe": describe(recipe),
        "miou": miou,
        "train_seconds": trained - began,
        "test_seconds": time.monotonic() - trained,
    }


def agreement(data: Dense, model: Model, step: int, threads: int) -> float:
    """Return the mean IoU of a model over the test crops."""
    featuriser = load_featuriser(model.recipe.features)
    volume = open_volume(data.images)
    total = Confusion(np.zeros((len(data.classes) + 1,) * 2, np.int64))
    for z in data.test:
        truth = data.truth[z, ::step, ::step]
        for place, features in plane_stripes(volume, z, featuriser, recipe=model.recipe, step=step):
            pixels = np.ascontiguousarray(features).reshape(-1, features.shape[-1])
            labels = model.classifier.predict(pixels, threads=threads)
            total += Confusion.of(labels, truth[place].ravel(), len(data.classes))
    return float(total.to_dict()["miou"])


def render(
    parts: Mapping[tuple[str, int], Mapping[str, Any]], args: argparse.Namespace, words: Sequence[str]
) -> str:
    """Return the page."""
    lines = [
        "# Recipes chosen on strokes",
        "",
        f"Made by `{shlex.join(['python', '-m', 'benchmarks.quality.auto', *words])}`.",
        f"Machine: {describe_machine(args.threads)}",
        "",
        f"A recipe is chosen by cross-validation on the strokes of {args.train} crops of {args.side} x",
        f"{args.side} pixels (10 short strokes per class and crop, at most {PER_CLASS} pixels of a class in",
        "training; ebc2 at half its resolution), then it and the presets are trained on these strokes. mIoU",
        f"on a crop each of at most {args.test} test planes, every {args.step}th row and column. The aim: at",
        f"most {AIM} below the best preset.",
        "",
        "",
    ]
    results, seconds = [], []
    names = ["auto", *args.presets]
    for (name, seed), part in parts.items():
        rows, presets = part["rows"], [part["rows"][preset]["miou"] for preset in args.presets]
        results.append(
            [
                f"{name}, {seed}",
                rows["auto"]["recipe"],
                *(f"{miou:.3f}" for miou in (rows["auto"]["miou"], *presets)),
                f"{rows['auto']['miou'] - max(presets):+.3f}",
                f"{part['tune_seconds']:.0f}",
            ]
        )
        times = [f"{rows[n]['train_seconds']:.0f} + {rows[n]['test_seconds']:.0f}" for n in names]
        seconds.append([f"{name}, {seed}", *times])
    head = ["data, drawing", "chosen", *names, "auto less best preset", "choosing, s"]
    text = "\n".join(lines) + table(head, results)
    text += "\nMeans over drawings, and the difference to the preset that is best on average:\n\n"
    text += _means(parts, args.presets)
    text += "\nSeconds to train on the strokes, and to label the test crops:\n\n"
    text += table(["data, drawing", *names], seconds)
    return text + "".join(
        f"\n## {name}, {seed}\n\n{_tried(part['tuned'])}" for (name, seed), part in parts.items()
    )


def _means(parts: Mapping[tuple[str, int], Mapping[str, Any]], presets: Sequence[str]) -> str:
    """Return a table of means over drawings."""
    lines = []
    for name in dict.fromkeys(name for name, _ in parts):
        of_name = [part["rows"] for (other, _), part in parts.items() if other == name]
        auto, *others = (np.mean([rows[which]["miou"] for rows in of_name]) for which in ("auto", *presets))
        cells = [f"{value:.3f}" for value in (auto, *others)]
        lines.append([name, len(of_name), *cells, f"{auto - max(others):+.3f}"])
    return table(["data", "drawings", "auto", *presets, "auto less best preset"], lines)


def _tried(tuned: TuningResult) -> str:
    """Return a table of the recipes tried on strokes, and the notes of the choice."""
    rows = []
    for row in tuned.rows:
        name = f"**{row.name}**" if row is tuned.chosen else row.name
        rows.append([name, f"{row.mean:.3f} ± {row.spread:.3f}", f"{row.microseconds:.1f}"])
    notes = "".join(f"- {line}\n" for line in (*tuned.notes, tuned.why))
    return table(["tried", "mIoU on held-out strokes", "us per pixel"], rows) + "\n" + notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.auto", description=__doc__)
    add = parser.add_argument
    add("--datasets", nargs="+", choices=DENSE, default=list(DENSE))
    add("--presets", nargs="+", choices=PRESET_NAMES, default=list(PRESET_NAMES))
    add("--minutes", type=float, default=5.0, help="of choosing; 0: no limit")
    add("--train", type=int, default=4, help="crops to draw on")
    add(
        "--test",
        type=int,
        default=4,
        help="most crops of other planes, one of each, to compare with the truth",
    )
    add("--side", type=int, default=SIDE, help="of a crop, pixels")
    add("--step", type=int, default=4, help="compare every n-th row and column")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of strokes, folds and classifiers")
    add("--threads", type=int, default=cpus())
    add("-o", "--output", type=Path, default=Path("benchmarks/quality/auto.md"), help="Markdown page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
