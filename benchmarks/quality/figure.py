"""Draw one picture of the label maps of a test plane of each data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hrvol.classes import default_colours


@dataclass(frozen=True, eq=False)
class Row:
    """A plane ``(Y, X)``, and label maps of it by title, of any resolution; mIoU of those measured."""

    name: str
    image: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.uint8]]
    scores: Mapping[str, float]


def save_overview(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG with a row per data set: the image, then its label maps in the classes' colours."""
    across = 1 + max(len(row.maps) for row in rows)
    figure = Figure(figsize=(2.9 * across, 3.1 * len(rows)), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), across, squeeze=False)
    for axis in grid.ravel():
        axis.set_axis_off()
    for row, axes in zip(rows, grid, strict=True):
        axes[0].imshow(row.image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        axes[0].set_title(row.name, fontsize=11)
        count = max(int(labels.max()) for labels in row.maps.values())
        colours = np.asarray([(0, 0, 0), *default_colours(count)]) / 255
        for axis, (title, labels) in zip(axes[1:], row.maps.items(), strict=False):
            axis.imshow(
                labels, cmap=ListedColormap(colours), vmin=-0.5, vmax=count + 0.5, interpolation="nearest"
            )
            score = f"  {row.scores[title]:.3f}" if title in row.scores else ""
            axis.set_title(title + score, fontsize=11)
    figure.savefig(path)
