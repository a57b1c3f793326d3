"""Run the whole workflow, from strokes to figures, on a synthetic volume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.classes import ClassInfo, default_classes
from hrvol.device import cpus
from hrvol.distil.distil import distil_model
from hrvol.errors import BlockError, OutputExistsError, WeightsError
from hrvol.features.weights.registry import fetch_weights
from hrvol.figures.panels import draw_planes, draw_scores
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.progress import ProgressCallback, renamed
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.run.ledger import entries
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import current_versions, save_model
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import whole
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume, open_labels, open_volume
from hrvol.volume.write_image import write_image

SHAPE = (12, 256, 256)

VOXEL_SIZE = (0.2, 0.2, 0.2)

STROKE_PLANES = (2, 9)

STROKES = 6
"""Strokes per class and plane."""

PICTURE_PLANE = 6

PLANES_PER_BLOCK = 3

SEED = 0

MARKER = "hrvol-demo.json"
"""File that marks a folder as the demo's; holds the scores when the demo is done."""

STUDENT = "student"
"""Name of the results of a network that was taught by the last model."""

STUDENT_STEPS = 800

_RECIPES = {"classical": "classical", "hybrid": "fast"}


@dataclass(frozen=True)
class DemoReport:
    """The results of the demo.

    Attributes
    ----------
    scores
        Kind of features, or ``student`` -> scores of :func:`hrvol.evaluate_volumes`.
    costs
        The same names -> microseconds of computing per voxel, on one core.
    pictures
        PNG files.
    commands
        Commands to continue with.
    """

    scores: Mapping[str, Mapping[str, Any]]
    costs: Mapping[str, float]
    pictures: tuple[Path, ...]
    commands: tuple[str, ...]


def run_demo(
    out: str | Path,
    *,
    classical_only: bool = False,
    weights_path: str | Path | None = None,
    offline: bool = False,
    progress: ProgressCallback | None = None,
) -> DemoReport:
    """Create a volume, draw strokes, train, distil, segment, evaluate and plot.

    Parameters
    ----------
    out
        Folder for all results; it must be empty, or an earlier demo's, which is overwritten.
    classical_only
        Use classical filters only, without a network.
    weights_path, offline, progress
        As for :func:`hrvol.segment_volume`. Names of stages start with the kind of features.

    Raises
    ------
    OutputExistsError
        The folder contains other files.
    WeightsError
        The network's weights could not be obtained.
    """
    folder = Path(out)
    _claim(folder)
    recipes = {name: PRESETS[preset] for name, preset in _RECIPES.items()}
    if classical_only:
        del recipes["hybrid"]
    for recipe in recipes.values():
        _check_weights(recipe, weights_path, offline)

    phantom = make_phantom(SHAPE, SEED)
    classes = default_classes(range(1, len(phantom.class_names) + 1), phantom.class_names)
    strokes = draw_strokes(phantom.labels, STROKE_PLANES, strokes=STROKES, seed=SEED)
    image = replace(open_volume(phantom.image), voxel_size=VOXEL_SIZE, unit="micrometer")
    volume = write_image(folder / "volume.ome.zarr", image, overwrite=True)
    _write_labels(folder / "truth.ome.zarr", phantom.labels, volume, classes)
    _write_labels(folder / "strokes.ome.zarr", strokes, volume, classes)

    engine = "serial" if cpus() == 1 else "local"
    scores, costs, results = {}, {}, {}
    for name in (*recipes, STUDENT):
        keywords: dict[str, Any] = {
            "weights_path": weights_path,
            "offline": offline,
            "progress": renamed(progress, prefix=f"{name}: "),
        }
        file, labels = folder / f"{name}.hrvol", folder / f"{name}.ome.zarr"
        if name == STUDENT:
            teacher = folder / f"{next(reversed(recipes))}.hrvol"
            model = distil_model(
                volume.source,
                teacher,
                tiles=SHAPE[0],
                size="small",
                volumetric="off",
                steps=STUDENT_STEPS,
                accept=True,
                engine=engine,
                **keywords,
            ).student
        else:
            model = train_model(
                [(volume.source, folder / "strokes.ome.zarr")],
                recipe=recipes[name].with_(**{"tiles.planes": PLANES_PER_BLOCK}),
                **keywords,
            )
        save_model(model, file)
        report = segment_volume(
            volume.source, labels, file, engine=engine, uncertainty=True, overwrite=True, **keywords
        )
        if report.failed:
            raise BlockError(f"{labels}: {len(report.failed)} blocks failed; {report.failed[0].reason}")
        scores[name] = evaluate_volumes(labels, folder / "truth.ome.zarr")
        costs[name] = _microseconds_per_voxel(labels)
        results[name] = labels

    record = {"versions": current_versions(), "scores": scores, "costs": costs}
    (folder / MARKER).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    pictures = _draw(folder, phantom.image, strokes, phantom.labels, results, classes, scores)
    return DemoReport(scores, costs, pictures, _commands(folder, next(reversed(recipes))))


def _microseconds_per_voxel(labels: Path) -> float:
    """Return what a voxel of an output cost to compute, from the record of its blocks."""
    blocks = list(entries(Location.of(labels)))
    seconds, voxels = (sum(block[name] for block in blocks) for name in ("seconds", "voxels"))
    return 1e6 * float(seconds) / max(int(voxels), 1)


def _claim(folder: Path) -> None:
    """Create the folder, or make sure that it is an earlier demo's."""
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / MARKER).is_file():
        raise OutputExistsError(
            f"{folder}: exists and is not from hrvol demo; choose another folder with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _check_weights(recipe: Recipe, weights_path: str | Path | None, offline: bool) -> None:
    """Fetch the network's weights, before any file is written."""
    if not recipe.features.uses_deep:
        return
    try:
        fetch_weights(recipe.features.deep.weights, offline=offline, path=weights_path)
    except WeightsError as error:
        raise WeightsError(f"{error}. Without a network, run: hrvol demo --classical-only") from None


def _write_labels(
    path: Path, labels: NDArray[np.uint8], like: Volume, classes: tuple[ClassInfo, ...]
) -> None:
    """Write labels as an OME-Zarr."""
    store = create_labels(
        path,
        like,
        classes=classes,
        block_shape=like.shape,
        attributes={"made_by": "hrvol demo"},
        overwrite=True,
    )
    store.write(whole(like.shape), labels)
    store.finish()


def _draw(
    folder: Path,
    image: NDArray[np.uint16],
    strokes: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    results: Mapping[str, Path],
    classes: tuple[ClassInfo, ...],
    scores: Mapping[str, Mapping[str, Any]],
) -> tuple[Path, ...]:
    """Draw the results on a plane without strokes, and the scores."""
    stroked, plane = STROKE_PLANES[0], PICTURE_PLANE
    panels: dict[str, tuple[NDArray[Any], NDArray[Any] | None]] = {
        f"strokes (plane {stroked})": (image[stroked], strokes[stroked]),
        f"another plane ({plane})": (image[plane], None),
        "truth": (image[plane], truth[plane]),
    }
    box = (slice(plane, plane + 1), *whole(image.shape)[1:])
    for name, labels in results.items():
        panels[f"{name}: mIoU {scores[name]['miou']:.2f}"] = (image[plane], open_labels(labels).read(box)[0])
    name, labels = list(results.items())[-1]
    panels[f"{name}: uncertainty"] = (open_volume(labels / "uncertainty").read(box)[0], None)
    tables = {
        name: {**{c: np.nan if v is None else v for c, v in figures["iou"].items()}, "mean": figures["miou"]}
        for name, figures in scores.items()
    }
    return (
        draw_planes(folder / "planes.png", panels, classes, columns=4),
        draw_scores(folder / "scores.png", tables),
    )


def _commands(folder: Path, best: str) -> tuple[str, ...]:
    """Return commands that inspect the results, or do the same step by step."""
    return (
        f"hrvol info {folder}/{best}.hrvol",
        f"hrvol evaluate {folder}/{best}.ome.zarr {folder}/truth.ome.zarr",
        f"hrvol train {folder}/volume.ome.zarr {folder}/strokes.ome.zarr -o mine.hrvol --recipe balanced",
        f"hrvol segment {folder}/volume.ome.zarr mine.ome.zarr -m mine.hrvol --probabilities",
        f"hrvol distil {folder}/volume.ome.zarr mine.hrvol -o student.hrvol --minutes 1",
    )
