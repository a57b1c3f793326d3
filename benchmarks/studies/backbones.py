"""Compare what computes the network of deep features: ``python -m benchmarks.studies.backbones``.

Models are trained on strokes with the features of each backend, and predict whole planes without strokes.
*torch, then bf16* are models trained with torch that predict with OpenVINO in bfloat16, as models do that
were trained before OpenVINO was installed. Times are those of all features of a tile, one thread, backends
in turn. Figures are kept as JSON beside the page, and are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import DENSE, FURTHER, Dense, load_dense
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.sampling import PER_CLASS, samples_of
from benchmarks.quality.strokes import draw
from benchmarks.results import load, save
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.volume.grid.tiling import blocks, tiles_of
from hrvol.volume.intensity import common_window, read_unit
from hrvol.volume.volume import open_volume

OUTPUT = Path(__file__).parent / "backbones.md"

ALL = (*DENSE, *FURTHER)

WAYS = {
    "torch": ("torch", "torch"),
    "openvino": ("openvino", "openvino"),
    "openvino-bf16": ("openvino-bf16", "openvino-bf16"),
    "torch, then bf16": ("torch", "openvino-bf16"),
}
"""What computes the features of training, and those of prediction."""

STRIPE = 64


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    figures = args.output.with_suffix(".json")
    found = load(figures)
    for name in args.datasets:
        if name not in found:
            found[name] = measure(load_dense(name), args)
            save(figures, found)
            log(f"{name}: {found[name]['miou']}")
    args.output.write_text(render(found, args), encoding="utf-8")
    return 0


def measure(data: Dense, args: argparse.Namespace) -> dict[str, Any]:
    """Return time of a voxel by backend, and mean IoU and changed labels of each way and drawing."""
    recipe = Recipe.load(args.preset).with_(**{"classifier.samples_per_class": PER_CLASS})
    strokes = {seed: draw(data, seed) for seed in args.seeds}
    backends = sorted({backend for pair in WAYS.values() for backend in pair})
    featurisers = {name: load_featuriser(recipe.features, backend=name) for name in backends}
    models = {
        (name, seed): PixelClassifier.fit(
            samples, recipe.classifier, grey=featurisers[name].grey, seed=seed, n_jobs=1
        )
        for name in sorted({training for training, _ in WAYS.values()})
        for seed, samples in samples_of(data.images, strokes, featurisers[name], recipe=recipe).items()
    }
    seconds = dict.fromkeys(backends, 0.0)
    # Evenly spread, so that a volume is not judged by neighbouring planes.
    planes = [data.test[i] for i in sorted({*np.linspace(0, len(data.test) - 1, args.planes).astype(int)})]
    labels = {
        (way, seed): np.zeros((len(planes), *data.images.shape[1:]), np.uint8)
        for way in WAYS
        for seed in strokes
    }
    voxels = 0
    for number, z in enumerate(planes):
        for window, core, images in _features(data, z, recipe, featurisers, seconds):
            voxels += images[backends[0]].shape[0] * images[backends[0]].shape[1]
            for way, (training, predicting) in WAYS.items():
                for seed in strokes:
                    target = labels[way, seed][number][core]
                    target[:] = _predicted(models[training, seed], images[predicting][window])
        log(f"{data.name}: plane {number + 1} of {len(planes)}")
    truth = data.truth[planes]
    return {
        "planes": len(planes),
        "drawings": len(strokes),
        "us": {name: round(1e6 * spent / voxels, 2) for name, spent in seconds.items()},
        "miou": {
            way: [
                round(mean_iou(Confusion.of(labels[way, seed], truth, len(data.classes)).matrix), 5)
                for seed in strokes
            ]
            for way in WAYS
        },
        "changed": {
            way: [round(float((labels[way, seed] != labels["torch", seed]).mean()), 6) for seed in strokes]
            for way in WAYS
        },
    }


def _features(
    data: Dense, z: int, recipe: Recipe, featurisers: Mapping[str, Featuriser], seconds: dict[str, float]
) -> Any:
    """Yield the part of each tile's window that is labelled, where that is, and features by backend."""
    volume = open_volume(data.images)
    window = common_window([volume], recipe.intensity, recipe.seed)
    for block in blocks(volume.shape, recipe.tiles):
        if not block.core[0].start <= z < block.core[0].stop:
            continue
        for tile in tiles_of(block, volume.shape[1:], recipe.tiles):
            image = read_unit(volume, z, tile, window)
            features = {}
            for name, featuriser in featurisers.items():
                began = time.process_time()
                values = featuriser(image)
                seconds[name] += time.process_time() - began
                features[name] = values.permute(1, 2, 0).numpy()
            y0, y1, x0, x1 = tile.core
            yield tile.core_in_window, (slice(y0, y1), slice(x0, x1)), features


def _predicted(model: PixelClassifier, features: NDArray[np.float32]) -> NDArray[np.uint8]:
    found = np.zeros(features.shape[:2], np.uint8)
    for row in range(0, len(features), STRIPE):
        stripe = np.ascontiguousarray(features[row : row + STRIPE])
        proba = model.predict_proba(stripe.reshape(-1, stripe.shape[-1]), threads=1)
        found[row : row + STRIPE] = 1 + proba.argmax(axis=1).reshape(stripe.shape[:2])
    return found


def render(found: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Return the page of results."""
    lines = ["# What computes the network on CPUs", "", "Made by", "", "```"]
    lines += [f"python -m benchmarks.studies.backbones --datasets {' '.join(found)}", "```", ""]
    lines += [f"Machine: {describe_machine(1)}.", "", " ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    rows: list[list[str]] = []
    changes: dict[str, list[float]] = {way: [] for way in WAYS}
    for name, row in found.items():
        exact = np.array(row["miou"]["torch"])
        for way, (_, predicting) in WAYS.items():
            change = np.array(row["miou"][way]) - exact
            changes[way].append(float(change.mean()))
            rows.append(
                [
                    name,
                    way,
                    f"{row['us'][predicting]:.1f}",
                    f"{row['us']['torch'] / row['us'][predicting]:.2f}",
                    f"{100 * np.mean(row['changed'][way]):.2f}",
                    f"{exact.mean():.4f} ± {exact.std():.4f}"
                    if way == "torch"
                    else f"{change.mean():+.4f} ± {change.std():.4f}",
                ]
            )
    for way in list(WAYS)[1:]:
        rows.append(["mean of sets", way, "", "", "", f"{np.mean(changes[way]):+.4f}"])
    head = ["data set", "backend", "us a voxel", "times as fast", "labels changed, %", "mean IoU, change"]
    some = next(iter(found.values()))
    note = (
        f"Preset `{args.preset}`, {some['drawings']} drawings, at most {args.planes} planes of a data set;"
        " mean and standard deviation over drawings."
    )
    return "\n".join([*lines, note, "", table(head, rows), ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.backbones", description=__doc__)
    add = parser.add_argument
    add("--datasets", nargs="*", choices=ALL, default=list(ALL), metavar="NAME", help=f"of {', '.join(ALL)}")
    add("--seeds", nargs="*", type=int, default=list(range(5)), help="of the drawings")
    add("--preset", default="balanced-0.1")
    add("--planes", type=int, default=2, help="compared at most")
    add("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
