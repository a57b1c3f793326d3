"""Measure how well touching objects are separated: ``python -m benchmarks.quality.instances``.

The true labels of data sets with numbered objects are separated with several depths, and compared with the
objects: so errors are those of the separation alone. Blocked results are compared with those of one block.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed
from sklearn.metrics import adjusted_rand_score

from benchmarks.data import data_dir
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.results import load, save
from hrvol.analysis.measuring.measure_labels import measure_labels
from hrvol.analysis.separating.basins import CELL
from hrvol.analysis.separating.heights import STEPS
from hrvol.errors import HrvolError
from hrvol.run.instances.prepare_instances import BLOCK, DEPTH, InstanceOptions
from hrvol.run.instances.separate_instances import separate
from hrvol.volume.volume import open_labels

DEPTHS = ("10%", "20%", "25%", "30%", "35%", "40%", "50%", "70%", "100%", "0.5", "1", "2")

CUTS = ((128, 128, 128), (128, 128, 256))

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Numbered:
    """A map of a class, and the objects that it consists of.

    Attributes
    ----------
    labels
        ``(z, y, x)`` uint8: 1 in the class.
    truth
        ``(z, y, x)`` int64: number of each voxel's object, 0 for none.
    """

    labels: NDArray[np.uint8]
    truth: NDArray[np.int64]


def fibres() -> Numbered:
    """Return the short glass fibres of xct_fibres: radius about 2 voxels."""
    return _stored("xct_fibres", 2)


def bodies() -> Numbered:
    """Return the neurites of fibsem_medulla, 2 voxels of cell boundary between them."""
    return _stored("fibsem_medulla", 1)


def spheres(seed: int = 0, side: int = 160, rough: float = 0.0) -> Numbered:
    """Return spheres of radii from 6 to 14 voxels that overlap by up to a quarter of the smaller radius.

    Parameters
    ----------
    seed
        Of centres and radii.
    side
        Voxels of the cube.
    rough
        Standard deviation of the distance by which surfaces are moved, in voxels; bumps of 2 voxels.
    """
    rng = np.random.default_rng(seed)
    centres, radii = np.empty((0, 3)), np.empty(0)
    for _ in range(40_000):
        centre, radius = rng.uniform(0, side, 3), rng.uniform(6, 14)
        gaps = np.linalg.norm(centres - centre, axis=1) - radii - radius
        if not len(radii) or np.all(gaps > -0.25 * np.minimum(radii, radius)):
            centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
    places = np.indices((side,) * 3, np.float32)
    inside = np.full((side,) * 3, -np.inf, np.float32)
    truth = np.zeros((side,) * 3, np.int64)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        low = np.maximum(np.floor(centre - radius - 4).astype(int), 0)
        high = np.ceil(centre + radius + 4).astype(int)
        part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        depth = radius - np.sqrt(sum((places[k][part] - centre[k]) ** 2 for k in range(3)))
        deeper = depth > inside[part]
        inside[part] = np.where(deeper, depth, inside[part])
        truth[part] = np.where(deeper, number, truth[part])
    bumps = ndimage.gaussian_filter(rng.normal(size=truth.shape), 2.0)
    labels = inside + rough * bumps / bumps.std() > 0
    return Numbered(labels.astype(np.uint8), np.where(labels, truth, 0))


SETS = {
    "xct_fibres": fibres,
    "fibsem_medulla": bodies,
    "spheres": spheres,
    "rough spheres": partial(spheres, 1, 160, 0.7),
}

TEXTS = {
    "xct_fibres": "192³ voxels, short glass fibres with a radius of about 2 voxels",
    "fibsem_medulla": "115 x 250 x 250 voxels, neurites with 2 voxels of cell boundary between them",
    "spheres": "160³ voxels, random spheres, radii 6 to 14, overlap up to a quarter of the smaller radius",
    "rough spheres": "the same with other centres; surfaces moved by bumps of 2 voxels, deviation 0.7 voxels",
}


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else list(arguments)
    kept = args.output.with_suffix(".json")
    figures = load(kept)
    try:
        for name in args.datasets:
            data = SETS[name]()
            for depth in args.depths:
                if f"{name}, {depth}" not in figures:
                    figures[f"{name}, {depth}"] = compare(data, depth)
                    save(kept, figures)
                    log(f"{name}, {depth}: {figures[f'{name}, {depth}']}")
            for part, function in (("truth", describe), ("peer", peer), ("blocks", blocked)):
                if f"{name}, {part}" not in figures:
                    figures[f"{name}, {part}"] = function(data)
                    save(kept, figures)
                    log(f"{name}, {part}: {figures[f'{name}, {part}']}")
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.output.write_text(render(figures, words), encoding="utf-8")
    log(f"{args.output} written")
    return 0


def separated(data: Numbered, depth: str, **settings: Any) -> tuple[NDArray[np.int64], float]:
    """Return the objects that ``hrvol instances`` finds, and the seconds that it takes."""
    cell = settings.pop("cell", None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        options = InstanceOptions(("1",), depth, **settings)
        separate(data.labels, Path(folder) / "out.zarr", options, **({} if cell is None else {"cell": cell}))
        seconds = time.monotonic() - began
        return open_labels(Path(folder) / "out.zarr").read().astype(np.int64), seconds


def compare(data: Numbered, depth: str) -> dict[str, Any]:
    """Return how the objects of a depth agree with the true ones."""
    found, seconds = separated(data, depth)
    return {
        **agreement(data.truth, found),
        **describe(Numbered(data.labels, found)),
        "seconds": round(seconds, 1),
    }


def agreement(truth: NDArray[np.int64], found: NDArray[np.int64]) -> dict[str, float]:
    """Return the adjusted Rand index over voxels of both, and the share of true objects found at IoU 0.5."""
    both = (truth > 0) & (found > 0)
    overlap = np.unique(np.stack([truth[both], found[both]]), axis=1, return_counts=True)
    (true, other), counts = overlap
    of_true, of_found = np.bincount(truth.ravel()), np.bincount(found.ravel())
    iou = counts / (of_true[true] + of_found[other] - counts)
    number, matched = int(np.count_nonzero(of_true[1:])), int(np.count_nonzero(iou >= 0.5))
    objects = int(np.count_nonzero(of_found[1:]))
    return {
        "rand": round(float(adjusted_rand_score(truth[both], found[both])), 4),
        "matched": round(matched / number, 4),
        "true": round(matched / max(objects, 1), 4),
    }


def describe(data: Numbered) -> dict[str, Any]:
    """Return the number of objects, and quantiles of their lengths and diameters, in voxels."""
    columns = measure_labels(data.truth, objects=True).tables["objects"].columns
    lengths, diameters = (
        np.quantile(columns[name], QUANTILES).round(1).tolist()
        for name in ("length [voxel]", "equivalent diameter [voxel]")
    )
    return {"objects": len(columns["object"]), "lengths": lengths, "diameters": diameters}


def peer(data: Numbered) -> dict[str, Any]:
    """Return what scikit-image finds on the whole array, with a depth of a voxel, and how far it agrees."""
    began = time.monotonic()
    distance = ndimage.distance_transform_edt(data.labels)
    # A peak that rises by just the depth counts.
    domes = reconstruction(distance - 1 + 1 / STEPS, distance, footprint=np.ones((3, 3, 3)))
    peaks = local_maxima(domes, connectivity=3) & (data.labels > 0)
    markers = measure.label(peaks, connectivity=3)
    found = watershed(-distance, markers, mask=data.labels > 0, connectivity=3).astype(np.int64)
    seconds = time.monotonic() - began
    ours, _ = separated(data, "1")
    both = (found > 0) & (ours > 0)
    return {
        **agreement(data.truth, found),
        **describe(Numbered(data.labels, found)),
        "seconds": round(seconds, 1),
        "agrees": round(float(adjusted_rand_score(found[both], ours[both])), 4),
    }


def blocked(data: Numbered) -> dict[str, Any]:
    """Return whether blocks change the result, and what the cells do."""
    whole, seconds = separated(data, DEPTH)
    same = []
    for cut in CUTS:
        found, _ = separated(data, DEPTH, block_shape=cut)
        same.append(bool(np.array_equal(found, whole)))
    free, _ = separated(data, DEPTH, cell=max(data.labels.shape), block_shape=data.labels.shape)
    inside = data.labels > 0
    return {
        "same": same,
        "objects": int(whole.max()),
        "free": int(free.max()),
        "rand": round(float(adjusted_rand_score(free[inside], whole[inside])), 4),
        "voxels_per_s": round(inside.size / seconds),
        "share": round(float(inside.mean()), 3),
    }


def render(figures: Mapping[str, Any], words: Sequence[str]) -> str:
    """Return the page."""
    lines = [
        "# Separating touching objects",
        "",
        f"Made by `{shlex.join(['python', '-m', 'benchmarks.quality.instances', *words])}`.",
        f"Machine: {describe_machine(1)}",
        "",
        "The true labels of each set are separated (`hrvol instances`), and the objects compared with the",
        "true ones: adjusted Rand index over the voxels of both, share of the true objects that an object",
        "overlaps with an IoU of at least 0.5 (recall), share of the found objects that do (precision), and",
        "length and equivalent diameter of objects (10 %, median, 90 %; voxels). Depths in percent are of",
        f"the radius of the thinner object, others in voxels. The default of `hrvol instances` is {DEPTH}.",
    ]
    for name in SETS:
        if f"{name}, truth" not in figures:
            continue
        true = figures[f"{name}, truth"]
        lines += ["", f"## {name}", "", f"{TEXTS[name]}; {true['objects']} objects.", ""]
        rows = [
            [depth, *_cells(figures[f"{name}, {depth}"])] for depth in DEPTHS if f"{name}, {depth}" in figures
        ]
        rows.append(
            ["truth", true["objects"], "", "", "", _triple(true["lengths"]), _triple(true["diameters"])]
        )
        other = figures[f"{name}, peer"]
        rows.append(["scikit-image, 1", *_cells(other)])
        head = ["depth", "objects", "Rand", "recall", "precision", "length", "diameter"]
        lines += table(head, rows).splitlines()
    agrees = ", ".join(f"{name} {figures[f'{name}, peer']['agrees']:.4f}" for name in SETS)
    lines += [
        "",
        "`scikit-image, 1` is its watershed on the whole array, from the regional maxima of the distance map",
        "lowered by just below 1 voxel (reconstruction by dilation); components without one are lost there.",
        f"Adjusted Rand index of its objects and those of the depth 1: {agrees}.",
        "",
        "## Blocks",
        "",
        f"With a depth of {DEPTH}: whether blocks of {_sides(CUTS[0])} and of {_sides(CUTS[1])} voxels give",
        f"what blocks of {_sides(BLOCK)} give, voxel by voxel; and how far the cells, within which basins",
        f"are found whatever the blocks are ({CELL} voxels), change the result of a single cell.",
        "",
    ]
    rows = [
        [
            name,
            "identical" if all(part["same"]) else "DIFFERENT",
            part["objects"],
            part["free"],
            f"{part['rand']:.4f}",
            f"{100 * part['share']:.0f} %",
            f"{part['voxels_per_s'] / 1e6:.2f}",
        ]
        for name in SETS
        if (part := figures.get(f"{name}, blocks"))
    ]
    head = [
        "data",
        "blocks",
        "objects",
        "of one cell",
        "Rand of the two",
        "class fills",
        "Mvoxel/s, one process",
    ]
    lines += table(head, rows).splitlines()
    return "\n".join(lines) + "\n"


def _sides(block: Sequence[int]) -> str:
    return " x ".join(map(str, block))


def _cells(part: Mapping[str, Any]) -> list[str]:
    shown = [part["objects"], f"{part['rand']:.3f}", f"{part['matched']:.3f}", f"{part['true']:.3f}"]
    return [*map(str, shown), _triple(part.get("lengths")), _triple(part.get("diameters"))]


def _triple(values: Sequence[float] | None) -> str:
    return "" if values is None else " / ".join(f"{value:.1f}" for value in values)


def _stored(name: str, value: int) -> Numbered:
    folder = data_dir() / name
    labels = tifffile.imread(folder / "labels.tif") == value
    truth = tifffile.imread(folder / "instances.tif").astype(np.int64)
    return Numbered(labels.astype(np.uint8), np.where(labels, truth, 0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.instances", description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--depths", nargs="+", default=list(DEPTHS))
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".md"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
