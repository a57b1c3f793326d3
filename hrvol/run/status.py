"""Read the progress of a run from its output, also while it is running, from any machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.recipe.specs import TileSpec
from hrvol.run.ledger import PULSE, LedgerState, entries, lanes
from hrvol.run.ledger_entries import DONE, FAILED, PENDING
from hrvol.run.provenance import Summary, cleaned_grid, read_attributes, run_grid
from hrvol.volume.grid.order import MOST_BLOCKS, BlockGrid
from hrvol.volume.grid.tiling import whole
from hrvol.volume.ome.converted import ImageLayout, layout_of, provenance_of
from hrvol.volume.storage.location import Location

SILENT = 6 * PULSE
"""Seconds without a pulse after which a driver counts as lost."""

RECENT = 1800.0
"""Seconds over which the rate of a running run is averaged."""


def run_status(
    out: str | Path | Location, *, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the progress of a run.

    Parameters
    ----------
    out
        An output of :func:`hrvol.segment_volume`, :func:`hrvol.cluster_volume`, :func:`hrvol.convert_volume`,
        :func:`hrvol.clean_labels` or :func:`hrvol.separate_instances`, path or URL.
    storage_options
        Keywords of the fsspec file system of a URL.

    Returns
    -------
    dict
        JSON values: ``state`` (``complete``, ``running``, ``stopped``, ``lost`` or ``failed``), blocks in
        ``total``, ``done``, ``failed`` and ``left``, ``voxels`` labelled, ``voxels_per_s``, ``eta_s`` and
        ``quiet_s``, the seconds since a block was finished, of a running run (else ``None``), ``drivers``
        (one mapping each) and ``failures`` (block, reason).

    Raises
    ------
    InputError
        The path is not the output of a run, or its metadata are damaged.
    """
    location = Location.of(out, storage_options)
    if converted := provenance_of(location):
        grid, complete = _blocks_of(layout_of(location), location), converted.get("complete") is True
        region = whole(grid.shape)
        if complete:
            summary = Summary(blocks=len(grid), voxels=math.prod(grid.shape), fractions={})
            return _without_ledger(location, summary)
    elif (cleaned := cleaned_grid(location)) is not None:
        grid, complete = cleaned
        region = whole(grid.shape)
    else:
        attributes = read_attributes(location)
        if attributes.summary is not None:
            return _without_ledger(location, attributes.summary)
        (grid, region), complete = run_grid(attributes, location), attributes.complete
    numbers = grid.inside(region)
    heads = lanes(location)
    now = time.time()
    alive = {
        name: head for name, head in heads.items() if head["state"] == "running" and now - head["at"] < SILENT
    }
    state, voxels, recent = LedgerState(len(grid)), 0, 0
    since = max(now - RECENT, min((head["began"] for head in alive.values()), default=now))
    for entry in entries(location):
        state.take(entry)
    for entry in entries(location):
        if state.current(entry):
            voxels += entry["voxels"]
            recent += entry["voxels"] if entry["at"] >= since else 0
    states = state.of_block[numbers]
    done, failed, left = (int(np.count_nonzero(states == value)) for value in (DONE, FAILED, PENDING))
    latest = max((head["began"] for head in alive.values()), default=now)
    if np.any(states == DONE):
        latest = max(latest, float(state.at[numbers[states == DONE]].max()))
    rate = recent / max(now - since, 1e-9) if alive and recent else None
    per_block = voxels / done if done else 0.0
    return {
        "path": str(location),
        "state": _state(complete, heads, alive, failed, left),
        "total": len(numbers),
        "done": done,
        "failed": failed,
        "left": left,
        "voxels": voxels,
        "voxels_per_s": rate,
        "eta_s": left * per_block / rate if rate else None,
        "quiet_s": round(max(0.0, now - latest), 1) if alive and left else None,
        "drivers": [
            {
                "lane": name,
                "host": head["host"],
                "pid": head["pid"],
                "state": head["state"] if name in alive or head["state"] != "running" else "lost",
                "engine": head.get("engine"),
                "workers": head.get("workers"),
                "seen_s": round(now - head["at"], 1),
            }
            for name, head in sorted(heads.items())
        ],
        "failures": [
            {"block": list(grid[int(n)].index), "reason": state.reasons.get(int(n), "no reason recorded")}
            for n in sorted(numbers[states == FAILED].tolist())
        ],
    }


def _blocks_of(layout: ImageLayout, location: Location) -> BlockGrid:
    """Return the blocks of a conversion."""
    grid = BlockGrid(layout.shape, TileSpec(), sides=layout.block)
    if (count := math.prod(grid.counts)) > MOST_BLOCKS:
        raise InputError(f"{location}: found {count:.3g} blocks, expected at most {MOST_BLOCKS:,}")
    return grid


def _without_ledger(location: Location, summary: Summary) -> dict[str, Any]:
    """Return the status of complete labels of an image, which keep no ledger."""
    known = {
        "total": summary.blocks,
        "done": summary.blocks,
        "failed": 0,
        "left": 0,
        "voxels": summary.voxels,
    }
    none: dict[str, Any] = {
        "voxels_per_s": None,
        "eta_s": None,
        "quiet_s": None,
        "drivers": [],
        "failures": [],
    }
    return {"path": str(location), "state": "complete", **known, **none}


def _state(complete: bool, heads: Mapping[str, Any], alive: Mapping[str, Any], failed: int, left: int) -> str:
    if complete:
        return "complete"
    if alive:
        return "running"
    if failed and not left:
        return "failed"
    return "lost" if any(head["state"] == "running" for head in heads.values()) else "stopped"
