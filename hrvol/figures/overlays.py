"""Draw boxes, similarity maps and principal components over single planes.

Planes are subsampled first, so that large ones need no more memory than a screen of pixels; the coordinates
of marks are pixels of the full plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from hrvol.analysis.objects import Object
from hrvol.classes import ClassInfo, default_colours
from hrvol.figures.panels import DPI, coloured, grey
from hrvol.files import SOFTWARE
from hrvol.segment.retrieval import Match

MOST_PIXELS = 1500
"""Largest number of pixels of a plane that are drawn along an axis."""

MOST_ROWS = 100
"""Largest number of planes in one picture of components."""

_PANEL_INCHES = 4.2

_TITLE_INCHES, _BAR_INCHES = 0.3, 1.0

_SIMILAR, _ATTENTION = "coolwarm", "magma"

_SUPERBOX = "#ffffff"

_OUTLINE = [withStroke(linewidth=3, foreground="black")]


@dataclass(frozen=True, eq=False)
class HeatPanel:
    """A plane with its similarity to a point, and the best matches of each point.

    Attributes
    ----------
    name
        Title.
    image, heat
        The plane and the similarity, ``(Y, X)`` float32 in [0, 1] and in [-1, 1].
    matches
        Matches of each point in decreasing similarity.
    """

    name: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    matches: Sequence[Sequence[Match]]


@dataclass(frozen=True, eq=False)
class ComponentRow:
    """A plane with the components of its features as colours.

    Attributes
    ----------
    name
        Title.
    image
        ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)``.
    colours
        ``(Y, X, 3)`` uint8.
    attention
        ``(Y, X)`` float32 in units of uniform attention, or ``None``.
    """

    name: str
    image: NDArray[np.float32]
    colours: NDArray[np.uint8]
    attention: NDArray[np.float32] | None


def thin(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a subsampled copy of a plane ``(Y, X, ...)`` with at most :data:`MOST_PIXELS` along an axis."""
    step = math.ceil(max(plane.shape[:2]) / MOST_PIXELS)
    return plane[::step, ::step].copy()


def draw_detection(
    path: str | Path,
    name: str,
    image: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[ClassInfo],
    density: NDArray[np.floating[Any]],
    objects: Sequence[Object],
) -> Path:
    """Draw an image, its classes, their attention density and the boxes of objects.

    Parameters
    ----------
    path
        PNG to write.
    name
        Title of the image.
    image, labels
        ``(Y, X)`` each; an image of colour is ``(Y, X, 3)``.
    classes
        Names and colours of the labels.
    density
        Attention density of each class, in order of ``classes``; NaN if unknown.
    objects
        Their boxes ``(y0, x0, y1, x1)`` get the colours of their classes; the superbox is dashed.

    Returns
    -------
    Path
        The file.
    """
    figure, axes = _panels(2, 2, image.shape[:2])
    axes[0, 0].imshow(grey(thin(image)), **_extent(image))
    axes[0, 0].set_title(name, fontsize=10)
    axes[0, 1].imshow(coloured(thin(image), thin(labels), classes), **_extent(image))
    axes[0, 1].set_title(f"{len(classes)} classes", fontsize=10)
    scale = Normalize(0, max(float(np.nanmax(density, initial=0.0)), 1.0))
    of_value = np.zeros(max(info.value for info in classes) + 1)
    of_value[[info.value for info in classes]] = np.nan_to_num(density)
    axes[1, 0].imshow(colormaps[_ATTENTION](scale(of_value[thin(labels)])), **_extent(image))
    axes[1, 0].set_title("attention density", fontsize=10)
    _bar(figure, list(axes.ravel()), scale, _ATTENTION, "attention density, times uniform")
    axes[1, 1].imshow(grey(thin(image)), **_extent(image))
    boxes = f"{len(objects)} box{'' if len(objects) == 1 else 'es'}"
    axes[1, 1].set_title(boxes, fontsize=10)
    colour_of = {info.value: tuple(level / 255 for level in info.colour) for info in classes}
    for item in objects:
        y0, x0, y1, x1 = item.box
        axes[1, 1].add_patch(
            Rectangle(
                (x0 - 0.5, y0 - 0.5),
                x1 - x0,
                y1 - y0,
                fill=False,
                linewidth=1.6,
                edgecolor=_SUPERBOX if item.superbox else colour_of[item.label],
                linestyle="--" if item.superbox else "-",
                path_effects=_OUTLINE,
            )
        )
    handles: list[Any] = [Patch(color=colour_of[info.value], label=info.name) for info in classes]
    if any(item.superbox for item in objects):
        dashed = Line2D([], [], color=_SUPERBOX, linestyle="--", path_effects=_OUTLINE, label="superbox")
        handles.append(dashed)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)
    return _save(figure, path)


def draw_similar(
    path: str | Path,
    query: tuple[str, NDArray[np.float32]],
    points: Sequence[tuple[int, int]],
    targets: Sequence[HeatPanel],
) -> Path:
    """Draw points on their image, and the similarity to them and their matches on other images.

    The first point is a red cross, and the colours over the targets are the similarity to it, red for
    similar, on one scale for all targets. Its matches are numbered circles. Further points and the best match
    of each are dots of the same colour.

    Parameters
    ----------
    path
        PNG to write.
    query
        Title and image ``(Y, X)`` of the points.
    points
        ``(y, x)`` of each.
    targets
        The images that were searched.

    Returns
    -------
    Path
        The file.
    """
    shapes = [image.shape[:2] for image in (query[1], *(target.image for target in targets))]
    count = len(shapes)
    columns = count if count <= 3 else math.ceil(math.sqrt(count))
    tallest = max(shapes, key=lambda shape: shape[0] / shape[1])
    figure, axes = _panels(math.ceil(count / columns), columns, tallest)
    panels = axes.ravel()
    dots = [tuple(level / 255 for level in colour) for colour in default_colours(len(points))]
    panels[0].imshow(grey(thin(query[1])), **_extent(query[1]))
    panels[0].set_title(query[0], fontsize=10)
    _cross(panels[0], points[0])
    for point, colour in zip(points[1:], dots[1:], strict=True):
        _dot(panels[0], point, colour)
    heats = [thin(target.heat) for target in targets]
    low = min(float(np.percentile(heat, 1)) for heat in heats)
    high = max(float(heat.max()) for heat in heats)
    scale = Normalize(low, max(high, low + 1e-6))
    for axis, target, heat in zip(panels[1:], targets, heats, strict=False):
        colours = colormaps[_SIMILAR](scale(heat))[..., :3]
        axis.imshow(0.45 * grey(thin(target.image)) + 0.55 * colours, **_extent(target.image))
        best = f", best {target.matches[0][0].similarity:.2f}" if target.matches[0] else ""
        axis.set_title(f"{target.name}{best}", fontsize=10)
        for rank, match in enumerate(target.matches[0], start=1):
            _ring(axis, (match.y, match.x), str(rank))
        for matches, colour in zip(target.matches[1:], dots[1:], strict=True):
            if matches:
                _dot(axis, (matches[0].y, matches[0].x), colour)
    _bar(figure, list(panels[:count]), scale, _SIMILAR, "cosine similarity to the cross")
    return _save(figure, path)


def draw_components(path: str | Path, rows: Sequence[ComponentRow]) -> Path:
    """Draw planes in rows: the image, three components of its features as colours, and attention.

    Parameters
    ----------
    path
        PNG to write.
    rows
        The planes, all with attention or all without; attention is on one scale.

    Returns
    -------
    Path
        The file.
    """
    attention = [thin(row.attention) for row in rows if row.attention is not None]
    shapes = [row.image.shape[:2] for row in rows]
    tallest = max(shapes, key=lambda shape: shape[0] / shape[1])
    figure, axes = _panels(len(rows), 3 if attention else 2, tallest)
    top = max((float(np.percentile(values, 99.5)) for values in attention), default=1.0)
    scale = Normalize(0, max(top, 1.0))
    for number, (row, line) in enumerate(zip(rows, axes, strict=True)):
        shown = grey(thin(row.image))
        line[0].imshow(shown, **_extent(row.image))
        line[0].set_title(row.name, fontsize=10)
        line[1].imshow(thin(row.colours), **_extent(row.image))
        if attention:
            colours = colormaps[_ATTENTION](scale(attention[number]))[..., :3]
            line[2].imshow(0.3 * shown + 0.7 * colours, **_extent(row.image))
    axes[0, 1].set_title("features: 3 principal components", fontsize=10)
    if attention:
        axes[0, 2].set_title("attention", fontsize=10)
        _bar(figure, list(axes[:, 2]), scale, _ATTENTION, "attention, times uniform")
    return _save(figure, path)


def _panels(rows: int, columns: int, shape: tuple[int, ...]) -> tuple[Figure, Any]:
    """Return a figure and its axes (rows, columns), sized for planes of a shape."""
    height = _PANEL_INCHES * min(2.5, max(0.25, shape[0] / shape[1]))
    size = (columns * _PANEL_INCHES + _BAR_INCHES, rows * (height + _TITLE_INCHES) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    return figure, axes


def _bar(figure: Figure, axes: list[Axes], scale: Normalize, colours: str, label: str) -> None:
    share = 0.35 / figure.get_figwidth()  # a third of an inch for any width of the figure
    aspect = 0.8 * figure.get_figheight() / 0.2
    shown = ScalarMappable(scale, colormaps[colours])
    figure.colorbar(shown, ax=axes, label=label, fraction=share, shrink=0.8, aspect=aspect)


def _save(figure: Figure, path: str | Path) -> Path:
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": SOFTWARE})
    return Path(path)


def _extent(plane: NDArray[Any]) -> dict[str, Any]:
    """Return the ``imshow`` extent that keeps pixel coordinates (y, x) for a subsampled plane."""
    height, width = plane.shape[:2]
    return {"extent": (-0.5, width - 0.5, height - 0.5, -0.5)}


def _cross(axis: Axes, point: tuple[int, int]) -> None:
    axis.plot(point[1], point[0], "x", color="red", markersize=11, markeredgewidth=2.5, path_effects=_OUTLINE)


def _dot(axis: Axes, point: tuple[int, int], colour: tuple[float, ...]) -> None:
    axis.plot(point[1], point[0], "o", color=colour, markersize=7, markeredgecolor="black")


def _ring(axis: Axes, point: tuple[int, int], text: str) -> None:
    y, x = point
    axis.plot(x, y, "o", markerfacecolor="none", markeredgecolor="white", markersize=9, path_effects=_OUTLINE)
    axis.annotate(
        text, (x, y), (6, 6), textcoords="offset points", color="white", fontsize=9, path_effects=_OUTLINE
    )
