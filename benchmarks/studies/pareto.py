"""Measure value and cost of each setting of a recipe: ``python -m benchmarks.studies.pareto``.

Every setting is measured on the same crops of the dense data sets, with the same strokes and forests; one
thing at a time differs from a cheap recipe (block 9, 2 x 2 offsets). Figures are kept as JSON beside the page
and are not measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.data import DENSE, Dense
from benchmarks.machine import describe_machine
from benchmarks.markdown import table
from benchmarks.quality.contest import PRODUCT
from benchmarks.quality.crops import SIDE, Seen, crops_of, look, scores
from benchmarks.results import load, save
from benchmarks.studies.variants import Windowed, mean_window, reduced, unbiased
from hrvol.device import cpus
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassifierSpec, DeepSpec, FeatureSpec

BASE = DeepSpec(block=9, offsets=2)
WINDOWS = (112, 168, 336, 518, 672)
STEP = 3
"""Of rows and columns of the crops that are compared."""

FOREST = ClassifierSpec(kind="forest", trees=100, grey_share=1)
"""All trees use all features; half the default number of trees, to save time."""


@dataclass(frozen=True)
class Setting:
    """A setting to measure.

    Attributes
    ----------
    topic
        The varied quantity.
    name
        The value.
    deep
        The features.
    variant
        Treatment outside of a recipe, see :func:`_look`.
    """

    topic: str
    name: str
    deep: DeepSpec
    variant: str = ""

    def key(self, data: str) -> str:
        """Return the key of figures in the JSON."""
        return " | ".join([data, self.deep.model_dump_json(), *([self.variant] if self.variant else [])])


def settings() -> list[Setting]:
    """Return all settings, the base once per topic."""

    def of(topic: str, values: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
        return [
            Setting(topic, name, DeepSpec.model_validate(BASE.to_dict() | changes))
            for name, changes in values.items()
        ]

    blocks: dict[str, Any] = {str(i): i for i in (6, 7, 8, 9, 10, 11, 12)}
    blocks |= {"6 and 9": (6, 9), "9 and 12": (9, 12), "6, 9 and 12": (6, 9, 12)}
    strided = {"stride": 7, "offsets": 1}, {"stride": 4, "offsets": 1}
    return [
        *of("offsets", {f"{k} x {k}": {"offsets": k} for k in (1, 2, 3, 4, 5, 7)}),
        *of("block", {name: {"block": block} for name, block in blocks.items()}),
        *of("input scale", {f"{scale:g}": {"input_scale": scale} for scale in (0.5, 0.75, 1, 1.5, 2)}),
        *of(
            "views",
            {
                "one": {},
                "four mirror images": {"flips": True},
                "four quarter turns": {"rotations": True},
                "all eight": {"flips": True, "rotations": True},
            },
        ),
        *of(
            "views, block 6",
            {
                "one": {"block": 6},
                "four mirror images": {"block": 6, "flips": True},
                "four quarter turns": {"block": 6, "rotations": True},
                "all eight": {"block": 6, "flips": True, "rotations": True},
                "all eight, blocks 6 and 9": {"block": (6, 9), "flips": True, "rotations": True},
            },
        ),
        *of(
            "block, 2 x 2 offsets of four mirror images",
            {name: {"block": blocks[name], "flips": True} for name in ("6", "8", "9", "6 and 9", "12")},
        ),
        *of(
            "offsets, each of four mirror images",
            {f"{k} x {k}": {"offsets": k, "flips": True} for k in (1, 2, 3, 4)},
        ),
        *of(
            "between tokens",
            {"bilinear": {}, "nearest": {"interpolation": "nearest"}},
        ),
        *of("stride", {"14, 2 x 2": {}, "7": strided[0], "14, 4 x 4": {"offsets": 4}, "4": strided[1]}),
        *(Setting("window", f"{side} px", BASE, f"window {side}") for side in WINDOWS),
        Setting("treatment", "none", BASE),
        Setting("treatment", "mean of each place in the window subtracted", BASE, "unbiased"),
        *(Setting("treatment", f"{n} principal components", BASE, f"components {n}") for n in (32, 64, 128)),
    ]


CLASSIFIERS: Mapping[str, ClassifierSpec] = {
    "forest, 25 trees": FOREST.model_copy(update={"trees": 25}),
    "forest, 50 trees": FOREST.model_copy(update={"trees": 50}),
    "forest, 100 trees": FOREST,
    "forest, 200 trees": FOREST.model_copy(update={"trees": 200}),
    "forest, depth 10": FOREST.model_copy(update={"max_depth": 10}),
    "forest, 2 features a split, depth 10": PRESETS["paper"].classifier,
    "logistic": ClassifierSpec(kind="logistic", regularisation=1, grey_share=1),
    "mlp": ClassifierSpec(kind="mlp"),
    "boosting": ClassifierSpec(kind="boosting", trees=50),
}
"""Measured on the features of the base."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    kept = args.output.with_suffix(".json")
    figures = load(kept)
    for name in args.datasets:
        data = crops_of(name, train=2, test=2)
        classes = len(data.classes)
        for setting in settings():
            key = setting.key(name)
            if key in figures or (args.topics and setting.topic not in args.topics):
                continue
            seen = _look(setting, data, args)
            row = {"seconds": round(seen.seconds, 3), "cpu": round(seen.cpu_seconds, 3)}
            figures[key] = row | scores(seen, FOREST, threads=args.threads, classes=classes)
            _keep(kept, figures, f"{name}: {setting.topic} {setting.name}", figures[key])
        seen = None
        for label, spec in CLASSIFIERS.items():
            key = f"{name} | {label}"
            if key in figures or (args.topics and "classifier" not in args.topics):
                continue
            seen = seen or _look(Setting("", "", BASE), data, args)
            began = time.process_time()
            rows = scores(seen, spec, threads=args.threads, classes=classes)
            figures[key] = {"cpu": round(time.process_time() - began, 1)} | rows
            _keep(kept, figures, f"{name}: {label}", figures[key])
    args.output.write_text(render(figures, args), encoding="utf-8")
    plot(figures, args.output.with_suffix(".png"))


def _look(setting: Setting, data: Dense, args: argparse.Namespace) -> Seen:
    """Return the features of a setting.

    Variants: ``unbiased``, ``components N``, ``window N``; see ``benchmarks.studies.variants``.
    """
    featuriser = load_featuriser(FeatureSpec(kind="hybrid", deep=setting.deep))
    kind, _, number = setting.variant.partition(" ")
    if kind == "window":
        around = max(0, max(WINDOWS) - SIDE) // 2
        deep, filters = (
            load_featuriser(FeatureSpec(kind=k, deep=setting.deep)) for k in ("deep", "classical")
        )
        wide = crops_of(data.name, train=len(data.train), test=len(data.test), around=around)
        return look(wide, Windowed(deep, filters, int(number), SIDE), args.seeds, step=STEP)
    seen = look(data, featuriser, args.seeds, step=STEP)
    if kind == "unbiased":
        return unbiased(seen, mean_window(data.name, featuriser, SIDE), STEP)
    return reduced(seen, int(number)) if kind == "components" else seen


def _keep(path: Path, figures: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> None:
    """Write the figures so far and print the new ones."""
    save(path, figures)
    summary = ", ".join(f"{key} {np.mean(value):.3f}" for key, value in row.items())
    print(f"{name}: {summary}", flush=True)


def render(figures: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Return the page."""
    names = [name for name in DENSE if any(key.startswith(f"{name} |") for key in figures)]
    topics: dict[str, list[Setting]] = {}
    for setting in settings():
        topics.setdefault(setting.topic, []).append(setting)
    parts = [
        f"""# Value and cost of settings

Made by `python -m benchmarks.studies.pareto`. {describe_machine(args.threads)}

Crops of {SIDE} x {SIDE} pixels, two of each data set with strokes (`tools/scribbles.py`) and two of other
planes to compare with; ebc2 at half its resolution. mIoU, mean of {len(args.seeds)} drawings, of forests of
{FOREST.trees} trees on deep / hybrid features / the product of three. One thing at a time differs from block
{BASE.block}, {BASE.offsets} x {BASE.offsets} interleaved offsets. CPU: seconds of all cores for one crop,
deep and classical features; the last column is the mean of hybrid over the data sets. Settings not yet
measured on all of them are left out.

![mean mIoU of hybrid features against cost](pareto.png)
"""
    ]
    for topic, of_topic in topics.items():
        rows = [
            _row(setting.name, {name: figures.get(setting.key(name)) for name in names})
            for setting in of_topic
        ]
        if len([row for row in rows if row]) > 1:  # more than the base
            parts.append(f"## {topic.capitalize()}\n\n{_table(topic, names, rows)}")
    rows = [_row(label, {name: figures.get(f"{name} | {label}") for name in names}) for label in CLASSIFIERS]
    if any(rows):
        parts.append(
            "## Classifier\n\nOn the base's features; CPU seconds: of all fits and predictions.\n\n"
            + _table("classifier", names, rows)
        )
    return "\n".join(parts)


def _row(label: str, rows: Mapping[str, Any]) -> list[str]:
    if any(row is None for row in rows.values()):
        return []
    cells = []
    for row in rows.values():
        kinds = [kind for kind in ("deep", "hybrid", PRODUCT) if kind in row]
        cells.append(" / ".join(f"{np.mean(row[kind]):.3f}" for kind in kinds))
    cpu = np.mean([row["cpu"] for row in rows.values()])
    mean = np.mean([np.mean(row["hybrid"]) for row in rows.values()])
    return [label, f"{cpu:.1f}", *cells, f"{mean:.3f}"]


def _table(topic: str, names: Sequence[str], rows: Sequence[list[str]]) -> str:
    return table([topic, "CPU s", *names, "mean"], [row for row in rows if row])


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the mean mIoU of hybrid features against cost, and mark the Pareto front."""
    points: list[tuple[str, str, float, float]] = []
    for setting in settings():
        rows = [figures.get(setting.key(name)) for name in DENSE]
        if all(rows):
            cpu = float(np.mean([row["cpu"] for row in rows if row]))
            score = float(np.mean([np.mean(row["hybrid"]) for row in rows if row]))
            points.append((setting.topic, setting.name, cpu, score))
    if not points:
        return
    best = sorted((p[2:] for p in points), key=lambda p: (p[0], -p[1]))
    front = [p for i, p in enumerate(best) if all(p[1] > q[1] for q in best[:i])]
    topics = list(dict.fromkeys(point[0] for point in points))
    across = 3
    down = -(-len(topics) // across)
    figure = Figure(figsize=(4 * across, 2.6 * down), dpi=100, layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axis in grid.ravel()[len(topics) :]:
        axis.set_axis_off()
    for topic, axis in zip(topics, grid.ravel(), strict=False):
        axis.plot([p[0] for p in best], [p[1] for p in best], "o", color="0.85", ms=4)
        axis.plot([p[0] for p in front], [p[1] for p in front], "k:", lw=1)
        of_topic = [point for point in points if point[0] == topic]
        axis.plot([p[2] for p in of_topic], [p[3] for p in of_topic], "o", ms=5)
        for _, name, cpu, score in of_topic:
            axis.annotate(name, (cpu, score), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set_title(topic, fontsize=9)
        axis.set_xscale("log")
    low, high = min(p[1] for p in best), max(p[1] for p in best)
    grid[0, 0].set(xlim=(0.8 * best[0][0], 2.5 * best[-1][0]), ylim=(low - 0.01, high + 0.02))
    figure.supxlabel(f"CPU seconds, {SIDE} x {SIDE} pixels (dotted: nothing cheaper is better)", fontsize=10)
    figure.supylabel("mIoU of hybrid features, mean of data sets", fontsize=10)
    figure.savefig(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.pareto", description=__doc__)
    topics = [*dict.fromkeys(setting.topic for setting in settings()), "classifier"]
    parser.add_argument("--datasets", nargs="+", choices=DENSE, default=list(DENSE))
    parser.add_argument("--topics", nargs="+", choices=topics, help="default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=cpus())
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/pareto.md"))
    return parser


if __name__ == "__main__":
    main()
