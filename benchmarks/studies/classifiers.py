"""Compare classifiers for few strokes: ``python -m benchmarks.studies.classifiers``.

Forests, logistic regression and votes of both, on hybrid features of ``balanced-0.1``, strokes on one crop
and on two crops of all dense data sets. Figures are kept as JSON beside the page and are not measured again.
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
from benchmarks.quality.crops import SIDE, crops_of, look, scores
from benchmarks.results import load, save
from hrvol.device import cpus
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassifierSpec, FeatureSpec

PRESET, TEST = "balanced-0.1", 2
DRAWN_ON = (1, 2)
TOLERANCE = 0.005
"""Largest accepted loss of hybrid features against the better of classical and deep ones."""

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
TRIED: Mapping[str, ClassifierSpec] = {
    "forest, all trees see grey values": ClassifierSpec(kind="forest", grey_share=1),
    "forest, half of the trees": ClassifierSpec(kind="forest", grey_share=0.5),
    "forest, no tree": ClassifierSpec(kind="forest", grey_share=0),
    **{
        f"logistic, penalty {penalty:g}, {seeing}": ClassifierSpec(
            kind="logistic", regularisation=penalty, grey_share=share
        )
        for penalty in PENALTIES
        for seeing, share in (("sees grey values", 1), ("does not", 0))
    },
    "vote (default)": ClassifierSpec(),
    "vote, both see grey values": ClassifierSpec(grey_share=1),
    "vote, neither does": ClassifierSpec(grey_share=0),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    kept = args.output.with_suffix(".json")
    figures = load(kept)
    deep = PRESETS[PRESET].features.deep
    for name in args.datasets:
        for crops in DRAWN_ON:
            keys = {label: key(name, crops, spec) for label, spec in TRIED.items()}
            if set(keys.values()) <= set(figures):
                continue
            data = crops_of(name, train=crops, test=TEST)
            seen = look(data, load_featuriser(FeatureSpec(kind="hybrid", deep=deep)), args.seeds)
            for label, spec in TRIED.items():
                if keys[label] not in figures:
                    figures_of = scores(seen, spec, threads=args.threads, classes=len(data.classes))
                    figures[keys[label]] = {"seeds": args.seeds} | figures_of
                    save(kept, figures)
                    log(f"{name}, strokes on {crops}: {label}: hybrid {np.mean(figures_of['hybrid']):.3f}")
    args.output.write_text(render(figures, args), encoding="utf-8")


def key(name: str, crops: int, spec: ClassifierSpec) -> str:
    """Return the key of figures in the JSON."""
    deep = PRESETS[PRESET].features.deep
    return f"{name} | {crops} | {deep.model_dump_json()} | {spec.model_dump_json()}"


def render(figures: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> str:
    """Return the page."""
    cases = [(name, crops) for name in DENSE for crops in DRAWN_ON]
    rows_by_case = {
        (label, case): figures[key(*case, spec)]
        for label, spec in TRIED.items()
        for case in cases
        if key(*case, spec) in figures
    }
    cases = [case for case in cases if any(at == case for _, at in rows_by_case)]
    head = [f"{name}, {crops}" for name, crops in cases]
    whole = [label for label in TRIED if all((label, case) in rows_by_case for case in cases)]
    scores, losses = [], []
    for label in whole:
        rows = [rows_by_case[label, case]["hybrid"] for case in cases]
        mean = np.mean([np.mean(row) for row in rows])
        scores.append([label, *(f"{np.mean(row):.3f} ± {np.std(row):.3f}" for row in rows), f"{mean:.3f}"])
        gains = [gain(rows_by_case[label, case]) for case in cases]
        losses.append([label, *(f"{value:+.3f}" for value in gains), f"{min(gains):+.3f}"])
    return f"""# Which classifier

Made by `python -m benchmarks.studies.classifiers`. {describe_machine(args.threads)}

Crops of {SIDE} x {SIDE} pixels, one or two with strokes (`tools/scribbles.py`), {TEST} of other planes to
compare with; ebc2 at half its resolution, classes 4 and 5 of vnc counted as class 1; at most 1000 samples of
a class. Features of `{PRESET}`, {len(args.seeds)} drawings (a drawing's seed is the classifier's, too).
*Grey values* are the image, blurred or not, and sums along lines: {_share()} classical features.
A *vote* is the mean of the probabilities of a forest and of logistic regression with penalty 100.

## mIoU with hybrid features

Mean and standard deviation over drawings; the last column is the mean of all.

{table(["classifier", *head, "mean"], scores)}
## Does hybrid lose?

mIoU with hybrid features, less that of the better of classical and deep ones with the same classifier (means
over drawings); below -{TOLERANCE} it loses.

{table(["classifier", *head, "least"], losses)}"""


def gain(row: Mapping[str, Sequence[float]]) -> float:
    """Return the gain of hybrid features over the better of classical and deep ones."""
    return float(np.mean(row["hybrid"]) - max(np.mean(row["classical"]), np.mean(row["deep"])))


def _share() -> str:
    from hrvol.features.filters.bank import channel_names, grey_columns

    spec = FeatureSpec().classical
    return f"{len(grey_columns(spec))} of {len(channel_names(spec))}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.classifiers", description=__doc__)
    parser.add_argument("--datasets", nargs="*", choices=DENSE, default=list(DENSE))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=cpus())
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/classifiers.md"))
    return parser


if __name__ == "__main__":
    main()
