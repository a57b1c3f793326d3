"""Compare the presets with the published settings: ``python -m benchmarks.quality.presets``.

Classical, deep and hybrid features of every preset, with the same strokes on the same crops of all dense data
sets. Figures are kept as JSON beside the page and are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import DENSE
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.contest import CLASSIFIERS, KINDS, PRODUCT
from benchmarks.quality.crops import SIDE, crops_of, look, scores
from benchmarks.results import load, save
from hrvol.device import cpus
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import FeatureSpec

NAMES = ("paper", "fast-0.1", "balanced-0.1", "best-0.1", "fast", "balanced", "best")
PUBLISHED, OURS = "forest, published", "vote"
TRAIN, TEST = 1, 2
TOLERANCE = 0.005
"""Largest accepted loss of hybrid features against the better of classical and deep ones."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    kept = args.output.with_suffix(".json")
    figures = load(kept)
    for name in args.datasets:
        data = crops_of(name, train=TRAIN, test=TEST)
        for preset in args.presets:
            deep = PRESETS[preset].features.deep
            key = key_of(name, preset)
            rows = figures.get(key, {}).get("rows", {})
            classifiers = (PUBLISHED,) if preset == "paper" else (PUBLISHED, OURS)
            missing = [classifier for classifier in classifiers if classifier not in rows]
            if not missing:
                continue
            seen = look(data, load_featuriser(FeatureSpec(kind="hybrid", deep=deep)), args.seeds)
            rows |= {
                which: scores(seen, CLASSIFIERS[which], threads=args.threads, classes=len(data.classes))
                for which in missing
            }
            figures[key] = {"data": name, "preset": preset, "cpu": round(seen.cpu_seconds, 2), "rows": rows}
            save(kept, figures)
            summary = ", ".join(f"{which} {np.mean(row['hybrid']):.3f}" for which, row in rows.items())
            log(f"{name}, {preset}: hybrid with {summary}; {seen.cpu_seconds:.1f} CPU s a crop")
    # Figures of former settings of a preset are kept, not shown.
    now = {key_of(name, preset) for name in DENSE for preset in NAMES}
    shown = [part for key, part in figures.items() if key in now]
    args.output.write_text(render(shown, args), encoding="utf-8")


def key_of(name: str, preset: str) -> str:
    """Return the key of figures in the JSON."""
    return f"{name} | {preset} | {PRESETS[preset].features.deep.model_dump_json()}"


def render(figures: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> str:
    """Return the page."""
    rows_by_case = {
        (part["data"], part["preset"], which): row for part in figures for which, row in part["rows"].items()
    }
    names = [name for name in DENSE if any(key[0] == name for key in rows_by_case)]
    presets = [preset for preset in NAMES if any(key[1] == preset for key in rows_by_case)]
    cost = {(part["data"], part["preset"]): part["cpu"] for part in figures}
    parts = [
        f"""# Presets beside the published settings

Made by `python -m benchmarks.quality.presets`. {describe_machine(args.threads)}

Crops of {SIDE} x {SIDE} pixels of each data set, {TRAIN} with strokes (`tools/scribbles.py`), {TEST} of other
planes to compare with; ebc2 at half its resolution, classes 4 and 5 of vnc counted as class 1. mIoU, mean and
standard deviation over {len(args.seeds)} drawings (a drawing's seed is the classifier's, too), at most 1000
samples of a class. The published settings are `paper` with *forest, published* (200 trees, 2 features a
split, depth 10); hrvol's presets come with *vote*: the mean of a forest (200 trees, sqrt(n) features a split,
full depth, leaf 2, half of the trees without grey values) and of logistic regression. CPU: seconds of all
cores for deep and classical features of one crop.
"""
    ]
    for name in names:
        rows = []
        for preset in presets:
            for which in (PUBLISHED, OURS):
                if row := rows_by_case.get((name, preset, which)):
                    cells = [_cell(row[kind]) if kind in row else "" for kind in (*KINDS, PRODUCT)]
                    rows.append([preset, f"{cost[name, preset]:.1f}", which, *cells])
        head = ["preset", "CPU s", "classifier", "classical", "deep", "hybrid", "product"]
        parts.append(f"## {name}\n\n{table(head, rows)}")

    def against_published(name: str, preset: str) -> str:
        ours, theirs = rows_by_case.get((name, preset, OURS)), rows_by_case.get((name, "paper", PUBLISHED))
        if not ours or not theirs:
            return ""
        more = np.subtract(ours["hybrid"], theirs["hybrid"])
        return f"{more.mean():+.3f} ({(more > 0).sum()} of {len(more)})"

    def against_alone(name: str, preset: str) -> str:
        row = rows_by_case.get((name, preset, OURS))
        if row is None:
            return ""
        better = max(np.mean(row["classical"]), np.mean(row["deep"]))
        return f"{np.mean(row['hybrid']) - better:+.3f}"

    shown = [preset for preset in presets if preset != "paper"]
    published, alone = (
        table(["preset", *names], [[preset, *(cell(name, preset) for name in names)] for preset in shown])
        for cell in (against_published, against_alone)
    )
    parts.append(
        f"""## What follows

Hybrid features of a preset with its own classifier, less those of the published settings, and in
how many drawings they are better:

{published}
Hybrid features less the better of classical and deep features (means over drawings; vote); below
-{TOLERANCE} they lose:

{alone}"""
    )
    return "\n".join(parts)


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.presets", description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=DENSE, default=list(DENSE))
    parser.add_argument("--presets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=cpus())
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/quality/presets.md"))
    return parser


if __name__ == "__main__":
    main()
