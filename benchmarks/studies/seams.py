"""Measure how far tiles of one plane agree without labels: ``python -m benchmarks.studies.seams``.

Prints, as Markdown, the share of the features' variance that depends on the position in a window, before and
after the position field is subtracted; and the share of pixels in two tiles that get different classes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cas.scores import agreement
from benchmarks.data import load_dense
from benchmarks.machine import describe_machine
from benchmarks.markdown import line, table
from hrvol.device import cpus
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import Recipe
from hrvol.run.cluster import cluster_volume
from hrvol.segment.positions import fit_field
from hrvol.training.pixel_pairs import PixelPairs, pixel_pairs
from hrvol.training.sampling import sample_pixels
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.tiling import whole
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import open_labels, open_volume

DATA = ("vnc", "ebc2")
DEGREES = (2, 4, 6, 8)
TILES = 8

RECIPES: dict[str, Mapping[str, Any]] = {
    "cas": {},
    "cas-volume, degree 0": {"cluster.position_degree": 0},
    "cas-volume": {},
    "cas-volume, overlap 84": {"tiles.core": 350, "tiles.overlap": 84},
    "cas-volume, flips": {"features.deep.flips": True},
}
"""Name of a preset, with a remark -> changes of it."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=DATA, default=DATA)
    parser.add_argument(
        "--blocks", nargs="*", type=int, default=[6, 9, 12], help="empty: the second table only"
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=tuple(RECIPES))
    parser.add_argument("--threads", type=int, default=cpus())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{describe_machine(args.threads)}\n")
    if args.blocks:
        print("Variance between two windows, of the total variance (1: nothing in common)\n")
        head = ["plane", "block", "as they are", *(f"degree {d}" for d in DEGREES)]
        print(table(head, ()), end="")
        for name in args.only:
            for block in args.blocks:
                shares = (f"{share:.2f}" for share in shares_of_place(plane_of(name)[0], block))
                print(line([name, block, *shares]), flush=True)
        print()
    head = ["plane", "recipe", "classes", "shared pixels that differ", "matched mIoU", "seconds"]
    print(table(head, ()), end="")
    for name in args.only:
        for recipe in args.recipes:
            print(line([name, recipe, *seams(*plane_of(name), recipe_of(recipe))]), flush=True)


def plane_of(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the first plane of a data set, and its true classes."""
    loaded = load_dense(name)
    return loaded.images[0], loaded.truth[0]


def recipe_of(name: str) -> Recipe:
    """Return a recipe whose blocks hold all tiles of the plane, so that all of these meet."""
    return Recipe.load(name.split(",", maxsplit=1)[0]).with_(**(dict(RECIPES[name]) | {"tiles.across": 4}))


def shares_of_place(image: NDArray[np.uint8], block: int) -> list[float]:
    """Return which share of the variance of features differs between two windows that show a pixel.

    That is ``E |F - F'|^2 / (2 Var F)``. The first share is of features as they are; the others are of
    features less a position field of each degree, fitted to other pairs.
    """
    recipe = Recipe.load("cas-volume").with_(**{"features.deep.block": block})
    volume = open_volume(image)
    featuriser = load_featuriser(recipe.features).one_offset()
    window = common_window([volume], recipe.intensity, recipe.seed)

    features = TileFeatures(featuriser, window, recipe.tiles)

    def pairs(seed: int) -> PixelPairs:
        region = whole(volume.shape)
        return pixel_pairs(volume, region, features, most_tiles=TILES, seed=seed)

    sample = sample_pixels(
        volume,
        whole(volume.shape),
        features,
        pixels=20_000,
        most_tiles=TILES,
        seed=0,
        unit=True,
    )
    fitted, held_out = pairs(0), pairs(1)
    shares = [_share(held_out.differences, sample.features)]
    for degree in DEGREES:
        field = fit_field(fitted.differences, fitted.here, fitted.there, degree)
        left = held_out.differences - (field.at(held_out.here) - field.at(held_out.there))
        shares.append(_share(left, sample.features - field.at(sample.places)))
    return shares


def _share(differences: NDArray[np.float32], features: NDArray[np.float32]) -> float:
    total = features.var(axis=0, dtype=np.float64).sum()
    return float((differences.astype(np.float64) ** 2).sum(axis=1).mean() / (2 * total))


def seams(image: NDArray[np.uint8], truth: NDArray[np.uint8], recipe: Recipe) -> list[str]:
    """Return a row of the second table: cluster a plane and compare tiles where they overlap."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ome.zarr"
        report = cluster_volume(image, out, recipe=recipe)
        took = time.monotonic() - began
        labels = open_labels(out).read(whole((1, *image.shape)))[0]
    share = report.segmentation.seams.label_share
    miou = agreement(labels[None], truth[None])["miou"]
    return [str(len(report.model.classes)), f"{100 * share:.1f} %", f"{miou:.3f}", f"{took:.0f}"]


if __name__ == "__main__":
    main()
