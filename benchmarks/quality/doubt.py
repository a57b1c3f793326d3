"""Measure calibration on a dense truth, and which pairs of training and volume warn of drift.

Run it with ``python -m benchmarks.quality.doubt benchmarks/quality/doubt.md``. Figures are kept in the JSON
file beside the page, features in ``--folder``: an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.quality.doubt_data import (
    RECIPE,
    Drawing,
    compared,
    drawings,
    fewer,
    only_one_plane,
    test_pixels,
)
from benchmarks.results import load, save
from hrvol.features.featuriser import load_featuriser
from hrvol.quality.calibration import Reliability, tempered
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.training.calibrate import calibrate
from hrvol.training.drift import MARGIN, drift_record
from hrvol.training.tuning.pixel_folds import fold_pixels

CALIBRATED = ("super1", "vnc", "xct_fibres")

SAME = ("super1", "ebc2", "vnc", "xct_fibres", "fibsem_medulla")
"""Data sets whose test planes must not warn."""

OTHER = (("super1", "ebc2"), ("needle_block", "vnc"))
"""Pairs that must warn."""

FURTHER = (
    ("xct_fibres", "xct_lowcontrast"),
    ("fibsem_medulla", "vnc"),
    ("vnc", "fibsem_medulla"),
    ("superalloy", "super1"),
    ("super1", "superalloy"),
    ("ebc2", "super1"),
    ("ebc2", "tcells"),
    ("vnc", "tcells"),
    ("xct_lowcontrast", "xct_fibres"),
    ("xct_lowcontrast", "xct_lowcontrast"),
)
"""Pairs that the settings were not chosen with, or that are alike."""


SAMPLES = 1000
"""Samples of a class of the classifiers that are calibrated: there are five fits for each drawing."""

CALIBRATION_REMARK = """
All three classifiers are less sure than they should be on strokes, and a temperature below 1 mends that. On
the truth it helps as much only where pixels beside strokes are as easy as those under them, as on super1. On
vnc, where nearly one label of five is wrong, three drawings gain and two lose; the fibres were calibrated
before, and are made too sure.
""".strip()

DRIFT_REMARK = """
The margin and the number of components were chosen with super1, xct_fibres, fibsem_medulla, needle_block and
superalloy as training sets. Where it fails: the four training images of ebc2 differ so much from each other
that superalloys and cells are no farther, and nothing warns. With strokes on one image of a set of dissimilar
images (super1, ebc2) other images of the same set may warn; with strokes on one plane of a volume (vnc,
xct_fibres, fibsem_medulla) none does.
""".strip()


def measure_calibration(
    name: str, drawing: Drawing, seed: int, featuriser: Any, folder: Path
) -> dict[str, Any]:
    """Return calibration errors on held-out strokes and on the truth, before and after."""
    recipe = RECIPE.with_(seed=seed)
    folds = fold_pixels([drawing.pair], drawing.pixels, recipe.tiles, recipe.seed)
    groups, grey = featuriser.groups, featuriser.grey
    found = calibrate(drawing.samples, folds, recipe, groups, grey)
    classifier = PixelClassifier.fit(drawing.samples, recipe.classifier, groups=groups, grey=grey, seed=seed)
    features, truth = test_pixels(name, drawing.window, featuriser, folder)
    probabilities = np.asarray(classifier.predict_proba(features)).T
    after = tempered(probabilities, found.temperature)
    assert np.array_equal(after.argmax(axis=0), probabilities.argmax(axis=0)), "a label has changed"
    number = np.searchsorted(classifier.classes, truth)
    return {
        "temperature": found.temperature,
        "strokes": [round(found.before.error, 4), round(found.after.error, 4)],
        "truth": [round(Reliability.of(values, number).error, 4) for values in (probabilities, after)],
        "accuracy": round(float((probabilities.argmax(axis=0) == number).mean()), 4),
    }


def measure_drift(drawing: Drawing, target: str, featuriser: Any, folder: Path) -> dict[str, Any]:
    """Return the threshold of a drawing, and the distances of the planes of another data set."""
    folds = fold_pixels([drawing.pair], drawing.pixels, RECIPE.tiles, RECIPE.seed)
    record = drift_record(drawing.samples, drawing.pixels, folds, featuriser.groups, RECIPE.seed)
    assert record is not None
    features, planes = compared(target, drawing.window, featuriser, folder)
    distances = record.cloud.distances(features)
    of_plane = [float(np.median(distances[planes == z])) for z in np.unique(planes)]
    return {"threshold": round(record.threshold, 3), "distances": [round(one, 3) for one in of_plane]}


def calibration_table(figures: dict[str, Any], seeds: Sequence[int]) -> str:
    """Return the table of calibration errors."""
    head = ["data", "temperature", "ECE strokes before", "after", "ECE truth before", "after", "accuracy"]
    rows = []
    for name in CALIBRATED:
        found = [figures[f"ece {name} {seed}"] for seed in seeds if f"ece {name} {seed}" in figures]
        if found:
            columns = [
                [one["temperature"] for one in found],
                *([one[kind][i] for one in found] for kind in ("strokes", "truth") for i in (0, 1)),
                [one["accuracy"] for one in found],
            ]
            rows.append([name, *(f"{np.mean(c):.3f} ± {np.std(c, ddof=1):.3f}" for c in columns)])
    return table(head, rows)


def drift_table(
    figures: dict[str, Any], pairs: Sequence[tuple[str, str]], seeds: Sequence[int], kind: str = "drift"
) -> str:
    """Return the table of some pairs."""
    head = ["trained on", "volume", "drawings that warn", "planes far", "farthest / threshold", "nearest"]
    rows = []
    for name, target in pairs:
        keys = [f"{kind} {name} {target} {seed}" for seed in seeds]
        found = [figures[key] for key in keys if key in figures]
        if not found:
            continue
        ratios = [np.array(one["distances"]) / one["threshold"] for one in found]
        far = [int((ratio > 1).sum()) for ratio in ratios]
        planes = len(ratios[0])
        shown = f"{min(far)} to {max(far)} of {planes}" if min(far) < max(far) else f"{far[0]} of {planes}"
        spread = [f"{min(values):.2f} to {max(values):.2f}" for values in _ends(ratios)]
        warned = sum(number > 0 for number in far)
        rows.append([name, target, f"{warned} of {len(found)}", shown, *spread])
    return table(head, rows)


def _ends(ratios: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Return the largest ratio of each drawing, and the least."""
    return [float(ratio.max()) for ratio in ratios], [float(ratio.min()) for ratio in ratios]


def render(figures: dict[str, Any], seeds: Sequence[int]) -> str:
    """Return the page."""
    same = [(name, name) for name in SAME]
    return f"""# Doubt: calibration and drift

{describe_machine(1)} `python -m benchmarks.quality.doubt`.

Preset `fast` with at most {RECIPE.classifier.samples_per_class} samples of a class, OpenVINO;
{len(seeds)} drawings (`tools/scribbles.py`). Of needle_block and superalloy, on which a person drew once, a
drawing is three quarters of the strokes at random.

## Calibration

Expected calibration error (15 bins) on strokes that were held out in a cross-validation, after with
temperatures that were fitted without the fold, and on random pixels of the test planes, whose classes are
known. At most {SAMPLES} samples of a class. Mean and standard deviation over the drawings. Labels are the
same before and after.

{calibration_table(figures, seeds)}
{CALIBRATION_REMARK}

## Drift

A run compares 3 to 6 tiles of a volume with the training strokes. A plane is far if the median distance of
its pixels is beyond the threshold: {MARGIN:g} times that of the farthest held-out strokes. The last columns
give the range over the drawings of the largest and the least distance of a plane, over the threshold: above 1
it is far.

Test planes of the set that was drawn on, which are to be silent:

{drift_table(figures, same, seeds)}
Another material and instrument, which are to warn:

{drift_table(figures, OTHER, seeds)}
Further pairs, of which some are alike:

{drift_table(figures, FURTHER, seeds)}
Strokes on one training plane only, another one for each drawing, and the test planes of the same set:

{drift_table(figures, same, seeds, "one")}
{DRIFT_REMARK}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", help="Markdown page to write")
    parser.add_argument("--drawings", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("doubt-cache"), help="for features on disk")
    options = parser.parse_args()
    file = Path(__file__).with_suffix(".json")
    figures, seeds = load(file), range(options.drawings)
    featuriser = load_featuriser(RECIPE.features, device="cpu", backend="openvino")
    same = [(name, name) for name in SAME]
    wanted = [("drift", *pair) for pair in (*same, *OTHER, *FURTHER)] + [("one", *pair) for pair in same]
    for name in dict.fromkeys(name for _, name, _ in wanted):
        drawn = drawings(name, seeds, featuriser, options.folder)
        for kind, target in ((kind, target) for kind, source, target in wanted if source == name):
            for seed in seeds:
                if (key := f"{kind} {name} {target} {seed}") not in figures:
                    drawing = drawn[seed] if kind == "drift" else only_one_plane(drawn[seed], seed)
                    figures[key] = measure_drift(drawing, target, featuriser, options.folder)
                    save(file, figures)
                    log(f"{key}: {figures[key]}")
    for name in CALIBRATED:
        drawn = drawings(name, seeds, featuriser, options.folder)
        for seed in seeds:
            if (key := f"ece {name} {seed}") not in figures:
                drawing = fewer(drawn[seed], SAMPLES, seed)
                figures[key] = measure_calibration(name, drawing, seed, featuriser, options.folder)
                save(file, figures)
                log(f"{key}: {figures[key]}")
    page = render(figures, seeds)
    print(page)
    if options.page is not None:
        options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
