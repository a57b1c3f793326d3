"""Measure the stages of a segmentation: ``python -m benchmarks.speed.stages``.

The package trains on and labels the vnc volume on one thread, so that the times of the stages add up; the
functions of each stage are wrapped in clocks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from threadpoolctl import threadpool_limits

from benchmarks.data import load_dense
from benchmarks.machine import describe_machine
from benchmarks.markdown import line, table
from benchmarks.quality.strokes import draw
from hrvol.features.deep.backbone import Backbone
from hrvol.features.deep.joint_grid import JointGrid, JointTokens
from hrvol.features.deep.token_grids import TokenGrids
from hrvol.features.filters import bank as classical
from hrvol.recipe.recipe import PRESETS
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import load_model, save_model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.volume import Volume

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "network": ((Backbone, "tokens"),),
    "spreading": ((JointGrid, "add_up"), (JointTokens, "spread"), (TokenGrids, "spread")),
    "filters": ((classical, "classical_features"),),
    "classifier": ((PixelClassifier, "predict_proba"),),
    "input and output": ((Volume, "read"), (LabelStore, "write"), (LabelStore, "checksums")),
}
"""Stage -> functions, none of which calls another."""

STROKES = 40


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    data = load_dense("vnc")
    volume = data.images[: args.planes]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for preset in args.presets:
            path = (args.models or Path(name)) / f"{preset}.hrvol"
            if not path.is_file():
                trained(preset, path)
            model = load_model(path)
            # A tile before the clocks run: the network is loaded once per process.
            segment_volume(volume[:1, :448, :448], Path(name) / f"{preset}-first.ome.zarr", model)
            out = Path(name) / f"{preset}.ome.zarr"
            spent: Counter[str] = Counter()
            with clocks(spent), threadpool_limits(1):
                began = time.perf_counter()
                report = segment_volume(volume, out, model)
                whole = time.perf_counter() - began
            assert not report.failed, report.failed
            rows.append(row(preset, spent, whole, volume.size))
            print(line(rows[-1]), flush=True)
    head = ["preset", "seconds", "us per voxel", *STAGES, "the rest"]
    text = f"""# Where the time goes

Made by `python -m benchmarks.speed.stages`. {describe_machine(1)}

The vnc volume (planes of {data.images.shape[1]} x {data.images.shape[2]}, {args.planes} of
{len(data.images)}), trained on {STROKES} strokes per class on one plane and labelled by `segment_volume` on
one thread. Shares of the whole, tiling, blending and the store included, loading the network (once per
process) not. *Classifier*: a vote of {PRESETS["balanced"].classifier.trees} trees and a logistic regression.

{table(head, rows)}"""
    args.output.write_text(text, encoding="utf-8")


def trained(preset: str, path: Path) -> None:
    """Store a model, trained on as many strokes as all training planes have, on one plane.

    In a process of its own, which may use all threads.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(_train, preset, path).result()


def _train(preset: str, path: Path) -> None:
    data = load_dense("vnc")
    strokes = draw(data, 0, planes=data.train[:1], strokes=STROKES)
    save_model(train_model([(data.images, strokes)], recipe=PRESETS[preset]), path)


def row(preset: str, spent: Counter[str], whole: float, voxels: int) -> list[str]:
    """Return a row of the table."""
    shares = [spent[stage] / whole for stage in STAGES]
    cells = [f"{share:.1%}" for share in (*shares, 1 - sum(shares))]
    return [preset, f"{whole:.0f}", f"{whole / voxels * 1e6:.1f}", *cells]


@contextmanager
def clocks(spent: Counter[str]) -> Iterator[None]:
    """Add up the seconds of each stage while the ``with`` statement lasts."""

    def timed(stage: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[stage] += time.perf_counter() - began

        return call

    with ExitStack() as stack:
        for stage, functions in STAGES.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.stages", description=__doc__)
    presets = ("fast", "balanced", "best")
    parser.add_argument("--presets", nargs="+", choices=presets, default=list(presets))
    parser.add_argument("--planes", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder for models; existing ones are not trained again")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/speed/stages.md"))
    return parser


if __name__ == "__main__":
    main()
