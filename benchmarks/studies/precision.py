"""Measure the effect of half precision on features and labels: ``python -m benchmarks.studies.precision``.

Hybrid features of ``fast-0.1`` on crops of all dense data sets, with the network in float32, bfloat16
and float16, on the CPU, which is slow but rounds as any device does. Figures are kept as JSON beside the page
and are not measured again. ``--compile`` measures ``torch.compile``, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import DENSE
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.crops import SIDE, Seen, crops_of, look
from benchmarks.results import load, save
from hrvol.device import cpus
from hrvol.features.deep.backbone import load_backbone
from hrvol.features.featuriser import load_featuriser
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import DEFAULT_BLOCK, PRESETS
from hrvol.recipe.specs import ClassifierSpec, FeatureSpec
from hrvol.segment.pixel_classifier import PixelClassifier

EXACT = "fp32"
HALVES = ("bf16", "fp16")
PRESET = "fast-0.1"
TRAIN, TEST = 1, 2
OTHER_SEED = 1000
"""Added to a forest's seed, to count the labels that another forest changes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    kept = args.output.with_suffix(".json")
    figures = load(kept)
    for name in args.datasets:
        if name in figures:
            continue
        figures[name] = compare(name, args.seeds, side=args.side, trees=args.trees, threads=args.threads)
        save(kept, figures)
        log(f"{name}: {figures[name]}")
    if args.compile and "compile" not in figures:
        figures["compile"] = measure_compile(args.side)
        save(kept, figures)
    args.output.write_text(render(figures, args), encoding="utf-8")


def compare(name: str, seeds: Sequence[int], *, side: int, trees: int, threads: int) -> dict[str, Any]:
    """Return the figures of one data set, by precision."""
    data = crops_of(name, train=TRAIN, test=TEST, side=side)
    seen = {}
    for precision in (EXACT, *HALVES):
        deep = PRESETS[PRESET].features.deep.model_copy(update={"precision": precision})
        seen[precision] = look(data, load_featuriser(FeatureSpec(kind="hybrid", deep=deep)), seeds)
    spec = ClassifierSpec(kind="forest", trees=trees)
    found: dict[str, Any] = {
        precision: {"relative": relative_error(seen[precision], seen[EXACT]), "rows": []}
        for precision in seen
    }
    for seed in seeds:
        fits = {
            precision: PixelClassifier.fit(part.training[seed], spec, seed=seed, n_jobs=threads)
            for precision, part in seen.items()
        }
        exact = fits[EXACT].predict(seen[EXACT].test, threads=threads)
        other = PixelClassifier.fit(
            seen[EXACT].training[seed], spec, seed=seed + OTHER_SEED, n_jobs=threads
        ).predict(seen[EXACT].test, threads=threads)
        for precision, part in seen.items():
            trained_exact = fits[EXACT].predict(part.test, threads=threads)
            own = other if precision == EXACT else fits[precision].predict(part.test, threads=threads)
            found[precision]["rows"].append(
                {
                    "changed": _share(trained_exact, exact),
                    "miou": _miou(trained_exact, part.truth, len(data.classes)),
                    "changed_own": _share(own, exact),
                    "miou_own": _miou(own, part.truth, len(data.classes)),
                }
            )
    return found


def relative_error(found: Seen, exact: Seen) -> dict[str, float]:
    """Return the error of deep features: relative to their length, and to how much they vary over pixels."""
    deep = exact.groups["deep"]
    truth = exact.test[:, deep].astype(np.float64)
    error = float(np.linalg.norm(found.test[:, deep] - truth))
    varying = float(np.linalg.norm(truth - truth.mean(axis=0)))
    length = float(np.linalg.norm(truth))
    return {"of_length": round(error / length, 6), "of_variation": round(error / varying, 6)}


def measure_compile(side: int, repeats: int = 12) -> dict[str, float]:
    """Measure ``torch.compile`` of the network's layers on one thread of the CPU.

    Returns
    -------
    dict
        ``ratio`` of CPU times, compiled by plain, median of pairs taken in turn; ``first_s`` of the first
        pass, in which it compiles; relative ``error``.
    """
    images = torch.rand(1, 1, side, side)
    plain, compiled = load_backbone("dinov2_vits14"), load_backbone("dinov2_vits14")
    for block in compiled.net.blocks:
        block.compile(dynamic=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        began = time.perf_counter()
        found = compiled.tokens(images, blocks=(DEFAULT_BLOCK,)).features
        first = time.perf_counter() - began
        exact = plain.tokens(images, blocks=(DEFAULT_BLOCK,)).features
        pairs = []
        for _ in range(repeats):
            seconds = []
            for backbone in (plain, compiled):
                began = time.process_time()
                backbone.tokens(images, blocks=(DEFAULT_BLOCK,))
                seconds.append(time.process_time() - began)
            pairs.append(seconds[1] / seconds[0])
    finally:
        torch.set_num_threads(threads)
    error = float((found - exact).norm() / exact.norm())
    return {"ratio": round(statistics.median(pairs), 3), "first_s": round(first, 1), "error": error}


def _share(labels: NDArray[np.uint16], others: NDArray[np.uint16]) -> float:
    return round(float((labels != others).mean()), 6)


def _miou(labels: NDArray[np.uint16], truth: NDArray[np.uint8], classes: int) -> float:
    return round(float(mean_iou(Confusion.of(labels, truth, classes).matrix)), 4)


def render(figures: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Return the page."""
    parts = [
        f"""# Half precision

Made by `python -m benchmarks.studies.precision{" --compile" if "compile" in figures else ""}`.
{describe_machine(args.threads)}

Crops of {args.side} x {args.side} pixels of each data set, {TRAIN} with strokes (`tools/scribbles.py`),
{TEST} of other planes to compare with; hybrid features of `{PRESET}`, a forest of {args.trees} trees,
means over {len(args.seeds)} drawings. Only the network's arithmetic differs. *Error*: of its features,
relative to their length and to how much they vary over the pixels. *Moved*: the forest was trained on
features of fp32 and predicts those of the row, as where a model moves to a GPU. *Alike*: it was trained on
the features that it predicts; in the row of fp32 this is another seed of the forest, to show what a change is
worth.
*Changed*: share of labels that are not those of fp32.

"""
    ]
    rows = []
    for name in (name for name in DENSE if name in figures):
        for precision, found in figures[name].items():
            of = found["relative"]

            def mean(key: str, rows: Sequence[Mapping[str, float]] = found["rows"]) -> float:
                return float(np.mean([row[key] for row in rows]))

            cells = [
                name,
                precision,
                f"{of['of_length']:.4f}",
                f"{of['of_variation']:.4f}",
                f"{mean('changed'):.2%}",
                f"{mean('miou'):.3f}",
                f"{mean('changed_own'):.2%}",
                f"{mean('miou_own'):.3f}",
            ]
            rows.append(cells)
    head = ["data", "precision", "error / length", "error / variation"]
    parts.append(table([*head, "moved: changed", "mIoU", "alike: changed", "mIoU"], rows))
    if "compile" in figures:
        found = figures["compile"]
        parts.append(f"""
## torch.compile

Blocks compiled one by one (`dynamic=False`), an image of {args.side} x {args.side} pixels, fp32, one thread
of the CPU: {found["ratio"]:.2f} times the time of the plain network (median of pairs taken in turn), after
{found["first_s"]:.0f} s of compiling in each process, and other last bits (relative difference
{found["error"]:.0e}). It is not part of hrvol; what it gives on a GPU was not measured.
""")
    return "".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.precision", description=__doc__)
    parser.add_argument("--datasets", nargs="*", choices=DENSE, default=list(DENSE))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=cpus())
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/precision.md"))
    return parser


if __name__ == "__main__":
    main()
