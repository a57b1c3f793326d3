"""Compare nvForest on the CPU with scikit-learn's trees: ``python -m benchmarks.studies.nvforest``.

nvForest needs packages of several GB, so it lives in an environment of its own, whose interpreter is given by
``--python``: with nvforest-cu13, scikit-learn as here, skops, array-api-compat, pydantic, pyyaml and
threadpoolctl. This process trains a forest on strokes and computes the features of a tile; that one predicts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.markdown import table as markdown_table
from hrvol.segment.estimators.estimators import probabilities
from hrvol.segment.estimators.nvforest import load_trees, predict_trees
from hrvol.segment.estimators.validate import TRUSTED_TYPES

STRIPE = 64
"""Rows of a tile predicted at once, as the package does."""

CHUNK = 4096
"""Pixels that a thread of scikit-learn's predicts at once, as the package does."""

LAYOUTS = ("depth_first", "breadth_first", "layered")

CONCLUSION = """**On a CPU** hrvol still uses scikit-learn's trees. nvForest adds trees up in groups of
64 and multiplies by the inverse of their number, so that probabilities differ in the last bits of float64.
Rounded to float32 they were the same here, but nothing promises it, and a worker that has nvForest must give
the bits of one that has not. Besides, it is no faster in double precision (super1, an idle machine: 0.6 to
0.7 times as fast), holds Python's lock while it works, and its packages take 2.4 GB.

**On a GPU** features differ from those of a CPU by rounding anyway. There a forest predicts in single
precision, with thresholds rounded down: half the memory traffic, and labels differ only where two classes are
as good as equal. On an H100 a tile of 518 x 518 took 8.4 ms (`benchmarks/studies/gpu_parts.md`)."""
"""Conclusions for the package."""

Ask = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    args = _parser().parse_args(arguments)
    if args.ask is not None:
        print(json.dumps(compare(args.ask, args.threads, args.rounds, args.side)))
        return
    from benchmarks.machine import describe_machine

    tables = []
    for name in args.data:
        with tempfile.TemporaryDirectory() as folder:
            facts = train(name, Path(folder), args.side, args.trees)
            command = [
                args.python,
                "-m",
                "benchmarks.studies.nvforest",
                "--ask",
                folder,
                "--side",
                str(args.side),
            ]
            command += ["--rounds", str(args.rounds), "--threads", *map(str, args.threads)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        tables.append(table(name, facts, json.loads(done.stdout.splitlines()[-1])))
        print(tables[-1], flush=True)
    text = f"""# Forest predictions of nvForest on the CPU

Made by `python -m benchmarks.studies.nvforest`. {describe_machine(max(args.threads))}

The forest of the default vote ({args.trees} trees) is trained on strokes on two crops ({args.side} px a
side, or as large as planes are; hybrid features of the preset fast), and predicts every pixel of a
third. scikit-learn's trees are used as the package does, {CHUNK} pixels a thread; nvForest with as many
threads of its own. Ways are measured in turn, {args.rounds} times: the least seconds, by the clock and of
all cores; "times as fast" is the median over rounds of the CPU time of scikit-learn's trees on as many
threads, divided by the way's, because the machine had other work to do. "bits": share of the pixels whose
probabilities are all the same when they are rounded to float32, as the package keeps them. "single, down":
thresholds are rounded down to float32, so that float32 features fall into the same leaves; "single":
nvForest rounds them to the nearest.

"""
    args.output.write_text(text + "\n\n".join([*tables, CONCLUSION]) + "\n", encoding="utf-8")


def train(name: str, folder: Path, side: int, trees: int) -> dict[str, Any]:
    """Train a forest, compute the features of a tile, and leave both in a folder for :func:`compare`.

    Returns
    -------
    dict
        ``classes``, ``samples``, ``columns`` and ``nodes``.
    """
    import skops.io

    from benchmarks.quality.crops import crops_of, look
    from hrvol.features.featuriser import load_featuriser
    from hrvol.recipe.recipe import PRESETS
    from hrvol.recipe.specs import ClassifierSpec
    from hrvol.segment.estimators.estimators import fit_classifier

    spec = ClassifierSpec(kind="forest", trees=trees)
    crops = crops_of(name, train=2, test=1, side=side)
    featuriser = load_featuriser(PRESETS["fast"].features, device="cpu")
    seen = look(crops, featuriser, [0], step=1, cap=spec.samples_per_class or 2000)
    samples = seen.training[0]
    forest = fit_classifier(spec, samples.features, samples.labels, 0, n_jobs=2)
    np.save(folder / "features.npy", seen.test)
    skops.io.dump(forest, folder / "forest.skops")
    nodes = sum(member.tree_.node_count for member in forest.estimators_)
    return {
        "classes": len(forest.classes_),
        "samples": len(samples.labels),
        "columns": seen.test.shape[1],
    } | {"nodes": nodes}


def compare(folder: Path, threads: Sequence[int], rounds: int, side: int) -> dict[str, Any]:
    """Predict a tile with scikit-learn's trees and with nvForest, in turn.

    Returns
    -------
    dict
        ``load`` before and after, ``versions``, and ``rows``: a mapping for each way.
    """
    import nvforest
    import skops.io
    import treelite

    forest = skops.io.load(folder / "forest.skops", trusted=list(TRUSTED_TYPES))
    features = np.load(folder / "features.npy")
    load = [os.getloadavg()[0]]
    ways: dict[tuple[str, int], Ask] = {}
    for count in threads:
        ways["scikit-learn's trees", count] = partial(_by_trees, forest, count)
        for layout in LAYOUTS:
            ways[f"nvForest, double, {layout}", count] = partial(
                _by_nvforest, load_trees(forest, gpu=False, layout=layout), count
            )
        nearest = nvforest.load_from_sklearn(forest, device="cpu", precision="single")
        down = load_trees(forest, gpu=False, precision="single")
        for kind, trees in (("single", nearest), ("single, down", down)):
            ways[f"nvForest, {kind}, depth_first", count] = partial(_by_nvforest, trees, count)
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in ways}
    found: dict[tuple[str, int], NDArray[np.floating[Any]]] = {}
    rows = STRIPE * side
    for _ in range(rounds):
        for way, ask in ways.items():
            began = time.perf_counter(), time.process_time()
            parts = [ask(features[start : start + rows]) for start in range(0, len(features), rows)]
            seconds[way].append((time.perf_counter() - began[0], time.process_time() - began[1]))
            found[way] = np.concatenate(parts)
    load.append(os.getloadavg()[0])
    expected = found["scikit-learn's trees", threads[0]]
    results = []
    for (name, count), spent in seconds.items():
        ours = seconds["scikit-learn's trees", count]
        proba = found[name, count]
        results.append(
            {
                "way": name,
                "threads": count,
                "seconds": min(wall for wall, _ in spent),
                "cpu_seconds": min(cpu for _, cpu in spent),
                "factor": median(trees / cpu for (_, trees), (_, cpu) in zip(ours, spent, strict=True)),
                "difference": float(np.abs(proba - expected).max()),
                "bits": float((proba.astype(np.float32) == expected.astype(np.float32)).all(axis=1).mean()),
                "labels": int((_labels(proba) != _labels(expected)).sum()),
            }
        )
    versions = {"nvforest": nvforest.__version__, "treelite": treelite.__version__}
    return {"load": load, "versions": versions, "pixels": len(features), "rows": results}


def table(name: str, facts: dict[str, Any], found: dict[str, Any]) -> str:
    """Return the table of a data set as Markdown."""
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    about = (
        f"**{name}**: {facts['classes']} classes, {facts['samples']} samples, {facts['columns']} columns, "
        f"{facts['nodes']} nodes; {found['pixels']} pixels; {versions}; load of the machine "
        f"{found['load'][0]:.1f} before and {found['load'][1]:.1f} at the end."
    )
    head = [
        "way",
        "threads",
        "seconds",
        "CPU s",
        "times as fast",
        "largest difference",
        "bits",
        "other labels",
    ]
    rows = [
        [
            row["way"],
            row["threads"],
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['factor']:.2f}",
            f"{row['difference']:.1e}",
            f"{100 * row['bits']:.4f} %",
            row["labels"],
        ]
        for row in found["rows"]
    ]
    return f"{about}\n\n{markdown_table(head, rows).rstrip()}"


def _by_trees(forest: Any, threads: int, features: NDArray[np.float32]) -> NDArray[np.float64]:
    chunks = [features[start : start + CHUNK] for start in range(0, len(features), CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(partial(probabilities, forest), chunks)))


def _by_nvforest(trees: Any, threads: int, features: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    with threadpool_limits(threads):
        found: NDArray[np.floating[Any]] = predict_trees(trees, features)
    return found


def _labels(proba: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the likeliest class of probabilities as the package keeps them."""
    return proba.astype(np.float32).argmax(axis=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has nvForest")
    parser.add_argument("--data", nargs="+", default=["super1", "ebc2"])
    parser.add_argument("--side", type=int, default=518)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/nvforest.md"))
    return parser


if __name__ == "__main__":
    main()
