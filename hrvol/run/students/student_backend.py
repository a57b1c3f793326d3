"""The backend of a model's network in a run, and what the output records of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from hrvol.backend import TORCH, backend_versions, choose_backend
from hrvol.features.choose_backend import choose_for_features
from hrvol.run.attribute_names import BACKEND
from hrvol.run.job import ModelSource
from hrvol.run.options import RunOptions
from hrvol.segment.model.model import Model
from hrvol.segment.student.student import StudentClassifier

LOG = logging.getLogger("hrvol.run")


def with_backend(source: ModelSource, model: Model, options: RunOptions) -> ModelSource:
    """Return the source of a model with the backend that is chosen for the run, which is logged.

    Raises
    ------
    UsageError, DeviceError
        As :func:`hrvol.features.choose_backend.choose_for_features`.
    """
    backend, device = options.backend, options.engine.device
    if isinstance(model.classifier, StudentClassifier):
        choice = choose_backend(backend, device)
    else:
        choice = choose_for_features(backend, device, model.recipe.features)
        if not model.recipe.features.uses_deep:
            return source
    LOG.info("%s", choice)
    return replace(source, backend=choice.name)


def of_backend(backend: str) -> dict[str, Any]:
    """Return what an output records of a backend, as JSON values: nothing of torch."""
    return {} if backend == TORCH else {BACKEND: {"name": backend, "versions": backend_versions(backend)}}
