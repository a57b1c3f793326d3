"""Estimate the time, memory and disk space of a run before it starts.

A few blocks are computed as a probe (:mod:`hrvol.planning.probe`); the rest is arithmetic
(:mod:`hrvol.planning.estimate`, :mod:`hrvol.planning.forecast`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.device import check_gpu
from hrvol.errors import HrvolError, ResourceError, UsageError
from hrvol.features.weights.source import WeightsSource
from hrvol.planning import resources
from hrvol.planning.estimate import estimate
from hrvol.planning.plan import Plan
from hrvol.planning.task import Task
from hrvol.run.ledger import read_state
from hrvol.run.ledger_entries import DONE
from hrvol.run.options import InputOptions, OutputOptions, RunOptions, engine_spec
from hrvol.run.prepare import PreparedRun, prepare
from hrvol.run.resume import begin_output, partition
from hrvol.segment.class_weights import ClassWeights
from hrvol.segment.model.model import Model
from hrvol.volume.background.coarse_mask import is_auto
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.region import Region
from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.run")

SECONDS = 30.0
"""Default length of the probe, besides the start of the workers."""


def plan_run(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    *,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    crf: bool = False,
    roi: Region | None = None,
    mask: Any = None,
    level: int = 0,
    overwrite: bool = False,
    name: str = "hrvol",
    class_weights: Mapping[str, float] | None = None,
    fractions: Sequence[float] | Mapping[str, float] | None = None,
    companion: str | Path | Model | None = None,
    backend: str = "auto",
    scratch: str | Path | None = None,
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
) -> Plan:
    """Estimate the cost of :func:`hrvol.segment_volume` by computing a few blocks.

    The probe writes into a temporary folder beside the output, to measure the output's disk; for URLs, and
    where there is no space, into the system's temporary folder. It is removed afterwards.

    Parameters
    ----------
    seconds
        Approximate length of the probe, besides the start of the workers. At least one plane is computed.
    volume, out, model, engine, workers, scheduler_file, engine_options, device, devices, part, probabilities,
    uncertainty, crf, roi, mask, level, overwrite, name, class_weights, fractions, companion, backend,
    scratch, weights_path, offline, storage_options
        As for :func:`hrvol.segment_volume`. Engines with workers on other machines are not started: the probe
        runs on this one. For an unfinished output, the plan is of the remaining blocks.

    Returns
    -------
    Plan
        With estimates for students of the model. To be passed to :func:`hrvol.planning.plan.check_resources`.

    Raises
    ------
    ResourceError
        The input cannot be read, or the output cannot be written.
    HrvolError
        Any error that :func:`hrvol.segment_volume` would raise before it starts.
    """
    options = RunOptions(
        engine_spec(engine, workers, scheduler_file, engine_options, devices),
        device,
        InputOptions(roi, mask, level),
        OutputOptions(
            name,
            probabilities,
            uncertainty,
            crf,
            overwrite,
            part,
            ClassWeights.of(class_weights, fractions),
        ),
        WeightsSource.of(weights_path, offline),
        storage_options,
        companion,
        backend,
        scratch,
    )
    return plan(volume, out, model, options, seconds)


def plan(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    options: RunOptions,
    seconds: float = SECONDS,
) -> Plan:
    """Plan a run as :func:`plan_run` does, with its keywords as one object."""
    options, choice = options.placed()
    if options.engine.remote and options.engine.device == "cuda":
        check_gpu()  # blocks are tried on this machine
    if seconds <= 0:
        raise UsageError(f"seconds: found {seconds:g}, expected more than 0")
    location = Location.of(out, options.storage_options)
    resources.check_readable(
        *(
            path
            for path in (volume, options.input.mask, model, options.companion)
            if isinstance(path, str | Path | Location) and not (path is options.input.mask and is_auto(path))
        )
    )
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            prepared = prepare(volume, location, model, stack, options)
            exists = _exists(prepared, options.output)
        except (HrvolError, PermissionError) as error:
            if resources.permission_denied(error):
                raise ResourceError(" ".join(str(error).split())) from None
            raise
        LOG.info("%s", choice)
        prepare_s = time.monotonic() - began
        grid = prepared.job.grid
        blocks = grid.inside(prepared.job.region)
        own = partition(blocks, options.output.part)
        states = read_state(location, len(grid)).of_block if exists else np.zeros(len(grid), np.uint8)
        pending, done = own[states[own] != DONE], own[states[own] == DONE]
        if len(pending):
            resources.check_writable(location)
        task = Task(prepared, options.engine, grid, blocks, pending, done, exists)
        estimated = estimate(task, seconds, prepare_s)
        if prepared.companion is not None:
            return estimated
        from hrvol.planning.students import plan_students  # imports torch

        return replace(estimated, students=plan_students(task, estimated, options.backend))


def _exists(prepared: PreparedRun, output: OutputOptions) -> bool:
    """Return whether an output exists that the run would resume; raise as the run would if it cannot."""
    if output.overwrite:
        check_overwrite(prepared.location, True)
        return False
    _, exists = begin_output(
        prepared.location,
        prepared.attributes,
        lambda exists, written: LabelStore(prepared.location, output.name),
    )
    return exists
