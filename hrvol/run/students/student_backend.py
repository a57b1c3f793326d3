"""The backend of a student in a run, and what the output records of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from hrvol.run.attribute_names import BACKEND
from hrvol.run.job import ModelSource
from hrvol.run.options import RunOptions
from hrvol.segment.student.backend import TORCH, backend_versions, choose_backend

LOG = logging.getLogger("hrvol.run")


def with_backend(source: ModelSource, options: RunOptions) -> ModelSource:
    """Return the source of a student with the backend that is chosen for the run, which is logged.

    Raises
    ------
    UsageError, DeviceError
        As :func:`hrvol.segment.student.backend.choose_backend`.
    """
    choice = choose_backend(options.backend, options.engine.device)
    LOG.info("%s", choice)
    return replace(source, backend=choice.name)


def of_backend(backend: str) -> dict[str, Any]:
    """Return what an output records of a backend, as JSON values: nothing of torch."""
    return {} if backend == TORCH else {BACKEND: {"name": backend, "versions": backend_versions(backend)}}
