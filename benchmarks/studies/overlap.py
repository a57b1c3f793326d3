"""Measure how much context tiles need: ``python -m benchmarks.studies.overlap``.

Planes are labelled in tiles of 518 x 518 pixels with more or less overlap, and once in a single window that
holds the whole plane. Where tiles meet, they are compared with that; everywhere, with the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import Dense, load_dense
from benchmarks.machine import describe_machine
from benchmarks.markdown import line, table
from benchmarks.quality.strokes import draw
from hrvol.device import cpus
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.recipe import Recipe
from hrvol.run.options import PredictOptions
from hrvol.run.predict import predict_part, read_window
from hrvol.segment.model.model import Model
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import Block, whole
from hrvol.volume.volume import open_volume

WINDOW = 518
OVERLAPS = (0, 14, 35, 70)
STRIP = 7
"""Pixels on either side of a face between tiles that are compared."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Labels ``(Y, X)``, probabilities ``(K, Y, X)`` in 0..1, and the seconds to compute them."""

    labels: NDArray[np.uint16]
    chances: NDArray[np.float32]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    parts = [
        f"""# Overlap of tiles

Made by `python -m benchmarks.studies.overlap`. {describe_machine(args.threads)}

One plane of each data set, features of `{args.preset}` and its classifier, trained on strokes of the training
planes. Tiles are {WINDOW} x {WINDOW} pixels; they own all but the overlap on both sides.
*Faces*: pixels at most {STRIP} px from where tiles meet, compared with the plane in one window: share of
labels that differ, and mean difference of probabilities. *Elsewhere*: the same of all other pixels, which is
what another context changes without any seam. *Steps at faces*: how much more often labels of neighbours
differ across a face than beside it. Cost is the area that tiles see, of the area of the plane.
"""
    ]
    for name in args.datasets:
        data = load_dense(name)
        for kind in args.kinds:
            recipe = Recipe.load(args.preset).with_(**{"features.kind": kind})
            model = train_model([(data.images, draw(data, 0))], recipe=recipe)
            featuriser = load_featuriser(model.recipe.features)
            parts.append(_table(name, kind, data, model, featuriser))
            args.output.write_text("\n".join(parts), encoding="utf-8")


def _table(name: str, kind: str, data: Dense, model: Model, featuriser: Featuriser) -> str:
    z = data.test[0]
    side = max(data.images.shape[1:])
    single = label(data.images[z], _tiled(model, core=side, overlap=0, blend=0), featuriser)
    rows = [["one window", *[""] * 6, f"{_miou(single, data, z):.4f}", f"{single.seconds:.0f}"]]
    for overlap in OVERLAPS:
        if overlap < featuriser.halo:
            continue  # refused by the package: filters would reach beyond the tile
        core = WINDOW - 2 * overlap
        found = label(
            data.images[z], _tiled(model, core=core, overlap=overlap, blend=min(7, overlap)), featuriser
        )
        faces = near_faces(found.labels.shape, core)
        differ = found.labels != single.labels
        apart = np.abs(found.chances - single.chances).mean(axis=0)
        tiles = np.prod([-(-length // core) for length in found.labels.shape])
        cells = [
            f"{overlap}",
            f"{tiles * WINDOW**2 / differ.size:.2f}",
            *(f"{value:.2%}" for value in (differ[faces].mean(), differ[~faces].mean())),
            *(f"{value:.4f}" for value in (apart[faces].mean(), apart[~faces].mean())),
            f"{steps(found.labels, core):.2f}",
            f"{_miou(found, data, z):.4f}",
            f"{found.seconds:.0f}",
        ]
        rows.append(cells)
        print(name, kind, line(cells), flush=True)
    head = ["overlap", "cost", "labels at faces", "elsewhere", "probabilities at faces", "elsewhere"]
    text = table([*head, "steps at faces", "mIoU", "seconds"], rows)
    return f"\n## {name}, {kind}\n\n{text.rstrip()}"


def _tiled(model: Model, **tiles: int) -> Model:
    changes: dict[str, Any] = {f"tiles.{key}": value for key, value in tiles.items()}
    return replace(model, recipe=model.recipe.with_(**changes))


def label(image: NDArray[np.uint8], model: Model, featuriser: Featuriser) -> Plane:
    """Label a plane: all its tiles, blended as within a block."""
    began = time.monotonic()
    volume = open_volume(image)
    part = whole(volume.shape)
    block = Block((0, 0, 0), part)
    raw = read_window(volume, block, part, model)
    found = predict_part(raw, volume, block, part, model, featuriser, PredictOptions(True, threads=cpus()))
    assert found.probabilities is not None
    chances = found.probabilities[:, 0].astype(np.float32) / 255
    return Plane(found.labels[0], chances, time.monotonic() - began)


def near_faces(shape: tuple[int, int], core: int) -> NDArray[np.bool_]:
    """Return which pixels of a plane lie near a face between tiles."""
    near = np.zeros(shape, bool)
    for axis, length in enumerate(shape):
        for face in range(core, length, core):
            np.moveaxis(near, axis, 0)[max(0, face - STRIP) : face + STRIP] = True
    return near


def steps(labels: NDArray[np.uint16], core: int) -> float:
    """Return how often labels differ across a face between tiles, of how often beside it; 1: no seam."""
    across, beside = [], []
    for axis in (0, 1):
        rows = np.moveaxis(labels, axis, 0)
        for face in range(core, len(rows), core):
            across.append(rows[face - 1] != rows[face])
            for off in (20, 25, 30):
                for at in (face - off, face + off):
                    if 0 < at < len(rows):
                        beside.append(rows[at - 1] != rows[at])
    return float(np.concatenate(across).mean() / np.concatenate(beside).mean())


def _miou(plane: Plane, data: Dense, z: int) -> float:
    return mean_iou(Confusion.of(plane.labels, data.truth[z], len(data.classes)).matrix)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.overlap", description=__doc__)
    names = ("ebc2", "vnc")  # planes of super1 are smaller than a window
    parser.add_argument("--datasets", nargs="+", choices=names, default=list(names))
    parser.add_argument("--kinds", nargs="+", choices=("deep", "hybrid"), default=["deep", "hybrid"])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--threads", type=int, default=cpus())
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/overlap.md"))
    return parser


if __name__ == "__main__":
    main()
