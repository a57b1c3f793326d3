"""Measure what projecting tokens before upsampling saves: ``python -m benchmarks.studies.projection``.

Labels of 80 clusters need the scores ``2 mu.F - |mu|^2`` of every pixel. Both ways run in processes of their
own, one after the other, on the same image with the same centroids: tokens -> scores -> pixels, and tokens
-> 384 features a pixel -> scores. Each is measured with the network, and on recorded tokens without it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import load_stroked
from benchmarks.markdown import line, table
from benchmarks.speed.peers import timed
from hrvol.features.deep.backbone import Tokens
from hrvol.features.deep.upsample import Linear, project, upsample
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import Recipe
from hrvol.segment.estimators.estimators import kmeans

CLUSTERS = 80
REPEATS = 3
SAMPLES = 20_000
WAYS = ("before", "after")


class Recorded:
    """A network that records the tokens of another, view after view, and replays them."""

    def __init__(self, backbone: Any) -> None:
        self.device, self.patch = backbone.device, backbone.patch
        self._backbone: Any = backbone
        self._recorded: list[Tokens] = []
        self._next = 0

    def block_numbers(self, block: Any) -> tuple[int, ...]:
        """Return some layer number; only the last one is recorded."""
        return (1,)

    def tokens(self, images: torch.Tensor, **options: Any) -> Tokens:
        """Return tokens of the network and record them, or replay them."""
        if self._backbone is not None:
            numbers = self._backbone.block_numbers("last")
            self._recorded.append(self._backbone.tokens(images, **{**options, "blocks": numbers}))
            return self._recorded[-1]
        tokens = self._recorded[self._next % len(self._recorded)]
        self._next += 1
        return tokens

    def replay(self) -> None:
        """Drop the network, keep the recorded tokens."""
        self._backbone = None


def find_centroids(plane: torch.Tensor, out: Path) -> None:
    """Store the centroids of k-means on a sample of an image's pixels."""
    recipe = Recipe.load("cas")
    y, x = np.divmod(np.random.default_rng(0).choice(plane.numel(), SAMPLES, replace=False), plane.shape[1])
    found, _ = load_featuriser(recipe.features).pixels(plane.numpy(), y, x, unit=True)
    np.save(out, kmeans(found, CLUSTERS, seed=0))


def labels_of(way: str, source: Any, image: torch.Tensor, recipe: Recipe, linear: Linear) -> np.ndarray:
    """Return the nearest cluster of every pixel, one way or the other."""
    spec = recipe.features.deep
    if way == "before":
        scores = upsample(source, image, spec, linear=linear, unit=True).features
        return np.stack([scores[:, row].argmax(dim=0).numpy() for row in range(len(image))])
    features = upsample(source, image, spec, unit=True).features
    return np.stack(
        [project(features[:, r : r + 1], linear)[:, 0].argmax(0).numpy() for r in range(len(image))]
    )


def measure(way: str, plane: torch.Tensor, network: bool, centroids: Path, out: Path) -> dict[str, float]:
    """Run one way in this process; return seconds (least of several) and MB above the start."""
    recipe = Recipe.load("cas")
    backbone = load_featuriser(recipe.features).backbone
    assert backbone is not None
    mu = torch.from_numpy(np.load(centroids))
    linear = Linear(2 * mu, -(mu**2).sum(dim=1))
    source: Any = Recorded(backbone)
    # Warms up and records; one channel, so that no large memory is freed, to be used again unseen.
    upsample(source, plane, recipe.features.deep, linear=Linear(mu[:1], mu[:1, 0]))
    source.replay()
    labels: list[np.ndarray] = []
    timing = timed(
        lambda: labels.append(labels_of(way, backbone if network else source, plane, recipe, linear)),
        1 if network else REPEATS,
    )
    np.save(out, labels[-1])
    return {"seconds": min(timing.seconds), "peak_mb": timing.peak_mb}


def main() -> None:
    """Run both ways and print the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, nargs="+", default=[224, 518])
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        way, side, network, *files = arguments.worker
        image = load_stroked("tcells").images[0].astype(np.float32) / 255
        plane = torch.from_numpy(np.ascontiguousarray(image[: int(side), : int(side)]))
        centroids, out = map(Path, files)
        if way == "centroids":
            find_centroids(plane, centroids)
        else:
            print(json.dumps(measure(way, plane, network == "1", centroids, out)))
        return
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"K = {CLUSTERS}, preset cas, T-cell image 0\n")
    head = ["side", "part", "before: s", "MB", "after: s", "MB", "time ratio", "memory ratio"]
    print(table([*head, "pixels that differ"], ()), end="")
    for side in arguments.side:
        with tempfile.TemporaryDirectory() as folder:
            centroids = Path(folder) / "centroids.npy"
            _in_process("centroids", side, "0", centroids, centroids)
            for network, part in (("0", "without the network"), ("1", "whole, with the network")):
                files = {way: Path(folder) / f"{way}.npy" for way in WAYS}
                before, after = (
                    json.loads(_in_process(way, side, network, centroids, file))
                    for way, file in files.items()
                )
                a, b = (np.load(file) for file in files.values())
                cells = [
                    side,
                    part,
                    f"{before['seconds']:.2f}",
                    f"{before['peak_mb']:.0f}",
                    f"{after['seconds']:.2f}",
                    f"{after['peak_mb']:.0f}",
                    f"{after['seconds'] / before['seconds']:.1f}",
                    f"{after['peak_mb'] / before['peak_mb']:.1f}",
                    f"{(a != b).sum()} of {a.size}",
                ]
                print(line(cells), flush=True)


def _in_process(way: str, side: int, network: str, centroids: Path, out: Path) -> str:
    """Run this module in a process of its own and return the last line it prints."""
    command = [sys.executable, "-m", "benchmarks.studies.projection", "--worker", way, str(side), network]
    done = subprocess.run([*command, str(centroids), str(out)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


if __name__ == "__main__":
    main()
