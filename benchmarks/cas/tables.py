"""Render the figures of ``benchmarks.cas`` as Markdown; sentences are derived from the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cas.scores import GIVEN, LAMBDAS, PUBLISHED
from benchmarks.markdown import table
from hrvol.quality.metrics import cor_loc

Result = Mapping[str, Any]
"""Figures of one image with one kind of features, as in ``cas.json``."""

_table = partial(table, spaced=True)

Pick = Callable[[Mapping[str, Any]], float | None]
"""From a row to a figure; ``None`` where there is none."""

_ABOUT = """\
# Classes without labels

Made by

```
{command}
```

The micrographs are not part of the project (`$HRVOL_DATA` is their folder).
{machines}

*deep*: tokens of the preset `cas` (native stride, 2 x 2 interleaved offsets, flips, block 9, less a
position field of degree 2). *last* (reduced images only): the same of the last block. *classical*: the
default filters, standardised, Euclidean distance between centroids. *intensity*: the grey value alone,
Euclidean. All go through the same k-means (80 clusters of 50 000 sampled pixels; of grey values fewer,
where the sample has not as many levels), the same merging and the same seeds (of sample and k-means).
Classical and intensity features have no attention of their own: **they are given the network's attention
map**, for the foreground decision and for the semantic distance, so that only the features differ.
*lambda*: clusters nearer than lambda times the semantic distance become one class. *given*: merged until as
many classes are left as the truth of the image has, which needs no attention.

Every pixel is labelled; IoU and purity are on all pixels with a truth. Classes are matched to the true ones
one to one (Hungarian); a surplus class counts as missed. Purity: share of pixels of the majority class of
their class found; it rises with the number of classes, compare it at *given*. *one class*: what a map of one
class for all pixels gets. tcells (strokes 1 nucleus, 2 cell, 3 background), super1, ebc2 and needle_block
(strokes, and as a second opinion what the paper made of it): each image on its own. super1 and ebc2: test
planes, ebc2 at half resolution (2 x 2 means). vnc: planes 0-3, the middle 512 x 512, as one volume, so that
a class has to hold over planes. Figures are means over images, then mean ± standard deviation over the seeds;
strokes flatter, people draw where they are sure.
"""


def render(results: Sequence[Result], failed: Mapping[str, str], command: str) -> str:
    """Return the whole document.

    Parameters
    ----------
    results
        Figures, in the order to show them.
    failed
        Name of a measurement that failed -> error.
    command
        That reproduces them.
    """
    whole = [result for result in results if result["part"] == "whole"]
    reduced = [result for result in results if result["part"] != "whole"]
    sections = [_ABOUT.format(command=command, machines=_machines(results))]
    if whole:
        sections += [_verdicts(whole), _classes(whole), _lambdas(whole), _foreground(whole)]
        sections += [_boxes(whole), _by_image(whole)]
    if reduced:
        sections.append(_densities(reduced))
    if results:
        sections.append(_seconds(results))
    if failed:
        summary = "\n".join(f"- {name}: {why}" for name, why in failed.items())
        sections.append(f"## Not measured\n\n{summary}\n")
    return "\n".join(section for section in sections if section).rstrip() + "\n"


def per_seed(results: Iterable[Result], merge: str, pick: Pick) -> list[float]:
    """Return for each seed the mean over images of a figure of the rows merged in one way."""
    of_seed: dict[int, list[float]] = {}
    for result in results:
        for row in result["rows"]:
            value = pick(row) if row["merge"] == merge else None
            if value is not None:
                of_seed.setdefault(row["seed"], []).append(value)
    return [float(np.mean(values)) for values in of_seed.values()]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return mean and sample standard deviation; the mean alone of a single value, nothing of none."""
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def corloc(results: Sequence[Result], merge: str, what: str, mode: str) -> list[float]:
    """Return CorLoc over the images that show an object, for each seed.

    The nearest of several boxes is enough to tell whether one of them hits.
    """
    found: dict[int, tuple[list[Any], list[Any]]] = {}
    for result in results:
        for row in result["rows"]:
            if row["merge"] == merge and what in row["boxes"]:
                boxes, true = found.setdefault(row["seed"], ([], []))
                boxes.append(row["boxes"][what][mode]["box"])
                true.append([result["true_boxes"][what]])
    return [cor_loc(boxes, true) for boxes, true in found.values()]


def _by(results: Iterable[Result], *names: str) -> dict[tuple[str, ...], list[Result]]:
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result[name] for name in names), []).append(result)
    return groups


def _truths(results: Sequence[Result]) -> list[str]:
    return list(results[0]["alone"])


def _of_truth(truth: str, figure: str) -> Pick:
    return lambda row: row["truths"][truth].get(figure)


def _of(figure: str) -> Pick:
    return lambda row: row[figure]


def _of_box(what: str, mode: str) -> Pick:
    return lambda row: row["boxes"][what][mode]["iou"] if what in row["boxes"] else None


def _machines(results: Sequence[Result]) -> str:
    return "\n".join(f"Machine: {machine}" for machine in dict.fromkeys(r["machine"] for r in results))


def _verdicts(results: Sequence[Result]) -> str:
    """Return for each data set the order of the features where the number of classes is given."""
    lines = []
    for (data,), members in _by(results, "data").items():
        truth = _truths(members)[0]
        kinds = {kind: found for (kind,), found in _by(members, "features").items()}
        scores = {kind: per_seed(found, GIVEN, _of_truth(truth, "miou")) for kind, found in kinds.items()}
        order = sorted(scores, key=lambda kind: -float(np.mean(scores[kind])))
        alone = float(np.mean([result["alone"][truth]["miou"] for result in kinds[order[0]]]))
        summary = ", ".join(f"{kind} {spread(scores[kind])}" for kind in order)
        line = f"- **{data}** ({truth}): mIoU with the number of classes given: {summary};"
        line += f" one class {alone:.3f}."
        for kind in ("deep",) if "deep" in kinds else ():
            counts = per_seed(kinds[kind], PUBLISHED, _of("classes"))
            miou = per_seed(kinds[kind], PUBLISHED, _of_truth(truth, "miou"))
            true = float(np.mean([result["true_classes"] for result in kinds[kind]]))
            line += f" With lambda 1.0 {kind} finds {spread(counts, 1)} classes, of {true:.3g} true ones:"
            line += f" {spread(miou)}."
        held = per_seed(kinds.get("deep", ()), GIVEN, _of_truth(truth, "held"))
        if held:
            apart = per_seed(kinds["deep"], GIVEN, _of_truth(truth, "apart"))
            line += f" Mean over planes of the deep mIoU: {spread(held)} with one matching for all planes,"
            line += f" {spread(apart)} with one for each: the nearer, the better classes hold over planes."
        lines.append(line)
    return "## What is best where\n\n" + "\n".join(lines) + "\n"


def _classes(results: Sequence[Result]) -> str:
    rows = []
    for (data,), members in _by(results, "data").items():
        for truth in _truths(members):
            for (kind,), found in _by(members, "features").items():
                cells = [spread(per_seed(found, PUBLISHED, _of("classes")), 1)]
                for merge in (PUBLISHED, GIVEN):
                    for figure in ("miou", "purity"):
                        cells.append(spread(per_seed(found, merge, _of_truth(truth, figure))))
                rows.append([data, truth, kind, *cells])
            first = next(iter(_by(members, "features").values()))
            alone = [
                f"{np.mean([result['alone'][truth][figure] for result in first]):.3f}"
                for figure in ("miou", "purity")
            ]
            rows.append([data, truth, "*one class*", "1", *alone, *alone])
    head = ["data", "truth", "features", "classes, lambda 1.0", "mIoU, 1.0", "purity, 1.0"]
    return "## Classes\n\n" + _table([*head, "mIoU, given", "purity, given"], rows)


def _lambdas(results: Sequence[Result]) -> str:
    rows = []
    for (data, kind), found in _by(results, "data", "features").items():
        truth = _truths(found)[0]
        cells = []
        for factor in LAMBDAS:
            cells.append(spread(per_seed(found, str(factor), _of("classes")), 1))
            cells.append(spread(per_seed(found, str(factor), _of_truth(truth, "miou"))))
        rows.append([data, kind, *cells])
    head = [f"{what}, {factor}" for factor in LAMBDAS for what in ("classes", "mIoU")]
    return "## Lambda\n\n" + _table(["data", "features", *head], rows)


def _foreground(results: Sequence[Result]) -> str:
    rows = []
    for (data, kind), found in _by(results, "data", "features").items():
        cells = []
        for merge in (PUBLISHED, GIVEN):
            cells.append(spread(per_seed(found, merge, _of("foreground_classes")), 1))
            cells.append(spread(per_seed(found, merge, _of("foreground"))))
            cells.append(spread(per_seed(found, merge, _of("foreground_iou"))))
        rows.append([data, kind, *cells])
    head = [f"{what}, {how}" for how in (PUBLISHED, GIVEN) for what in ("classes", "share", "IoU")]
    text = (
        "## Foreground\n\nForeground classes, their share of all pixels, and on T-cells the IoU of that mask"
        " with strokes on cell or nucleus, against those on the background.\n\n"
    )
    return text + _table(["data", "features", *head], rows)


def _boxes(results: Sequence[Result]) -> str:
    """Return the boxes of T-cells: CorLoc of all features, best IoU of each image with deep ones."""
    known = [result for result in results if result["true_boxes"]]
    if not known:
        return ""
    objects = list(known[0]["true_boxes"])
    pairs = [(what, mode) for what in objects for mode in ("multi", "single")]
    head = [f"{what}, {mode}" for what, mode in pairs]
    kinds = _by(known, "features")
    rows = [
        [kind, merge, _boxes_found(found, merge), *(spread(corloc(found, merge, *pair)) for pair in pairs)]
        for (kind,), found in kinds.items()
        for merge in (*map(str, LAMBDAS), GIVEN)
    ]
    first = next(iter(kinds.values()))
    rows.append(["*whole image*", "", "1", *(spread(_whole_image(first, what)) for what, _ in pairs)])
    text = (
        "## Boxes\n\nTrue boxes are around strokes, which are sparse: on cell or nucleus (*cell*), and on the"
        " nucleus alone. **They are mostly smaller than the cell and the nucleus are**, so that an IoU of 1"
        " is out of reach. *multi*: all boxes of foreground classes and the superbox; *single*: the"
        " superbox.\n\n"
        "CorLoc: share of images with a box of IoU 0.5 or more; *boxes*: how many of them *multi* has to"
        " hit with; *whole image*: one box around all of it.\n\n"
    )
    text += _table(["features", "lambda", "boxes", *head], rows)
    lines = []
    for result in known:
        boxes = result["true_boxes"]
        cells = [spread(per_seed([result], PUBLISHED, _of_box(*pair))) for pair in pairs]
        corners = [str(tuple(boxes[what])) if boxes[what] else "" for what in objects]
        lines.append(
            [result["image"], result["features"], *corners, _boxes_found([result], PUBLISHED), *cells]
        )
    text += "\nBest IoU with lambda 1.0.\n\n"
    true = [f"{what} (y0, x0, y1, x1)" for what in objects]
    return text + _table(["image", "features", *true, "boxes", *head], lines)


def _boxes_found(results: Sequence[Result], merge: str) -> str:
    """Return how many boxes an image gets; they are the same for all objects of it."""
    return spread(per_seed(results, merge, lambda row: next(iter(row["boxes"].values()))["multi"]["of"]), 1)


def _whole_image(results: Sequence[Result], what: str) -> list[float]:
    """Return the CorLoc of one box around the whole image, if an image shows the object."""
    shown = [result for result in results if result["true_boxes"][what]]
    boxes = [(0.0, 0.0, float(r["shape"][1]), float(r["shape"][2])) for r in shown]
    return [cor_loc(boxes, [[r["true_boxes"][what]] for r in shown])] if shown else []


def _by_image(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        truth = _truths([result])[0]
        cells = [spread(per_seed([result], PUBLISHED, _of("classes")), 1), str(result["true_classes"])]
        for merge in (PUBLISHED, GIVEN):
            cells.append(spread(per_seed([result], merge, _of_truth(truth, "miou"))))
        distance = spread(per_seed([result], PUBLISHED, _of("semantic_distance")))
        rows.append([result["image"], result["features"], *cells, distance])
    head = ["image", "features", "classes, lambda 1.0", "true", "mIoU, 1.0", "mIoU, given"]
    return "## Image by image\n\n" + _table([*head, "semantic distance"], rows)


def _densities(results: Sequence[Result]) -> str:
    """Compare the published, strided settings with interleaved ones, on the same reduced images."""
    rows = []
    for found in _by(results, "image").values():
        for result in found:
            size = " x ".join(map(str, result["shape"][1:]))
            quality = _quality([result], _truths([result])[0])
            rows.append([result["image"], size, *_costs([result], found), *quality])
    kinds = _by(results, "features")
    images = [{result["image"] for result in found} for found in kinds.values()]
    both = set.intersection(*images)  # a mean over other images would not compare
    shared = [result for result in results if result["image"] in both]
    if both:
        for found in _by(shared, "features").values():
            rows.append([f"**mean of {len(both)}**", "", *_costs(found, shared), *_quality(found, None)])
    head = ["image", "px", "features", "s", "CPU s", "ratio"]
    head += ["classes, 1.0", "mIoU, 1.0", "mIoU, given", "purity, given"]
    text = (
        "## Published settings against interleaved ones\n\n*strided*: preset `cas-paper` (stride 4, shifts of"
        " 1 and 2 px in 8 directions, the published flips, stretched, nearest, last block); *interleaved*:"
        " preset `cas`, and the same of the last block."
        " The published settings cost minutes an image even so: images are reduced by area means to about"
        " the side that the command says, the same ones for all. Seconds are of the features of one image;"
        " ratio of CPU time.\n\n"
    ) + _table(head, rows)
    cells = [result for result in results if result["true_boxes"]]
    if cells:
        pairs = [(what, mode) for what in cells[0]["true_boxes"] for mode in ("multi", "single")]
        lines = [
            [
                _density(found[0]),
                *(spread(corloc(found, PUBLISHED, *pair)) for pair in pairs),
                spread(per_seed(found, PUBLISHED, _of("foreground_iou"))),
            ]
            for found in _by(cells, "features").values()
        ]
        names = [f"CorLoc {what}, {mode}" for what, mode in pairs]
        text += "\nT-cells, lambda 1.0.\n\n" + _table(["features", *names, "foreground IoU"], lines)
    return text


def _costs(ours: Sequence[Result], all_of_them: Sequence[Result]) -> list[str]:
    """Return features, mean seconds, CPU seconds, and of strided ones the ratio to interleaved ones."""
    wall, cpu = (_mean_of(ours, name) for name in ("seconds", "cpu_seconds"))
    others = [result for result in all_of_them if result["features"] == "deep"]
    is_strided = ours[0]["features"] == "strided"
    base = _mean_of(others, "cpu_seconds") if is_strided and others else 0
    ratio = f"{cpu / base:.1f}" if base else ""
    return [_density(ours[0]), f"{wall:.1f}", f"{cpu:.1f}", ratio]


def _mean_of(results: Sequence[Result], name: str) -> float:
    return float(np.mean([result[name]["features"] for result in results]))


def _density(result: Result) -> str:
    names = {"deep": "interleaved", "last": "interleaved, last block"}
    return names.get(result["features"]) or str(result["features"])


def _quality(results: Sequence[Result], truth: str | None) -> list[str]:
    """Return the figures that densities are compared by; of each image's first truth where none is named."""

    def picked(figure: str) -> Pick:
        return lambda row: row["truths"][truth or next(iter(row["truths"]))][figure]

    return [
        spread(per_seed(results, PUBLISHED, _of("classes")), 1),
        spread(per_seed(results, PUBLISHED, picked("miou"))),
        spread(per_seed(results, GIVEN, picked("miou"))),
        spread(per_seed(results, GIVEN, picked("purity"))),
    ]


def _seconds(results: Sequence[Result]) -> str:
    """Return the seconds of the stages; *k-means* and *labels* for each seed."""
    rows = []
    stages = ("features", "k-means", "labels")
    for (data, part, kind), found in _by(results, "data", "part", "features").items():
        cells = []
        for stage in stages:
            repeats = [1 if stage == "features" else len({row["seed"] for row in r["rows"]}) for r in found]
            for name in ("seconds", "cpu_seconds"):
                times = [r[name][stage] / n for r, n in zip(found, repeats, strict=True)]
                cells.append(f"{np.mean(times):.1f}")
        pixels = f"{np.mean([np.prod(r['shape']) for r in found]) / 1e6:.2f}"
        rows.append([data, part, kind, str(len(found)), pixels, *cells])
    head = [f"{stage}, {what}" for stage in stages for what in ("s", "CPU s")]
    text = (
        "## Seconds\n\nOf an image (vnc: of its four planes); k-means with its sample, and labels, of a seed."
    )
    return f"{text}\n\n" + _table(["data", "part", "features", "images", "megapixels", *head], rows)
