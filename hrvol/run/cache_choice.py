"""Choose where the workers of a run keep decoded chunks, by the memory of their machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.spec import EngineSpec
from hrvol.errors import ResourceError
from hrvol.memory import free_memory
from hrvol.progress import format_size
from hrvol.volume.cache_plan import MEMORY_SHARE, CachePlan, plan_cache
from hrvol.volume.chunk_cache import CAPACITY
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box
from hrvol.volume.scratch import check_scratch
from hrvol.volume.volume import Volume

MASK_CAPACITY = 64 * 2**20
"""Usual size of the cache of a mask, in bytes of decoded chunks."""

SLURM_MEMORY = "8GB"
"""Memory of a SLURM job, by default."""


def choose_cache(
    volume: Volume,
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    region: Box,
    spec: EngineSpec,
    scratch: str | Path | None = None,
    usual: int = CAPACITY,
) -> CachePlan:
    """Choose where the workers of an engine keep the chunks of a volume.

    Parameters
    ----------
    volume, grid, numbers, region, usual
        As for :func:`hrvol.volume.cache_plan.plan_cache`.
    spec
        The engine.
    scratch
        Folder for scratch files, on the machines of the workers; ``None``: none.

    Raises
    ------
    UsageError
        There is no such folder on this machine, where the workers run.
    ResourceError
        Its disk has not enough room.
    """
    folder = None
    if scratch is not None:
        folder = str(Path(scratch).absolute()) if spec.remote else check_scratch(str(scratch))
    workers = spec.limited(max(1, len(numbers))).count if not spec.serial else 1
    plan = plan_cache(
        volume,
        grid,
        numbers,
        region,
        workers=workers,
        memory=int(_memory(spec, workers) * MEMORY_SHARE),
        scratch=folder,
        usual=usual,
    )
    if plan.scratch is not None and not spec.remote:
        free, needed = shutil.disk_usage(plan.scratch).free, workers * plan.capacity
        if free < needed:
            raise ResourceError(
                f"{plan.scratch}: found {format_size(free)} free, needed {format_size(needed)} for decoded"
                f" chunks of {workers} worker{'s' * (workers > 1)}"
            )
    return plan


def _memory(spec: EngineSpec, workers: int) -> int:
    """Return the bytes of memory that a worker has; 0 if they are unknown."""
    if not spec.remote:
        return free_memory() // workers
    return slurm_memory(spec) if spec.name == "slurm" and spec.scheduler_file is None else 0


def slurm_memory(spec: EngineSpec) -> int:
    """Return the bytes of memory of a worker in a SLURM job."""
    from dask.utils import parse_bytes  # Dask takes a while to import

    job = int(parse_bytes(spec.options.get("memory", SLURM_MEMORY)))
    return job // int(spec.options.get("processes", 1))
