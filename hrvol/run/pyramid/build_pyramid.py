"""Build the coarser levels of an image: part by part, on any engine, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hrvol.arrays import Shape3
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, StoppedError
from hrvol.progress import ProgressCallback
from hrvol.run.ledger import LEDGER, Ledger
from hrvol.run.options import engine_spec
from hrvol.run.pyramid.pyramid_levels import build_levels
from hrvol.volume.ome.image import ImageStore
from hrvol.volume.storage.location import Location


@dataclass(frozen=True)
class PyramidJob:
    """What a worker needs: the image."""

    store: ImageStore


def build_pyramid(
    image: str | Path | Location,
    *,
    block_shape: Shape3 | None = None,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Add coarser levels to an OME-Zarr image, each the mean of the previous one, for viewers.

    Memory is bounded: one part of a level at a time is computed from the box of the finer level that it
    covers, eight times as large.

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
        When requested, parts in progress are finished and :class:`StoppedError` is raised; the same call
        resumes.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    int
        Number of levels of the image.

    Raises
    ------
    InputError
        There is no such image.
    """
    spec = engine_spec(engine, workers, scheduler_file, engine_options)
    spec = replace(spec, imports=(__name__,))  # no features: no torch
    return add_levels(Location.of(image, storage_options), spec, block_shape, stop, progress)


def add_levels(
    location: Location,
    spec: EngineSpec,
    block_shape: Shape3 | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Add coarser levels as :func:`build_pyramid` does, with its keywords as objects."""
    if location.path is not None and not location.path.is_dir():
        raise InputError(f"{location}: found no folder, expected an OME-Zarr image")
    provenance = (location.attributes() or {}).get("hrvol")
    if isinstance(provenance, Mapping) and "recipe" in provenance:
        raise InputError(
            f"{location}: found an output of hrvol, whose levels its own command builds; expected an image"
        )
    store = ImageStore(location) if block_shape is None else ImageStore(location, block_shape)
    if store.levels > 1:
        return store.levels
    parts = sum(plan.parts for plan in store.images[0].levels)
    spec = spec.limited(max(parts, 1))
    driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
    with Ledger(location, 0, about=driver) as ledger, open_engine(spec, PyramidJob(store)) as engine:
        if stop is not None:
            stop.working = True
        if not build_levels(engine, store, ledger, stop=stop, progress=progress):
            raise StoppedError(
                f"{location}: stopped before all levels were built; run the same command to resume"
            )
    store.declare()
    location.remove(LEDGER)  # the image is the user's: no trace of the run stays
    return ImageStore(location).levels
