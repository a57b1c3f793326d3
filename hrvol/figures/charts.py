"""Draw fractions along planes, distributions of sizes and other curves as SVG for pages.

The charts hold no names of classes: their page has a legend, so that names from files are never parsed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from hrvol.figures.svg import inline_svg, new_figure

WIDTH, HEIGHT = 5.4, 2.7
"""Inches of a chart."""

_DASHES = ("-", "--", "-.", ":")  # so that curves differ without colour, too

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of a chart.

    Attributes
    ----------
    values
        ``(n,)``; NaN leaves a gap.
    colour
        Red, green and blue in 0..255; ``None``: that of the page's text.
    low, high
        ``(n,)`` each: ends of intervals, drawn as a band; ``None``: none.
    """

    values: NDArray[np.float64]
    colour: Colour | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def dash_of(number: int) -> str:
    """Return the line style of the curve of this number."""
    return _DASHES[number % len(_DASHES)]


def draw_curves(
    name: str,
    label: str,
    positions: NDArray[np.float64],
    curves: Sequence[Curve],
    axes_names: tuple[str, str],
    *,
    percent: bool = False,
    marks: Sequence[float] = (),
) -> str:
    """Draw curves over a common axis.

    Parameters
    ----------
    name, label
        As for :func:`hrvol.figures.svg.inline_svg`.
    positions
        ``(n,)``, ascending.
    curves
        In order; one of a single point is drawn as a dot.
    axes_names
        Of the horizontal and the vertical axis.
    percent
        Whether values are shares, in 0..1.
    marks
        Positions of vertical lines.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    marker = "o" if len(positions) == 1 else None
    for number, curve in enumerate(curves):
        colour = _colour(curve.colour)
        axes.plot(
            positions, curve.values, color=colour, linestyle=dash_of(number), linewidth=1.8, marker=marker
        )
        if curve.low is not None and curve.high is not None:
            axes.fill_between(positions, curve.low, curve.high, color=colour, alpha=0.25, linewidth=0)
    for position in marks:
        axes.axvline(position, color="black", linewidth=0.8, linestyle=":")
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    heights = [curve.values if curve.high is None else curve.high for curve in curves]
    _finish(axes, axes_names, np.concatenate(heights))
    return inline_svg(figure, name, label)


def draw_sizes(
    name: str,
    label: str,
    edges: NDArray[np.float64],
    shares: Sequence[NDArray[np.float64]],
    colours: Sequence[Colour],
    axes_names: tuple[str, str],
    *,
    logarithmic: bool = True,
) -> str:
    """Draw distributions over a common axis as steps.

    Parameters
    ----------
    name, label
        As for :func:`hrvol.figures.svg.inline_svg`.
    edges
        ``(n + 1,)`` ends of bins, above 0, ascending.
    shares
        ``(n,)`` in 0..1 for each distribution.
    colours
        Of each distribution.
    axes_names
        Of the horizontal and the vertical axis.
    logarithmic
        Whether the horizontal axis is.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    for number, (values, colour) in enumerate(zip(shares, colours, strict=True)):
        axes.stairs(values, edges, color=_colour(colour), linestyle=dash_of(number), linewidth=1.8)
    axes.set_xscale("log" if logarithmic else "linear")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(axes, axes_names, np.concatenate(shares))
    return inline_svg(figure, name, label)


def _finish(axes: Axes, names: tuple[str, str], values: NDArray[np.float64]) -> None:
    finite = values[np.isfinite(values)]
    axes.set_ylim(0, 1.08 * float(finite.max(initial=0.0)) or 1.0)
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#808080", alpha=0.35, linewidth=0.6)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def _colour(colour: Colour | None) -> tuple[float, ...] | str:
    return "black" if colour is None else tuple(level / 255 for level in colour)
