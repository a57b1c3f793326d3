"""Measure where a step edge appears in features of the real network.

    python -m benchmarks.studies.registration [--columns 12] [-o registration.md]

A noisy step edge is put at many columns. The features are projected on the difference between the two
sides, and the edge is where the profile crosses the middle. Each column is measured with both polarities:
half the sum of the two errors is the *lean* (a displacement, whatever the contrast), half the difference
how far the bright side *grows* into the dark one (a property of the network at an edge, not of the placement
of tokens).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.markdown import line, table
from hrvol.features.deep.backbone import load_backbone
from hrvol.features.deep.upsample import TokenSource, upsample
from hrvol.recipe.specs import DeepSpec

SIDE, ACROSS = 518, 112
SPECS = {
    "block 9, interleaved 4": DeepSpec(block=9, offsets=4),
    "block 9, interleaved 4, flips": DeepSpec(block=9, offsets=4, flips=True),
    "last block, interleaved 4": DeepSpec(block="last", offsets=4),
    "last block, interleaved 4, flips": DeepSpec(block="last", offsets=4, flips=True),
    "last block, stride 4, stretched": DeepSpec(
        block="last", stride=4, placement="stretch", interpolation="bilinear"
    ),
}


def edge_error(
    backbone: TokenSource, spec: DeepSpec, column: int, axis: str, low: float, high: float
) -> float:
    """Return the signed error in px of one edge along x or y; NaN if the profile never crosses."""
    noise = np.random.default_rng(column).normal(0, 0.05, (ACROSS, SIDE))
    image = np.where(np.arange(SIDE) < column, low, high) + noise
    image = np.ascontiguousarray((image if axis == "x" else image.T).clip(0, 1), dtype=np.float32)
    features = upsample(backbone, torch.from_numpy(image), spec).features.numpy()
    features = features if axis == "x" else features.transpose(0, 2, 1)
    middle = features[:, ACROSS // 4 : -ACROSS // 4].mean(axis=1)
    left, right = middle[:, column - 90 : column - 20].mean(1), middle[:, column + 20 : column + 90].mean(1)
    profile = (right - left) @ middle
    half = (right - left) @ (left + right) / 2
    near = profile[column - 28 : column + 28]
    crossing = np.flatnonzero((near[:-1] < half) & (near[1:] >= half))
    if not len(crossing):
        return float("nan")
    i = crossing[np.argmin(np.abs(crossing - 27.5))] + column - 28
    return float(i + 0.5 + (half - profile[i]) / (profile[i + 1] - profile[i]) - column)


def lean_and_growth(
    backbone: TokenSource, spec: DeepSpec, columns: Sequence[int], axis: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lean and the growth of the bright side, px, one value per column."""
    rising, falling = (
        np.array([edge_error(backbone, spec, column, axis, *levels) for column in columns])
        for levels in ((0.3, 0.7), (0.7, 0.3))
    )
    return (rising + falling) / 2, (falling - rising) / 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args(arguments)
    columns = np.linspace(100, 418, options.columns).round().astype(int)
    backbone = load_backbone("dinov2_vits14")
    head = ["deep features", "axis", "lean, mean +- sd (px)", "least, most", "bright side grows (px)"]
    rows = []
    for name in options.only:
        for axis in ("x", "y"):
            lean, growth = lean_and_growth(backbone, SPECS[name], columns, axis)
            rows.append(
                [
                    name,
                    axis,
                    f"{np.nanmean(lean):+.2f} +- {np.nanstd(lean):.2f}",
                    f"{np.nanmin(lean):+.2f}, {np.nanmax(lean):+.2f}",
                    f"{np.nanmean(growth):+.2f} +- {np.nanstd(growth):.2f}",
                ]
            )
            print(line(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(table(head, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
