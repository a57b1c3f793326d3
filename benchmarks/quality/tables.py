"""Render the figures of ``benchmarks.quality`` as Markdown; sentences are derived from the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.quality.contest import KINDS, PRODUCT

Part = Mapping[str, Any]
"""Figures of one data set, as in ``quality.json``."""

TARGETS = {
    ("superalloy", "hybrid", "vote"): ("hybrid_nocrf", 0.94),
    ("needle_block", "hybrid", "vote"): ("hybrid_nocrf", 0.93),
    ("superalloy", "classical", "forest, published"): ("rf_nocrf", 0.96),
}
"""Reference of the paper, and the share of equal pixels to reach."""

_ABOUT = """\
# Quality

Made by

```
{command}
```

The micrographs are not part of the project (`$HRVOL_DATA` is their folder).
{machines}
Features are computed tile by tile as `hrvol train` and `hrvol segment` do. *deep* is the network, *classical*
the filters, *hybrid* both side by side, *hybrid product* the normalised product of a classical, a deep and a
hybrid forest. Forests have 200 trees; *published*: 2 features a split, depth 10, leaf 1; the other: sqrt(n)
features a split, full depth, leaf 2, and half of its trees do not look at grey values if there are deep
features. *vote*, the default, is the mean of such a forest and of logistic regression. All weigh classes by
frequency. Deep features by preset: {presets}."""

_PRESETS = {
    "fast": "`fast` is block 6 with woven mirror images",
    "balanced": "`balanced` (the default) is block 6 with woven mirror images, turned ones, too",
    "best": "`best` is block 6 with woven mirror images, turned ones, too, each twice",
    "fast-0.1": "`fast-0.1` is block 6 with 2 x 2 interleaved offsets",
    "balanced-0.1": "`balanced-0.1` is block 6 with 2 x 2 interleaved offsets of four mirror images",
    "best-0.1": "`best-0.1` is block 6 with 2 x 2 interleaved offsets of eight mirrored and turned images",
    "paper": "`paper` is the last block at stride 4 with 16 averaged shifts, stretched",
}

_DENSE = """
## {name}: dense truth on test planes

Strokes drawn by `tools/scribbles.py` (10 of 40 steps per class and plane, seeds {seeds}) on {train}
training planes, at most {per_class} samples of a class; IoU on {pixels} of {test} other planes
({compared:.2f} million). Mean and standard deviation over {drawings} drawing(s) (a drawing's seed is the
classifier's, too).{note}
"""

_STROKED = """
## {name}: stroke pixels of an image left out

Trained on a person's strokes on the other images, at most {per_class} samples of a class, and compared with
the strokes of the one left out: mean and standard deviation over the {count} images. A figure of stroke
pixels flatters: people draw where they are sure.
"""

_REFERENCED = """
## {names}: the paper's own outputs

Share of pixels equal to the paper's result on the same strokes without CRF (`reference_*_nocrf`), mean and
standard deviation over seeds {seeds} of the forests; the reference is the one of the same features (for the
product: the hybrid one). The paper took its deep features otherwise (stride 4, averaged over shifts,
stretched) and its results are not the truth: equality is agreement, not accuracy.
"""


def render(parts: Mapping[str, Part], command: str) -> str:
    """Return the whole document.

    Parameters
    ----------
    parts
        Figures by name of data set, in the order to show them.
    command
        That reproduces all of them.
    """
    presets = {row["preset"]: None for part in parts.values() for row in part["rows"]}
    about = _ABOUT.format(
        command=command,
        machines=_machines(parts),
        presets="; ".join(_PRESETS.get(name, f"`{name}`") for name in presets),
    )
    sections = [about]
    dense = {name: part for name, part in parts.items() if part["what"] == "dense"}
    if dense:
        sections.append("\n## What is best where\n\n`in n of m`: drawings.\n\n" + "\n".join(_verdicts(dense)))
    sections += [_dense(name, part) for name, part in dense.items()]
    sections += [_stroked(name, part) for name, part in parts.items() if part["what"] == "stroked"]
    referenced = {name: part for name, part in parts.items() if part["what"] == "referenced"}
    if referenced:
        sections.append(_referenced(referenced))
    return "\n".join(sections).rstrip() + "\n"


def _machines(parts: Mapping[str, Part]) -> str:
    """Describe the machines, each once."""
    of: dict[str, list[str]] = {}
    for name, part in parts.items():
        of.setdefault(part["machine"], []).append(f"{name} {part['cpu_seconds'] / 60:.0f} min")
    lines = [
        f"Machine: {machine} CPU time, of all cores together: {', '.join(times)}."
        for machine, times in of.items()
    ]
    return "\n".join(lines) + "\n"


def _verdicts(dense: Mapping[str, Part]) -> list[str]:
    """Return for each data set the best entry, and where hybrid is not the best of the three."""
    verdicts = []
    for name, part in dense.items():
        rows = {(row["preset"], row["features"], row["classifier"]): row["miou"] for row in part["rows"]}
        best = max(rows, key=lambda key: float(np.mean(rows[key])))
        sentences = [
            f"- **{name}**: best of all is {best[1]} with {best[2]}"
            f"{'' if best[1] == 'classical' else f' ({best[0]})'}, {_mean(rows[best])}."
        ]
        for preset, classifier in dict.fromkeys((key[0], key[2]) for key in rows):
            values_of = {kind: _find(rows, preset, kind, classifier) for kind in KINDS}
            three = {kind: values for kind, values in values_of.items() if values}
            if len(three) < len(KINDS):
                continue
            sentences.append(_compare(three, f"{classifier}, {preset}"))
            product = rows.get((preset, PRODUCT, classifier))
            if product:
                change = float(np.mean(product) - np.mean(three["hybrid"]))
                sentences.append(f"The product is {change:+.3f} from hybrid.")
        verdicts.append(" ".join(sentences))
    return verdicts


def _find(rows: Mapping[Any, Sequence[float]], preset: str, kind: str, classifier: str) -> Any:
    """Return a row; classical features are the same with every preset and measured with one."""
    return next(
        (
            values
            for key, values in rows.items()
            if key[1:] == (kind, classifier) and (key[0] == preset or kind == "classical")
        ),
        None,
    )


def _compare(three: Mapping[str, Sequence[float]], setting: str) -> str:
    """Compare hybrid with the better of the other two, over drawings and drawing by drawing."""
    hybrid = np.asarray(three["hybrid"])
    rival = max((kind for kind in three if kind != "hybrid"), key=lambda kind: float(np.mean(three[kind])))
    other = np.asarray(three[rival])
    ours, theirs = _mean(hybrid), _mean(other)
    if ours == theirs:
        return f"With {setting}: hybrid and {rival} are level, {ours}."
    won, n = int((hybrid > other).sum()), len(hybrid)
    if ours > theirs:
        return (
            f"With {setting}: hybrid {ours} is the best of the three, above {rival} {theirs} in {won} of {n}."
        )
    lost = int((hybrid < other).sum())
    return (
        f"With {setting}: **hybrid {ours} is not the best of the three**, {rival} {theirs} is above it in"
        f" {lost} of {n}."
    )


def _dense(name: str, part: Part) -> str:
    step = part["step"]
    ordinal = {1: "", 2: "2nd", 3: "3rd"}.get(step, f"{step}th")
    pixels = "all pixels" if step == 1 else f"every {ordinal} row and column"
    text = _DENSE.format(
        name=name,
        seeds=", ".join(map(str, part["seeds"])),
        train=part["train"],
        per_class=part["options"]["per_class"],
        test=part["test"],
        pixels=pixels,
        compared=part["compared"] / 1e6,
        drawings=len(part["seeds"]),
        note=part["note"],
    )
    iou = [f"{i} {label}" for i, label in enumerate(part["classes"], start=1)]

    def cells(row: Mapping[str, Any]) -> list[str]:
        return [_spread(row["miou"]), *(_spread(values) for values in np.transpose(row["iou"]))]

    return text + "\n" + _table(["mIoU", *iou], part["rows"], cells)


def _stroked(name: str, part: Part) -> str:
    def cells(row: Mapping[str, Any]) -> list[str]:
        return [_spread(row["miou"]), _spread(row["accuracy"])]

    text = _STROKED.format(name=name, count=part["images"], per_class=part["options"]["per_class"])
    return text + "\n" + _table(["mIoU", "accuracy"], part["rows"], cells)


def _referenced(parts: Mapping[str, Part]) -> str:
    seeds = sorted({seed for part in parts.values() for seed in part["seeds"]})
    text = _REFERENCED.format(names=" and ".join(parts), seeds=", ".join(map(str, seeds)))
    rows = [row | {"image": name} for name, part in parts.items() for row in part["rows"]]

    def cells(row: Mapping[str, Any]) -> list[str]:
        target = TARGETS.get((row["image"], row["features"], row["classifier"]))
        return [
            row["image"],
            f"`{row['reference']}`",
            _spread(row["equal"]),
            f"{target[1]:.2f}" if target and target[0] == row["reference"] else "",
        ]

    return text + "\n" + _table(["image", "reference", "equal", "target"], rows, cells)


def _table(
    head: Sequence[str], rows: Sequence[Mapping[str, Any]], cells: Callable[[Mapping[str, Any]], list[str]]
) -> str:
    lines = []
    for row in rows:
        preset = "" if row["features"] == "classical" else row["preset"]
        lines.append([row["features"], preset, row["classifier"], *cells(row)])
    return table(["features", "preset", "classifier", *head], lines, spaced=True)


def _spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation; the mean alone of a single value."""
    return _mean(values) if len(values) < 2 else f"{_mean(values)} ± {np.std(values, ddof=1):.3f}"


def _mean(values: Any) -> str:
    return f"{np.mean(values):.3f}"
