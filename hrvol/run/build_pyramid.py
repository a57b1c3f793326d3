"""Coarser levels for an image that has none: block by block, on any engine, gone on with after a stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, StoppedError
from hrvol.progress import ProgressCallback
from hrvol.run.ledger import LEDGER, Ledger
from hrvol.run.pyramid_levels import build_levels
from hrvol.volume.ome.image import ImageStore
from hrvol.volume.storage.location import Location


@dataclass(frozen=True)
class PyramidJob:
    """What a worker must know: the image."""

    store: ImageStore


def build_pyramid(
    image: str | Path | Location,
    *,
    block_shape: tuple[int, int, int] | None = None,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Add coarser levels to an OME-Zarr image, each the mean of the one before, for viewers.

    Memory is bounded: a part of a level is made at a time, of a box of the finer one that is eight times as
    large.

    Parameters
    ----------
    image
        Path or URL of an OME-Zarr image (0.4 or 0.5) with one level. One that has more stays as it is.
    block_shape
        Voxels (z, y, x) of a part, and of a shard.
    engine, workers, scheduler_file, engine_options
        As in :func:`hrvol.segment_volume`.
    storage_options
        Keywords of the fsspec file system of a URL.
    stop
        Once requested, the parts in progress are finished, and :class:`StoppedError` is raised; the same call
        goes on.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    int
        Number of levels that the image has now.

    Raises
    ------
    InputError
        There is no such image.
    """
    location = Location.of(image, storage_options)
    if location.path is not None and not location.path.is_dir():
        raise InputError(f"{location}: found no folder, expected an OME-Zarr image")
    store = ImageStore(location) if block_shape is None else ImageStore(location, block_shape)
    if store.levels > 1:
        return store.levels
    parts = sum(plan.parts for plan in store.images[0].levels)
    spec = EngineSpec(engine, workers, scheduler_file, dict(engine_options or {})).limited(max(parts, 1))
    about = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
    with Ledger(location, 0, about=about) as ledger, open_engine(spec, PyramidJob(store)) as where:
        if stop is not None:
            stop.working = True
        if not build_levels(where, store, ledger, stop=stop, progress=progress):
            raise StoppedError(f"{location}: stopped before all levels were made; the same command goes on")
    store.declare()
    location.remove(LEDGER)  # the image is the user's: nothing of ours stays
    return ImageStore(location).levels
