"""Draw how often labels are right against how probable they are."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hrvol.figures.svg import inline_svg, new_figure
from hrvol.files import SOFTWARE, atomic_write
from hrvol.quality.calibration import Calibration

SIDE = 3.4
"""Inches of a side of the diagram."""

_DPI = 200

_GREY = "#808080"


def reliability_svg(name: str, calibration: Calibration) -> str:
    """Return the reliability diagram of a calibration as an ``<svg>`` element.

    Parameters
    ----------
    name
        As for :func:`hrvol.figures.svg.inline_svg`.
    calibration
        Before and after are drawn.
    """
    label = "Share of right labels against their probability, before and after calibration"
    return inline_svg(_figure(calibration), name, label)


def write_reliability(path: str | Path, calibration: Calibration) -> Path:
    """Write the reliability diagram of a calibration as a PNG file, and return its path."""
    figure = _figure(calibration)
    figure.patch.set_visible(True)
    with atomic_write(Path(path)) as partial:
        figure.savefig(partial, dpi=_DPI, format="png", metadata={"Software": SOFTWARE})
    return Path(path)


def _figure(calibration: Calibration) -> Figure:
    figure = new_figure(SIDE, SIDE)
    axes: Axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    both = (("before", calibration.before, "o", "--"), ("after", calibration.after, "s", "-"))
    for label, found, marker, dash in both:
        confidence, right, _ = found.points
        axes.plot(
            confidence,
            right,
            color="black" if label == "after" else _GREY,
            linestyle=dash,
            marker=marker,
            markersize=4,
            label=f"{label}: ECE {found.error:.3f}",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("probability of the label")
    axes.set_ylabel("labels that are right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_visible(False)
    axes.legend(loc="upper left", frameon=False)
    return figure
