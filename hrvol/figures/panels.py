"""Draw planes side by side and scores as bars.

Figures have their own Agg canvas and do not use pyplot: they change no global state and need no display.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hrvol.classes import ClassInfo
from hrvol.errors import InputError

DPI = 110

_PANEL_INCHES = 3.2

_SPARSE = 0.2
"""Labels that cover a smaller share of the picture are strokes."""


def grey(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return an image (Y, X) of any numeric type as a grey picture (Y, X, 3), float32 in [0, 1].

    One of colour, (Y, X, 3), stays one. Its 0.5 and 99.5 percentiles become 0 and 1.
    """
    values = image.astype(np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    shown = np.clip((values - low) / max(float(high - low), 1e-9), 0.0, 1.0)
    return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)


def coloured(
    image: npt.NDArray[np.generic],
    labels: npt.NDArray[np.integer[Any]] | None,
    classes: Sequence[ClassInfo],
    opacity: float = 0.6,
) -> npt.NDArray[np.float32]:
    """Blend the colours of labels with a grey image.

    Parameters
    ----------
    image
        (Y, X), or (Y, X, 3) of colour, any numeric type; see :func:`grey`.
    labels
        (Y, X) integers; 0 and values without a class stay grey. ``None`` gives the image alone.
    classes
        Values and colours.
    opacity
        Opacity of the colours, in 0..1. Sparse labels (strokes) are opaque, so that thin lines stay visible.

    Returns
    -------
    numpy.ndarray
        (Y, X, 3) float32 in [0, 1].

    Raises
    ------
    InputError
        The shape of the labels is not that of the image.
    """
    picture = grey(image)
    if labels is None:
        return picture
    if labels.shape != image.shape[:2]:
        raise InputError(f"picture: found labels of shape {labels.shape}, expected the image's {image.shape}")
    if np.count_nonzero(labels) < _SPARSE * labels.size:
        opacity = 1.0
    for info in classes:
        mask = labels == info.value
        picture[mask] = (1 - opacity) * picture[mask] + opacity * np.asarray(info.colour, np.float32) / 255
    return picture


def draw_planes(
    path: str | Path,
    panels: Mapping[str, tuple[npt.NDArray[np.generic], npt.NDArray[np.integer[Any]] | None]],
    classes: Sequence[ClassInfo],
    *,
    columns: int = 3,
    opacity: float = 0.6,
) -> Path:
    """Draw planes side by side with one legend, and write a PNG file.

    Parameters
    ----------
    path
        File to write.
    panels
        Title -> (image (Y, X), labels (Y, X) or ``None``), in order.
    classes
        Names and colours for the legend.
    columns
        Panels per row.
    opacity
        Opacity of the labels over the image, in 0..1.

    Returns
    -------
    Path
        The file.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    height, width = next(iter(panels.values()))[0].shape
    panel_height = _PANEL_INCHES * min(2.0, max(0.3, height / width))
    figure = Figure(
        figsize=(columns * _PANEL_INCHES, rows * (panel_height + 0.3) + 0.4), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, (image, labels)) in zip(axes, panels.items(), strict=False):
        axis.imshow(coloured(image, labels, classes, opacity), interpolation="nearest")
        axis.set_title(title, fontsize=10)
    handles = [Patch(color=np.asarray(info.colour) / 255, label=info.name) for info in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    figure.savefig(path, dpi=DPI)
    return Path(path)


def draw_scores(path: str | Path, scores: Mapping[str, Mapping[str, float]]) -> Path:
    """Draw a group of bars per class with a bar per method, and write a PNG file.

    Parameters
    ----------
    path
        File to write.
    scores
        Method -> {class or mean: IoU in 0..1}; all methods have the same names. NaN leaves a gap.

    Returns
    -------
    Path
        The file.
    """
    names = list(next(iter(scores.values())))
    figure = Figure(figsize=(1.2 + 1.3 * len(names), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    side = 0.8 / len(scores)
    for position, (method, values) in enumerate(scores.items()):
        heights = [values[name] for name in names]
        centres = np.arange(len(names)) + (position - (len(scores) - 1) / 2) * side
        bars = axis.bar(centres, heights, side, label=method)
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_xticks(np.arange(len(names)), names)
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("IoU")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(scores), frameon=False)
    figure.savefig(path, dpi=DPI)
    return Path(path)
