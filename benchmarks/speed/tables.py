"""Render the figures of ``benchmarks.speed`` as Markdown and a picture; sentences are derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.markdown import table
from benchmarks.speed.work import network_flop
from hrvol.recipe.recipe import DEFAULT_BLOCK

Row = Mapping[str, Any]
"""One measurement, as ``benchmarks.speed.peers`` gives it, with ``who``, ``name``, ``side`` and ``round``."""

_table = partial(table, spaced=True)

REFERENCE, CONVPAINT, HRVOL, FILTERS = "reference", "convpaint", "hrvol", "filters"

_TITLES = {REFERENCE: "reference code", CONVPAINT: "napari-convpaint", FILTERS: "hrvol, filters only"}
_ABOUT = """\
# Speed

Made by

```
{commands}
```

DINOv2 ViT-S/14 features of one plane (vnc, 8 bits, cut or mirrored to size) for every pixel, with the same
weights everywhere, in turn, each measurement in a process of its own after a small first image. Seconds are
medians; *at once* are seconds per image when as many images as threads are done side by side (one pass of
hrvol's network is on one thread). Memory is how far the process rose above what it held before the image.
FLOP are counted from tokens: matrix products of the network, nothing else. **~** marks what was not run
whole: the seconds of some views, times the number of views.

*Reference code*: the published method as published (stride 4, the image and 16 shifts of it, nearest, one
after the other, which needs least memory), run unchanged; torch hub is replaced by the same network with
fused attention, as today's hub code has it. *napari-convpaint*: its `dinov2` features, native patches
repeated to pixels, with the network without registers. hrvol's rows are the deep features of presets; the
filters of hybrid presets come on top and have a row of their own.
"""


@dataclass(frozen=True)
class Entry:
    """One way to features at one size of image, all its measurements together.

    Attributes
    ----------
    who, name, side
        Program, its settings, and the side of the image.
    seconds
        Median of all runs, scaled to all views.
    together
        The same per image with several at once, or ``None``.
    peak_mb
        Highest of all runs.
    flop
        Of the network, all views.
    work
        Passes and tokens of each.
    partly
        ``"2 of 17 views"`` where not all were run, else empty.
    drift
        Seconds after the peers over seconds before them, less 1; ``None`` where there is only one round.
    """

    who: str
    name: str
    side: int
    seconds: float
    together: float | None
    peak_mb: float
    flop: float
    work: str
    partly: str
    drift: float | None

    @property
    def title(self) -> str:
        """Name in the tables."""
        return f"hrvol `{self.name}`" if self.who == HRVOL else _TITLES[self.who]


def entries(rows: Sequence[Row]) -> list[Entry]:
    """Gather measurements of the same thing, in the order of their first."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["who"], row["name"], row["side"]), []).append(row)
    return [_entry(*key, group) for key, group in groups.items()]


def _entry(who: str, name: str, side: int, rows: Sequence[Row]) -> Entry:
    def scaled(row: Row, field: str) -> list[float]:
        return [value * row["of"] / row["views"] for value in row.get(field, ())]

    by_round = {
        when: [s for row in rows if row["round"] == when for s in scaled(row, "seconds")]
        for when in ("before", "after")
    }
    first = rows[0]
    together = [seconds for row in rows for seconds in scaled(row, "together")]
    passes = round(first["passes"] * first["of"] / first["views"])
    drift = median(by_round["after"]) / median(by_round["before"]) - 1 if all(by_round.values()) else None
    return Entry(
        who,
        name,
        side,
        seconds=median(seconds for row in rows for seconds in scaled(row, "seconds")),
        together=median(together) if together else None,
        peak_mb=max(row["peak_mb"] for row in rows),
        flop=passes * network_flop(first["tokens"], first["blocks"]) if passes else 0.0,
        work=f"{passes} x {first['tokens']}" if passes else "",
        partly=f"{first['views']} of {first['of']} views" if first["views"] < first["of"] else "",
        drift=drift,
    )


def render(parts: Mapping[str, Any], picture: str) -> str:
    """Return the page.

    Parameters
    ----------
    parts
        Name of a part -> ``{"command": ..., "machine": ..., "rows": [...]}``, see ``benchmarks.speed``.
    picture
        File name of the picture beside it.
    """
    commands = dict.fromkeys(part["command"] for part in parts.values())
    sections = [_ABOUT.format(commands="\n".join(commands))]
    machines = dict.fromkeys(part["machine"] for part in parts.values())
    sections.append("\n".join(f"Machine: {machine}" for machine in machines) + "\n")
    if "compare" in parts:
        sections.append(_compare(parts["compare"]))
    if "utilisation" in parts:
        sections.append(_utilisation(parts))
    if {"scaling", "views", "workers"} & set(parts):
        sections.append(f"## Curves\n\n![Seconds and memory by side, passes and workers]({picture})\n")
    writers = {"scaling": _scaling, "views": _views, "workers": _workers}
    sections += [writer(parts[name]["rows"]) for name, writer in writers.items() if name in parts]
    return "\n".join(sections)


def _seconds(value: float | None, partly: str = "") -> str:
    if value is None:
        return ""
    return ("~" if partly else "") + (
        f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    )


def _times(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _compare(part: Mapping[str, Any]) -> str:
    listed = entries(part["rows"])
    text = ["## Against the reference code and napari-convpaint\n"]
    if part.get("check"):
        worst = max(part["check"].values())
        text.append(
            "Before anything was timed, the reference code as run here gave the features that were recorded"
            f" from it to a relative error of {worst:.1e} (the record is in half precision).\n"
        )
    text += [
        _side(side, [e for e in listed if e.side == side]) for side in dict.fromkeys(e.side for e in listed)
    ]
    drifts = [entry.drift for entry in listed if entry.drift is not None]
    if drifts:
        text.append(
            f"Drift: hrvol's runs after the peers took {100 * min(drifts):+.0f} to {100 * max(drifts):+.0f} %"
            " more seconds than those before.\n"
        )
    text += [f"Left out: {line}.\n" for line in part.get("left_out", ())]
    return "\n".join(text)


def _side(side: int, listed: Sequence[Entry]) -> str:
    reference = next((entry for entry in listed if entry.who == REFERENCE), None)
    titles = ["features", "passes x tokens", "TFLOP", "s", "s at once", "MB"]
    if reference:
        titles += ["FLOP ratio", "faster", "faster at once", "less memory"]
    lines = []
    for entry in listed:
        partly = f" ({entry.partly})" if entry.partly else ""
        cells = [
            entry.title + partly,
            entry.work,
            f"{entry.flop / 1e12:.2f}" if entry.flop else "",
            _seconds(entry.seconds, entry.partly),
            _seconds(entry.together, entry.partly),
            f"{entry.peak_mb:.0f}",
        ]
        if reference:
            cells += _ratios(entry, reference)
        lines.append(cells)
    verdict = "".join(
        f"The reference code takes **{_times(reference.seconds / entry.seconds)} times** as long as hrvol"
        f" `{entry.name}`, for {_times(reference.flop / entry.flop)} times as many operations."
        for entry in listed
        if reference and entry.who == HRVOL and entry.name in ("balanced", "balanced-0.1")
    )
    return f"### {side} x {side} px\n\n{_table(titles, lines)}\n{verdict}\n"


def _ratios(entry: Entry, reference: Entry) -> list[str]:
    if entry.who == FILTERS:
        return [""] * 4
    return [
        _times(reference.flop / entry.flop),
        _times(reference.seconds / entry.seconds),
        _times(reference.seconds / entry.together) if entry.together else "",
        _times(reference.peak_mb / entry.peak_mb),
    ]


def _utilisation(parts: Mapping[str, Any]) -> str:
    rows = parts["utilisation"]["rows"]
    products = list(rows[0]["products"])
    titles = ["", *(f"{row['name']}, {row['side']} px, {row['tokens']} tokens" for row in rows)]
    lines = [[name, *(_giga(row["products"][name]) for row in rows)] for name in products]
    lines += [
        [title, *(_giga(row[field]) for row in rows)]
        for title, field in (
            ("these products in the network's proportions", "mix"),
            ("large square, each thread its own", "square"),
            ("large square, threads together", "square_joint"),
            ("**hrvol's network**", "network"),
        )
    ]
    for title, field in (("of the products' ceiling", "mix"), ("of the large square's", "square")):
        lines.append([f"network, {title}", *(f"{100 * row['network'] / row[field]:.0f} %" for row in rows)])
    text = (
        "## How much of the machine the network uses\n\n"
        "GFLOP/s of all threads in one process: `torch.mm` / `torch.bmm` of the shapes of one block, each"
        " thread on its own, then passes of hrvol's network, one image each.\n\n" + _table(titles, lines)
    )
    square = max(max(row["square"], row["square_joint"]) for row in rows)
    whole = [entry for entry in entries(parts["compare"]["rows"]) if entry.flop] if "compare" in parts else []
    if whole:
        shares = [
            f"{entry.title} at {entry.side} px {100 * entry.flop / min(_times_of(entry)) / square:.0f} %"
            for entry in whole
        ]
        text += (
            "\nOperations of the network over the seconds of whole features (tokens put on pixels, views"
            " averaged; the quicker of one image and several at once), of the large square's rate:"
            f" {'; '.join(shares)}.\n"
        )
    return text


def _times_of(entry: Entry) -> list[float]:
    return [seconds for seconds in (entry.seconds, entry.together) if seconds is not None]


def _giga(value: float) -> str:
    return f"{value / 1e9:.1f}"


def _scaling(rows: Sequence[Row]) -> str:
    listed = entries(rows)
    lines = [
        [
            entry.title,
            str(entry.side),
            entry.work,
            _seconds(entry.seconds),
            f"{1e6 * entry.seconds / entry.side**2:.1f}",
            f"{entry.flop / entry.seconds / 1e9:.0f}",
            f"{entry.peak_mb:.0f}",
        ]
        for entry in listed
    ]
    titles = ["features", "side, px", "passes x tokens", "s", "us / px", "GFLOP/s", "MB"]
    return f"### By side of the image\n\n{_table(titles, lines)}"


def _views(rows: Sequence[Row]) -> str:
    lines = [
        [
            entry.name,
            entry.work,
            _seconds(entry.seconds),
            f"{1e3 * entry.seconds / _passes(entry):.0f}",
            f"{entry.peak_mb:.0f}",
        ]
        for entry in entries(rows)
    ]
    titles = ["passes", "passes x tokens", "s", "ms / pass", "MB"]
    side = rows[0]["side"]
    return f"### By number of passes ({side} x {side} px, block {DEFAULT_BLOCK})\n\n{_table(titles, lines)}"


def _passes(entry: Entry) -> int:
    return int(entry.work.split()[0])


def _workers(rows: Sequence[Row]) -> str:
    seconds: dict[int, list[float]] = {}
    for row in rows:
        seconds.setdefault(row["workers"], []).extend(row["seconds"])
    first = median(seconds[min(seconds)])
    voxels = rows[0]["voxels"]
    lines = [
        [
            str(workers),
            ", ".join(_seconds(value) for value in times),
            f"{voxels / median(times) / 1e3:.1f}",
            f"{first / median(times):.2f}",
            f"{max(row['peak_mb'] for row in rows if row['workers'] == workers):.0f}",
        ]
        for workers, times in sorted(seconds.items())
    ]
    titles = ["workers", "s of each run", "kvoxel/s", "times faster than one", "MB of a worker"]
    return (
        f"### By number of workers\n\n{rows[0]['about']}: {voxels / 1e6:.1f} Mvoxel, preset"
        f" `{rows[0]['name']}`, local engine, one thread a worker, the start of the workers included."
        f"\n\n{_table(titles, lines)}"
    )


def save_curves(parts: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: seconds and memory by side, seconds by passes, voxels per second by workers."""
    figure = Figure(figsize=(13, 3.8), dpi=110, layout="constrained")
    by_side, by_memory, by_pass, by_worker = figure.subplots(1, 4)
    scaling = entries(parts["scaling"]["rows"]) if "scaling" in parts else []
    peers = entries(parts["compare"]["rows"]) if "compare" in parts else []
    for axis, field in ((by_side, "seconds"), (by_memory, "peak_mb")):
        for name in dict.fromkeys(entry.name for entry in scaling):
            line = [entry for entry in scaling if entry.name == name]
            axis.plot(*_points(line, field), "o-", ms=4, label=f"hrvol {name}")
        for who, mark in ((REFERENCE, "s"), (CONVPAINT, "^")):
            line = [entry for entry in peers if entry.who == who]
            if line:
                axis.plot(*_points(line, field), mark, ms=7, color="black", mfc="none", label=_TITLES[who])
        axis.set(xscale="log", yscale="log", xlabel="side of the image, px")
        sides = sorted({entry.side for entry in [*scaling, *peers]})
        axis.set_xticks(sides, [str(side) for side in sides], rotation=60)
        axis.minorticks_off()
    by_side.set_ylabel("s per image")
    by_memory.set_ylabel("peak memory above start, MB")
    if scaling or peers:
        by_memory.legend(*by_side.get_legend_handles_labels(), fontsize=7, loc="lower right")
    for shape, line in _by_kind(parts).items():
        by_pass.plot([_passes(e) for e in line], [e.seconds for e in line], "o-", ms=4, label=shape)
        by_pass.legend(fontsize=7)
    by_pass.set(xlabel="passes of the network", ylabel="s per image", xlim=0, ylim=0)
    if "workers" in parts:
        rows = parts["workers"]["rows"]
        x = [row["workers"] for row in rows]
        by_worker.plot(x, [row["voxels"] / row["seconds"][0] / 1e3 for row in rows], "o")
        by_worker.set_xticks(sorted(set(x)))
    by_worker.set(xlabel="workers", ylabel="kvoxel/s")
    by_worker.set_ylim(bottom=0)
    figure.savefig(path)


def _points(line: Sequence[Entry], field: str) -> tuple[list[int], list[float]]:
    return [entry.side for entry in line], [getattr(entry, field) for entry in line]


def _by_kind(parts: Mapping[str, Any]) -> dict[str, list[Entry]]:
    kinds: dict[str, list[Entry]] = {}
    for entry in entries(parts["views"]["rows"]) if "views" in parts else ():
        kinds.setdefault(entry.name.split()[0], []).append(entry)
    return kinds
