"""What a run will take, before it begins: time, memory, disk; and whether there is room for it.

A few blocks are tried for real (:mod:`hrvol.planning.probe`); the rest is arithmetic
(:mod:`hrvol.planning.estimate`, :mod:`hrvol.planning.forecast`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.device import check_gpu, cpus
from hrvol.engine.placement import place
from hrvol.engine.spec import EngineSpec
from hrvol.errors import HrvolError, ResourceError, UsageError
from hrvol.files import text
from hrvol.planning import resources as room
from hrvol.planning.estimate import Task, estimate
from hrvol.planning.plan import Plan
from hrvol.run.ledger import DONE, read_state
from hrvol.run.resume import begin_output, partition
from hrvol.run.segment import PreparedRun, prepare
from hrvol.segment.model.model import Model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.region import Region
from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.run")

SECONDS = 30.0
"""How long blocks are tried by default, besides the time that workers take to start."""


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
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    seconds: float = SECONDS,
) -> Plan:
    """Work out what :func:`hrvol.segment_volume` will take, trying a few blocks; nothing is left behind.

    What is stored on trial goes into a folder beside the output, which is removed, so that it is the output's
    disk that is measured; for URLs, and where there is no room, into the system's folder for such files.

    Parameters
    ----------
    seconds
        How long to try blocks, about, besides the time that workers take to start. A plane is always
        finished.
    volume, out, model, engine, workers, scheduler_file, engine_options, device, devices, part, probabilities,
    uncertainty, crf, roi, mask, level, overwrite, name, weights_path, offline, storage_options
        As for :func:`hrvol.segment_volume`. Engines whose workers are elsewhere are not started: blocks are
        tried on this machine. An output that is there, unfinished, is gone on with: what is left is planned.

    Returns
    -------
    Plan
        Give it to :func:`check_resources`.

    Raises
    ------
    ResourceError
        The input may not be read, or the output not be written.
    HrvolError
        Whatever :func:`hrvol.segment_volume` would refuse before it begins.
    """
    asked_for = EngineSpec(
        engine, workers, text(scheduler_file), dict(engine_options or {}), tuple(devices or ())
    )
    spec, choice = place(asked_for, device)
    if spec.remote and spec.device == "cuda":
        check_gpu()  # blocks are tried here
    if part is not None and not 1 <= part[0] <= part[1]:
        raise UsageError(f"part: found {part[0]}/{part[1]}, expected k/n with k from 1 to n")
    if seconds <= 0:
        raise UsageError(f"seconds: found {seconds:g}, expected more than 0")
    location = Location.of(out, storage_options)
    room.check_readable(
        *(given for given in (volume, mask, model) if isinstance(given, str | Path | Location))
    )
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            ready = prepare(
                volume,
                location,
                model,
                stack,
                threads=cpus() if spec.serial else 1,
                probabilities=probabilities,
                uncertainty=uncertainty,
                crf=crf,
                roi=roi,
                mask=mask,
                level=level,
                name=name,
                weights_path=weights_path,
                offline=offline,
                storage_options=storage_options,
                device=spec.device,
                here=spec.serial,
            )
            was_there = _is_there(ready, name, overwrite)
        except (HrvolError, PermissionError) as error:
            if room.permission_denied(error):
                raise ResourceError(" ".join(str(error).split())) from None
            raise
        LOG.info("%s", choice)
        prepare_s = time.monotonic() - began
        grid = BlockGrid(ready.job.volume.shape, ready.model.recipe.tiles, ready.job.volume.chunks)
        numbers = grid.inside(ready.job.region)
        mine = partition(numbers, part)
        state = read_state(location, len(grid)).of_block if was_there else np.zeros(len(grid), np.uint8)
        todo, done = mine[state[mine] != DONE], mine[state[mine] == DONE]
        if len(todo):
            room.check_writable(location)
        return estimate(Task(ready, spec, grid, numbers, todo, done, was_there), seconds, prepare_s)


def _is_there(ready: PreparedRun, name: str, overwrite: bool) -> bool:
    """Return whether the output is to be gone on with; refuse what is in the way, as the run would."""
    if overwrite:
        check_overwrite(ready.location, True)
        return False
    _, was_there = begin_output(
        ready.location, ready.attributes, lambda go_on: LabelStore(ready.location, name)
    )
    return was_there
