"""Forecast the GPU memory of a run: CUDA itself, features, and the trees of the classifier."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hrvol.engine.spec import EngineSpec
from hrvol.progress import format_size
from hrvol.run.classify import STRIPE
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.student.lattice import WINDOW_BYTES
from hrvol.segment.student.student import StudentClassifier

CUDA_BYTES = 600 * 2**20
"""Approximate bytes that CUDA and its libraries take per process."""

_NODE_BYTES = 16  # of nvForest in single precision, at most

_FLOAT = 4


@dataclass(frozen=True)
class GpuNeed:
    """Bytes of GPU memory that a worker needs and that are free; ``None``: no GPU, or unknown."""

    needed: int | None = None
    free: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning if the need exceeds the free memory."""
        if self.needed is None or self.free is None or self.needed <= self.free:
            return ()
        return (
            f"GPU memory: found {format_size(self.free)} free, needed {format_size(self.needed)}:"
            " it may run out; smaller tiles or features.deep.precision: fp16 need less.",
        )


def free_gpu(spec: EngineSpec) -> int | None:
    """Return the free bytes of the GPU of an engine's workers; of several GPUs, those of the fullest.

    Memory cached by torch in this process counts as free, because the run can use it. ``None`` if the GPUs
    are on other machines.
    """
    if spec.remote:
        return None
    import torch

    count = torch.cuda.device_count()
    chosen = [i for i in range(count) if not spec.devices or _names(i) & set(spec.devices)]
    if not spec.local_gpus:
        chosen = [torch.cuda.current_device()]
    elif not spec.devices:
        chosen = chosen[: spec.workers]
    return min((torch.cuda.mem_get_info(i)[0] + torch.cuda.memory_reserved(i) for i in chosen), default=None)


def _names(number: int) -> set[str]:
    """Return the names in ``CUDA_VISIBLE_DEVICES`` of the GPU to which torch gives a number."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # torch numbers only these
    uuid = torch.cuda.get_device_properties(number).uuid
    return {visible.split(",")[number] if visible else str(number), f"GPU-{uuid}"}


def gpu_need(
    spec: EngineSpec,
    model: Model,
    free: Callable[[EngineSpec], int | None] = free_gpu,
    *,
    companion: bool = False,
) -> GpuNeed:
    """Forecast the memory that a worker takes of its GPU.

    Parameters
    ----------
    spec
        The engine; unless its device is ``cuda``, the result is empty.
    model
        The model to apply.
    free
        Returns the free bytes; called only if needed. They determine the batch size.
    companion
        Whether a student predicts beside the model.
    """
    if spec.device != "cuda":
        return GpuNeed()
    free_bytes = free(spec)
    needed = CUDA_BYTES + tree_bytes(model) + _feature_bytes(model, free_bytes) + companion * WINDOW_BYTES
    return GpuNeed(needed, free_bytes)


def tree_bytes(model: Model) -> int:
    """Return the most bytes that the trees of a classifier take in nvForest; 0 if it has none."""
    classifier = model.classifier
    if not isinstance(classifier, PixelClassifier):
        return 0
    # Half of the nodes are leaves, with a probability per class.
    node_bytes = _NODE_BYTES + _FLOAT * len(classifier.classes) // 2
    return sum(_nodes(member.estimator) for member in classifier.members) * node_bytes


def _nodes(estimator: Any) -> int:
    """Return the number of nodes of a forest, of boosted trees, or of the forest in a voting classifier."""
    if hasattr(estimator, "estimators_"):
        return sum(_nodes(inner) for inner in estimator.estimators_)
    if hasattr(estimator, "tree_"):
        return int(estimator.tree_.node_count)
    rounds = getattr(estimator, "_predictors", ())
    return sum(len(predictor.nodes) for of_round in rounds for predictor in of_round)


def _feature_bytes(model: Model, free: int | None) -> int:
    """Return the bytes for a student's cell, or for a tile's features with the largest batch that fits."""
    if isinstance(model.classifier, StudentClassifier):
        return WINDOW_BYTES
    from hrvol.features.deep.gpu_memory import (  # imports torch
        MOST,
        batch_in,
        device_need,
        network_of,
    )

    features, tiles = model.recipe.features, model.recipe.tiles
    side = tiles.core + 2 * tiles.overlap
    batch, network = MOST, None
    if features.uses_deep:
        network = network_of(features.deep.weights)
        if free is not None:
            batch = batch_in(max(0, free - CUDA_BYTES), network, features.deep, (side, side))
    return device_need(features, (side, side), network, batch=batch, rows=STRIPE).total
