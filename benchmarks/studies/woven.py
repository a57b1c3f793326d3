"""Compare woven views with views at all offsets: ``python -m benchmarks.studies.woven``.

Hybrid features and the default classifier, trained on strokes of some planes, are compared with the truth of
whole other planes (every third row and column). On ``tcells`` images with strokes are left out in turn and
their strokes are the truth; of ``superalloy`` and ``nanoparticles`` there is one image with strokes and truth
each. Crops of more data sets are in ``benchmarks.quality.presets``. The network is computed by the fastest
backend that is installed. Figures are kept as JSON beside the page, and are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data import DENSE, FURTHER, data_dir, load_dense, load_stroked
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.sampling import PER_CLASS, plane_stripes, samples_of
from benchmarks.quality.strokes import draw
from benchmarks.results import load, save
from hrvol.backend import choose_backend
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import DeepSpec
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.volume.volume import open_volume

OUTPUT = Path(__file__).parent / "woven.md"

HUMAN = ("superalloy", "nanoparticles")

ALL = (*DENSE, *FURTHER, "tcells", *HUMAN)

BASE = DeepSpec(block=6, offsets=2)

WAYS: Mapping[str, tuple[int, DeepSpec]] = {
    "4 offsets": (4, BASE),
    "mirrored, woven": (4, BASE.model_copy(update={"flips": True, "weave": 1})),
    "mirrored and turned, woven": (8, BASE.model_copy(update={"flips": True, "rotations": True, "weave": 1})),
    "mirrored, 4 offsets": (16, BASE.model_copy(update={"flips": True})),
    "mirrored and turned, woven twice": (
        16,
        BASE.model_copy(update={"flips": True, "rotations": True, "weave": 2}),
    ),
    "mirrored and turned, 4 offsets": (32, BASE.model_copy(update={"flips": True, "rotations": True})),
}
"""Passes of the network and deep features. Not woven: ``fast``, ``balanced`` and ``best`` of 0.1."""

AGAINST = {
    "mirrored, woven": "4 offsets",
    "mirrored and turned, woven": "mirrored, 4 offsets",
    "mirrored and turned, woven twice": "mirrored, 4 offsets",
}

STEP = 3


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images, strokes of several drawings, and what is compared.

    Attributes
    ----------
    images, truth
        ``(Z, Y, X)``; 0 is not compared.
    strokes
        Drawing -> ``(Z, Y, X)``.
    test
        Planes that are compared.
    classes
        Number of classes.
    """

    images: NDArray[Any]
    truth: NDArray[np.uint8]
    strokes: Mapping[int, NDArray[np.uint8]]
    test: tuple[int, ...]
    classes: int


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    figures = args.output.with_suffix(".json")
    found = load(figures)
    for name in args.datasets:
        drawn = _tcells() if name == "tcells" else _human(name) if name in HUMAN else _dense(name, args)
        for way in args.ways:
            if (key := f"{name} | {way}") not in found:
                began = time.process_time()
                miou = measure(name, drawn, WAYS[way][1])
                found[key] = {"miou": miou, "cpu_seconds": round(time.process_time() - began)}
                save(figures, found)
                log(f"{key}: {np.mean(miou):.4f} {miou}")
    args.output.write_text(render(found), encoding="utf-8")
    return 0


def measure(name: str, drawn: Drawn, deep: DeepSpec) -> list[float]:
    """Return the mean IoU of each drawing."""
    recipe = Recipe().with_(**{"features.deep": deep, "classifier.samples_per_class": PER_CLASS})
    featuriser = load_featuriser(recipe.features, backend="auto")
    samples = samples_of(drawn.images, drawn.strokes, featuriser, recipe=recipe)
    if name == "tcells":
        return [_left_out(samples[0], featuriser, recipe, seed, drawn.classes) for seed in range(5)]
    models = {seed: _fit(training, featuriser, recipe, seed) for seed, training in samples.items()}
    volume = open_volume(drawn.images)
    total: dict[int, Any] = {}
    for z in drawn.test:
        truth = drawn.truth[z, ::STEP, ::STEP]
        for where, features in plane_stripes(volume, z, featuriser, recipe=recipe, step=STEP):
            pixels = np.ascontiguousarray(features).reshape(-1, features.shape[-1])
            for seed, model in models.items():
                labels = 1 + model.predict_proba(pixels, threads=1).argmax(axis=1)
                counted = Confusion.of(labels.astype(np.uint8), truth[where].ravel(), drawn.classes)
                total[seed] = total[seed] + counted if seed in total else counted
    return [round(mean_iou(total[seed].matrix), 5) for seed in models]


def _fit(samples: Samples, featuriser: Featuriser, recipe: Recipe, seed: int) -> PixelClassifier:
    return PixelClassifier.fit(samples, recipe.classifier, grey=featuriser.grey, seed=seed, n_jobs=1)


def _left_out(samples: Samples, featuriser: Featuriser, recipe: Recipe, seed: int, classes: int) -> float:
    """Return the mean IoU on the strokes of images that are left out in turn."""
    labels = np.zeros(len(samples.labels), np.uint8)
    for image in np.unique(samples.image):
        out = samples.image == image
        kept = Samples(samples.features[~out], samples.labels[~out], samples.image[~out])
        model = _fit(kept, featuriser, recipe, seed)
        labels[out] = 1 + model.predict_proba(samples.features[out], threads=1).argmax(axis=1)
    return round(mean_iou(Confusion.of(labels, samples.labels.astype(np.uint8), classes).matrix), 5)


def _dense(name: str, args: argparse.Namespace) -> Drawn:
    data = load_dense(name)
    strokes = {seed: draw(data, seed) for seed in args.seeds}
    # Evenly spread, so that a volume is not judged by neighbouring planes.
    spread = sorted({*np.linspace(0, len(data.test) - 1, args.planes).astype(int)})
    return Drawn(data.images, data.truth, strokes, tuple(data.test[i] for i in spread), len(data.classes))


def _tcells() -> Drawn:
    data = load_stroked("tcells")
    return Drawn(data.images, data.strokes, {0: data.strokes}, (), len(data.classes))


def _human(name: str) -> Drawn:
    folder = data_dir() / "em_strokes_with_truth"
    image, truth, strokes = (
        np.asarray(Image.open(folder / f"{name}{part}.png"))[None] for part in ("", "_labels", "_strokes")
    )
    truth = truth.astype(np.uint8)
    return Drawn(image, truth, dict.fromkeys(range(5), strokes.astype(np.uint8)), (0,), int(truth.max()))


def render(found: Mapping[str, Any]) -> str:
    """Return the page of results."""
    names = list(dict.fromkeys(key.split(" | ")[0] for key in found))
    command = f"python -m benchmarks.studies.woven --datasets {' '.join(names)}"
    lines = ["# Woven views", "", "Made by", "", "```", command, "```", ""]
    lines += [f"Machine: {describe_machine(1)}; network: {choose_backend('auto', 'cpu').name}.", ""]
    lines += [" ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    ways = [way for way in WAYS if any(f"{name} | {way}" in found for name in names)]
    rows = []
    for name in names:
        row = [name]
        for way in ways:
            values = np.array(found.get(f"{name} | {way}", {}).get("miou", []))
            row.append(f"{values.mean():.3f} ± {values.std():.3f}" if len(values) else "")
        rows.append(row)
    head = ["data set", *(f"{way} ({WAYS[way][0]} passes)" for way in ways)]
    lines += [
        "Mean IoU, mean and standard deviation over drawings (of seeds where there is one drawing).",
        "",
    ]
    lines += [table(head, rows), "", "Differences of the means:", ""]
    rows = []
    for way, other in AGAINST.items():
        both = [n for n in names if f"{n} | {way}" in found and f"{n} | {other}" in found]
        if not both:
            continue
        change = [np.array(found[f"{n} | {way}"]["miou"]) - found[f"{n} | {other}"]["miou"] for n in both]
        means = [float(values.mean()) for values in change]
        worst = int(np.argmin(means))
        better = sum(int((values > 0).sum()) for values in change)
        rows.append(
            [
                f"{way}, less {other}",
                f"{np.mean(means):+.4f}",
                f"{means[worst]:+.4f} ({both[worst]})",
                f"{better} of {sum(len(values) for values in change)}",
            ]
        )
    lines += [table(["ways", "mean of sets", "lowest", "better in"], rows), ""]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.woven", description=__doc__)
    add = parser.add_argument
    add("--datasets", nargs="*", choices=ALL, default=list(ALL), metavar="NAME", help=f"of {', '.join(ALL)}")
    add(
        "--ways",
        nargs="*",
        choices=list(WAYS),
        default=list(WAYS)[:-1],
        metavar="WAY",
        help=f"of {', '.join(WAYS)}",
    )
    add("--seeds", nargs="*", type=int, default=list(range(5)), help="of the drawings")
    add("--planes", type=int, default=4, help="compared at most")
    add("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
