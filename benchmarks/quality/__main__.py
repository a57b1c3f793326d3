"""Measure segmentation quality on the shared micrographs: ``python -m benchmarks.quality``.

Writes a Markdown page, its figures as JSON and a picture, side by side, after each data set. With ``--add``
page and JSON keep the figures of data sets that are not measured now.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import DENSE, REFERENCED, STROKED, Dense, load_dense, load_stroked
from benchmarks.machine import describe_machine, log
from benchmarks.quality.contest import CLASSIFIERS, KINDS, PRODUCT, Entry
from benchmarks.quality.dense import DenseResult, measure_dense
from benchmarks.quality.figure import Row, save_overview
from benchmarks.quality.sampling import PER_CLASS, SAMPLING
from benchmarks.quality.sparse import label_image, leave_one_out
from benchmarks.quality.strokes import draw
from benchmarks.quality.tables import render
from benchmarks.results import load, save_parts
from hrvol.device import cpus
from hrvol.errors import HrvolError
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.quality.metrics import Confusion, iou_per_class, mean_iou, pixel_accuracy
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.recipe.specs import FeatureSpec

ALL = (*DENSE, STROKED, *REFERENCED)
_REFERENCE = {"classical": "rf_nocrf", "deep": "dv2_nocrf", "hybrid": "hybrid_nocrf", PRODUCT: "hybrid_nocrf"}
_NOTES = {"vnc": " Classes 4 and 5 are counted as class 1."}


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return _run(args)
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    figures = args.output.with_suffix(".json")
    parts = load(figures) if args.add else {}
    rows = []
    for name in args.datasets:
        began = time.process_time()
        if name in DENSE:
            parts[name], row = _dense(name, args)
            rows.append(row)
        elif name == STROKED:
            parts[name] = _stroked(name, args)
        else:
            parts[name] = _referenced(name, args)
        parts[name] |= {
            "options": _options(args),
            "machine": describe_machine(args.threads),
            "cpu_seconds": round(time.process_time() - began),
        }
        parts = {key: parts[key] for key in ALL if key in parts}
        save_parts(figures, parts)
        _write(parts, args)
        if rows:
            save_overview(rows, args.output.with_suffix(".png"))
        log(f"{name}: {args.output} written")
    if not args.datasets:
        _write(parts, args)
    return 0


def _write(parts: Mapping[str, Any], args: argparse.Namespace) -> None:
    args.output.write_text(render(parts, _commands(parts)), encoding="utf-8")


def _dense(name: str, args: argparse.Namespace) -> tuple[dict[str, Any], Row]:
    data = load_dense(name)
    step = max(1, args.step // 2) if name == "super1" else args.step  # its planes are half as wide
    strokes = {seed: draw(data, seed) for seed in args.seeds}
    result = DenseResult()
    for preset in args.presets:
        found = measure_dense(
            data,
            strokes,
            _featuriser(preset),
            _classifiers(args),
            preset=preset,
            recipe=_sampling(args),
            step=step,
            threads=args.threads,
            log=log,
        )
        result.update(found)
    rows = []
    for entry in _sorted(result.confusions):
        matrices = [confusion.matrix for confusion in result.confusions[entry].values()]
        ious = [[round(float(iou), 5) for iou in iou_per_class(matrix)] for matrix in matrices]
        rows.append(_row(entry) | {"miou": [round(mean_iou(m), 5) for m in matrices], "iou": ious})
    total = sum(confusion.matrix.sum() for confusion in next(iter(result.confusions.values())).values())
    part = {
        "what": "dense",
        "classes": data.classes,
        "seeds": args.seeds,
        "train": len(data.train),
        "test": len(data.test),
        "step": step,
        "compared": int(total) // len(args.seeds),
        "note": _NOTES.get(name, ""),
        "rows": rows,
    }
    return part, _picture(data, result, args.seeds[0], step)


def _picture(data: Dense, result: DenseResult, seed: int, step: int) -> Row:
    """Return the maps of the first test plane, with the default classifier if it was measured."""
    preset = next(iter(result.maps)).preset
    shown = [entry for entry in result.maps if entry.preset == preset]
    measured = [entry.classifier for entry in shown]
    classifier = "vote" if "vote" in measured else measured[-1]
    z = data.test[0]
    maps = {"truth": data.truth[z]}
    scores = {}
    for entry in _sorted(shown):
        if entry.classifier == classifier:
            maps[entry.features] = result.maps[entry]
            confusion = Confusion.of(result.maps[entry], data.truth[z, ::step, ::step], len(data.classes))
            scores[entry.features] = mean_iou(confusion.matrix)
    return Row(f"{data.name}: {classifier}, seed {seed}", data.images[z], maps, scores)


def _stroked(name: str, args: argparse.Namespace) -> dict[str, Any]:
    data = load_stroked(name)
    found: dict[Entry, list[Confusion]] = {}
    for preset in args.presets:
        found |= leave_one_out(
            data,
            _featuriser(preset),
            _classifiers(args),
            preset=preset,
            recipe=_sampling(args),
            threads=args.threads,
            log=log,
        )
    rows = [
        _row(entry)
        | {
            "miou": [round(mean_iou(confusion.matrix), 5) for confusion in found[entry]],
            "accuracy": [round(pixel_accuracy(confusion.matrix), 5) for confusion in found[entry]],
        }
        for entry in _sorted(found)
    ]
    return {"what": "stroked", "classes": data.classes, "images": len(data.images), "rows": rows}


def _referenced(name: str, args: argparse.Namespace) -> dict[str, Any]:
    data = load_stroked(name)
    rows = []
    for preset in args.presets:
        found = label_image(
            data,
            _featuriser(preset),
            _classifiers(args),
            seeds=args.seeds,
            preset=preset,
            threads=args.threads,
            log=log,
        )
        for entry in _sorted(found):
            reference = _REFERENCE[entry.features]
            truth = data.references[reference]
            equal = [round(float((labels == truth).mean()), 5) for labels in found[entry]]
            rows.append(_row(entry) | {"reference": reference, "equal": equal})
    return {"what": "referenced", "classes": data.classes, "seeds": args.seeds, "rows": rows}


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what figures depend on."""
    return {name: getattr(args, name) for name in ("seeds", "presets", "classifiers", "step", "per_class")}


def _sampling(args: argparse.Namespace) -> Recipe:
    """Return the default recipe with the requested number of samples per class."""
    return SAMPLING.with_(**{"classifier.samples_per_class": args.per_class})


def _classifiers(args: argparse.Namespace) -> dict[str, Any]:
    return {name: CLASSIFIERS[name] for name in CLASSIFIERS if name in args.classifiers}


def _featuriser(preset: str) -> Featuriser:
    return load_featuriser(FeatureSpec(kind="hybrid", deep=PRESETS[preset].features.deep))


def _sorted(entries: Mapping[Entry, Any] | Sequence[Entry]) -> list[Entry]:
    """Return entries by preset, classifier and kind of features, without classical ones of later presets.

    Classical features are the same with every preset.
    """
    entries = list(entries)
    presets = list(dict.fromkeys(entry.preset for entry in entries))
    order = [*KINDS, PRODUCT]
    kept = [entry for entry in entries if entry.features != "classical" or entry.preset == presets[0]]
    names = list(CLASSIFIERS)
    return sorted(
        kept,
        key=lambda e: (presets.index(e.preset), names.index(e.classifier), order.index(e.features)),
    )


def _row(entry: Entry) -> dict[str, Any]:
    return {"preset": entry.preset, "features": entry.features, "classifier": entry.classifier}


def _commands(parts: Mapping[str, Any]) -> str:
    """Return the commands that reproduce all parts, one per group of data sets with the same options."""
    together: dict[str, list[str]] = {}
    for name, part in parts.items():
        together.setdefault(json.dumps(part["options"]), []).append(name)
    lines = []
    for number, (text, names) in enumerate(together.items()):
        options = json.loads(text)
        words = ["python", "-m", "benchmarks.quality", "--datasets", *names]
        words += ["--seeds", *map(str, options["seeds"]), "--presets", *options["presets"]]
        if options["step"] != 1:
            words += ["--step", str(options["step"])]
        if options["per_class"] != PER_CLASS:
            words += ["--per-class", str(options["per_class"])]
        if set(options["classifiers"]) != set(CLASSIFIERS):
            words += ["--classifiers", *options["classifiers"]]
        lines.append(shlex.join(words + ["--add"] * bool(number)))
    return "\n".join(lines)


def _data_set(name: str) -> str:
    if name not in ALL:
        raise argparse.ArgumentTypeError(f"found {name}, expected one of {', '.join(ALL)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    add = parser.add_argument
    names = f"of {', '.join(ALL)}; default all; none with --add: only render the page again"
    add("--datasets", nargs="*", type=_data_set, default=list(ALL), metavar="NAME", help=names)
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of strokes and classifiers")
    add(
        "--presets",
        nargs="+",
        choices=("fast", "balanced", "best", "fast-0.1", "balanced-0.1", "best-0.1", "paper"),
        default=["balanced"],
    )
    add("--classifiers", nargs="+", choices=tuple(CLASSIFIERS), default=list(CLASSIFIERS), metavar="NAME")
    add("--step", type=int, default=1, help="compare every n-th row and column (super1: every n/2-th)")
    add(
        "--per-class",
        type=int,
        default=PER_CLASS,
        metavar="N",
        help="samples of a class, on dense data and tcells",
    )
    add("--threads", type=int, default=cpus())
    add("--add", action="store_true", help="keep the figures of other data sets in the JSON")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("benchmarks/quality/quality.md"),
        help="the Markdown page",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
