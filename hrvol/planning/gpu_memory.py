"""What a run takes of a GPU's memory: features, CUDA itself, and the trees of the classifier."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hrvol.engine.spec import EngineSpec
from hrvol.planning.plan import size
from hrvol.run.classify import STRIPE
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier

CUDA_BYTES = 600 * 2**20
"""What CUDA and its libraries take for a process, about."""

_NODE_BYTES = 16  # of nvForest's in single precision, at most

_FLOAT = 4


@dataclass(frozen=True)
class GpuNeed:
    """Bytes of a GPU's memory: what a worker needs, and what is free; ``None``: none, or not known."""

    needed: int | None = None
    free: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning where it does not fit."""
        if self.needed is None or self.free is None or self.needed <= self.free:
            return ()
        return (
            f"GPU memory: found {size(self.free)} free, needed {size(self.needed)}: it may run out;"
            " smaller tiles need less, and features.deep.precision: fp16.",
        )


def free_gpu(spec: EngineSpec) -> int | None:
    """Return the bytes that are free on the GPU of an engine's workers; of several, on the fullest.

    What torch holds in this process counts as free, because a run needs it, too. ``None`` where the GPUs are
    not those of this machine.
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
    """Return how a GPU that torch has a number for may be named in ``CUDA_VISIBLE_DEVICES``."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # torch counts these only
    uuid = torch.cuda.get_device_properties(number).uuid
    return {visible.split(",")[number] if visible else str(number), f"GPU-{uuid}"}


def gpu_need(spec: EngineSpec, model: Model, free: Callable[[EngineSpec], int | None] = free_gpu) -> GpuNeed:
    """Forecast the memory that a worker takes of its GPU.

    Parameters
    ----------
    spec
        The engine; where its device is no GPU, nothing is needed, and nothing known.
    model
        What is asked of it.
    free
        Returns how much is free; called if that matters. It decides how many images are shown at once.
    """
    if spec.device != "cuda":
        return GpuNeed()
    there = free(spec)
    return GpuNeed(CUDA_BYTES + tree_bytes(model) + _feature_bytes(model, there), there)


def tree_bytes(model: Model) -> int:
    """Return the bytes that the trees of a classifier take in nvForest, at most; 0 where it has none."""
    classifier = model.classifier
    if not isinstance(classifier, PixelClassifier):
        return 0
    # Half of the nodes are leaves, with a probability of each class.
    each = _NODE_BYTES + _FLOAT * len(classifier.classes) // 2
    return sum(_nodes(member.estimator) for member in classifier.members) * each


def _nodes(estimator: Any) -> int:
    """Return the number of nodes of a forest, of boosted trees, or of the forest in a vote."""
    if hasattr(estimator, "estimators_"):
        return sum(_nodes(part) for part in estimator.estimators_)
    if hasattr(estimator, "tree_"):
        return int(estimator.tree_.node_count)
    rounds = getattr(estimator, "_predictors", ())
    return sum(len(predictor.nodes) for of_round in rounds for predictor in of_round)


def _feature_bytes(model: Model, free: int | None) -> int:
    """Return the bytes that the features of a tile take, with as many images at once as there is room for."""
    from hrvol.features.deep.gpu_memory import (  # torch: only where it matters
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
