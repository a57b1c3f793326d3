"""Merge clusters into classes and score their agreement with the truth of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cas.data import Scene, stroke_box
from benchmarks.cas.fit import Fit, Partition
from hrvol.analysis.objects import Object, find_objects, foreground_mask
from hrvol.quality.matching import match_classes, purity, relabel
from hrvol.quality.metrics import Confusion, binary_iou, box_iou, iou_per_class, mean_iou
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.attention import foreground
from hrvol.segment.cluster_merging import merge_clusters

LAMBDAS = (0.95, 1.0, 1.1)
"""Factors on the semantic distance that the paper tried; it reports 1.0."""

PUBLISHED = "1.0"
GIVEN = "given"
"""How clusters were merged, in rows: with a lambda, or to as many classes as the truth has."""


@dataclass(frozen=True, eq=False)
class Found:
    """Classes that clusters were merged into.

    Attributes
    ----------
    values
        ``(C,)`` uint16: class 1..N of each cluster, by falling share of the sample.
    foreground
        Classes whose attention density is above the mean over classes.
    semantic_distance
        Below which clusters were merged; NaN if their number was given, or all became one class.
    """

    values: NDArray[np.uint16]
    foreground: tuple[int, ...]
    semantic_distance: float

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.values.max())

    def labels(self, partition: Partition) -> NDArray[np.uint16]:
        """Return the class ``(Z, Y, X)`` of every pixel."""
        return self.values[partition.assigned]


def merges(spec: ClusterSpec, n_classes: int) -> dict[str, ClusterSpec]:
    """Return the ways of merging to try, by name."""
    ways = {str(factor): spec.model_copy(update={"merge": factor}) for factor in LAMBDAS}
    return ways | {GIVEN: spec.model_copy(update={"classes": n_classes})}


def merged(partition: Partition, spec: ClusterSpec) -> Found:
    """Merge the clusters of a seed."""
    group, below = merge_clusters(partition.centroids, partition.tally, spec)
    tally = partition.tally.merged(group, int(group.max()) + 1)
    order = np.argsort(-tally.pixels, kind="stable")
    value_of = np.empty(len(order), np.uint16)
    value_of[order] = np.arange(1, len(order) + 1)
    front = value_of[foreground(tally.density)]
    return Found(value_of[group], tuple(sorted(int(value) for value in front)), below)


def score(scene: Scene, fit: Fit, spec: ClusterSpec) -> list[dict[str, Any]]:
    """Return a row of JSON values for every seed and way of merging.

    Keys: ``seed``; ``merge`` (:data:`LAMBDAS` or :data:`GIVEN`); ``clusters``; ``classes`` found;
    ``semantic_distance`` (``None`` where there is none); ``truths`` (name -> :func:`agreement`);
    ``foreground_classes``; ``foreground`` (share of all pixels); ``foreground_iou`` (on pixels with a truth;
    ``None`` where objects cannot be told from it); ``boxes`` (see :func:`localised`).
    """
    rows = []
    for seed, partition in fit.partitions.items():
        for name, way in merges(spec, scene.n_classes).items():
            found = merged(partition, way)
            labels = found.labels(partition)
            mask = foreground_mask(labels, found.foreground)
            below = found.semantic_distance
            rows.append(
                {
                    "seed": seed,
                    "merge": name,
                    "clusters": len(partition.centroids),
                    "classes": found.n_classes,
                    "semantic_distance": None if np.isnan(below) else below,
                    "truths": {which: agreement(labels, truth) for which, truth in scene.truths.items()},
                    "foreground_classes": len(found.foreground),
                    "foreground": float(mask.mean()),
                    "foreground_iou": _foreground_iou(scene, mask),
                    "boxes": localised(scene, labels, found.foreground),
                }
            )
    return rows


def agreement(labels: NDArray[np.uint16], truth: NDArray[np.uint8]) -> dict[str, Any]:
    """Return how well classes ``(Z, Y, X)`` agree with a truth.

    Returns
    -------
    dict
        ``miou``, ``iou`` (of classes 1..K; ``None`` for one that the truth lacks) after the classes are
        matched one to one over all planes; ``purity``. Of a volume also ``held`` and ``apart``, mean over
        planes of the mIoU of a plane, its classes matched over all planes, or for each plane: ``held`` is
        less where a class does not mean the same in all planes.
    """
    size = int(max(labels.max(), truth.max()))
    planes = [
        Confusion.of(found, true, size).matrix
        for found, true in zip(labels, truth, strict=True)
        if true.any()
    ]
    total = Confusion(np.sum(planes, axis=0))
    matched = total.matched().matrix
    iou = [None if np.isnan(value) else round(float(value), 5) for value in iou_per_class(matched)]
    figures = {"miou": mean_iou(matched), "purity": purity(total.matrix)}
    if len(planes) > 1:
        mapping = match_classes(total.matrix)
        figures["held"] = float(np.mean([mean_iou(relabel(plane, mapping)) for plane in planes]))
        figures["apart"] = float(np.mean([mean_iou(Confusion(plane).matched().matrix) for plane in planes]))
    return {name: round(value, 5) for name, value in figures.items()} | {"iou": iou}


def alone(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return the scores of one class for all pixels, for each truth: the baseline."""
    one = np.ones(scene.images.shape, np.uint16)
    return {name: agreement(one, truth) for name, truth in scene.truths.items()}


def true_boxes(scene: Scene) -> dict[str, tuple[int, ...] | None]:
    """Return the box around the strokes of each object of an image."""
    truth = next(iter(scene.truths.values()))[0]
    return {name: stroke_box(truth, values) for name, values in scene.objects.items()}


def localised(scene: Scene, labels: NDArray[np.uint16], front: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Return the box that is nearest to each object's, with ``multi`` boxes and with the superbox alone.

    Returns
    -------
    dict
        Object -> mode -> ``box`` (``None`` where nothing was found), ``iou``, and ``of`` so many boxes.
    """
    boxes: dict[str, dict[str, Any]] = {}
    boxes_of = {name: box for name, box in true_boxes(scene).items() if box is not None}
    if not boxes_of:
        return boxes
    modes: Mapping[str, tuple[Object, ...]] = {
        "multi": find_objects(labels[0], front, mode="multi"),
        "single": find_objects(labels[0], front, mode="single"),
    }
    for name, true in boxes_of.items():
        boxes[name] = {}
        for mode, objects in modes.items():
            best = max(objects, key=lambda item: box_iou(item.box, true), default=None)
            boxes[name][mode] = {
                "box": None if best is None else list(best.box),
                "iou": 0.0 if best is None else round(box_iou(best.box, true), 5),
                "of": len(objects),
            }
    return boxes


def _foreground_iou(scene: Scene, mask: NDArray[np.bool_]) -> float | None:
    if not scene.foreground:
        return None
    truth = next(iter(scene.truths.values()))
    labelled = truth > 0
    return round(binary_iou(mask[labelled], foreground_mask(truth, scene.foreground)[labelled]), 5)
