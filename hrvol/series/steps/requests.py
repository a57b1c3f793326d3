"""Turn the settings of a task into the requests of the functions that it calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hrvol.distil.options import DistilOptions
from hrvol.engine.spec import EngineSpec
from hrvol.features.weights.source import WeightsSource
from hrvol.reading.region_text import parse_slices
from hrvol.run.convert.options import ConvertOptions, ImageOptions
from hrvol.run.options import ClusterOptions, InputOptions, OutputOptions, RunOptions, engine_spec
from hrvol.segment.class_weights import ClassWeights
from hrvol.series.options_spec import ComputeSpec, ReadingSpec
from hrvol.series.tasks import FOUND, Pair, Task
from hrvol.volume.region import Region
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.options import from_environment, merged, read_options
from hrvol.volume.strokes.source import StrokesSource


def storage_of(compute: ComputeSpec) -> dict[str, Any]:
    """Return the options of file systems."""
    file = compute.storage_options_file
    from_file = {} if file is None else read_options(file)
    return merged(from_file, from_environment(compute.storage_options))


def read_as(path: str, reading: ReadingSpec) -> str | Location:
    """Return a path with how it is read."""
    options = None if path == FOUND else reading.options
    return path if options is None else replace(Location.of(path), reading=options)


def source(task: Task, role: str) -> Any:
    """Return what a task reads in a role, ``None`` if nothing: a volume, or what is drawn on it."""
    path = task.paths.get(role)
    return path if path is None or path == task.converted else read_as(path, task.reading)


def pairs_of(task: Task) -> list[tuple[str | Location, StrokesSource]]:
    """Return the volumes and strokes of a training."""
    return [
        (_volume_of(one), StrokesSource(read_as(one.strokes, one.reading), one.offset)) for one in task.pairs
    ]


def _volume_of(pair: Pair) -> str | Location:
    return pair.volume if pair.converted else read_as(pair.volume, pair.reading)


def computing(task: Task) -> dict[str, Any]:
    """Return where features are computed, as keywords of :func:`hrvol.train_model` and others."""
    compute = task.compute
    return {
        "device": compute.device,
        "weights_path": compute.weights,
        "offline": compute.offline,
        "storage_options": storage_of(compute),
    }


def region_of(task: Task) -> Region | None:
    """Return the region of a task."""
    return None if task.roi is None else parse_slices(task.roi)


def run_options(task: Task, *, overwrite: bool = False) -> RunOptions:
    """Return the request of a step that runs on an engine."""
    spec: Any = task.spec
    compute = task.compute
    output = OutputOptions()
    if task.kind != "distil":
        output = OutputOptions(
            name=getattr(spec, "name", output.name),
            probabilities=spec.probabilities,
            uncertainty=spec.uncertainty,
            crf=spec.crf,
            overwrite=overwrite,
            class_weights=_class_weights(spec),
        )
    return RunOptions(
        engine_of(compute),
        compute.device,
        InputOptions(region_of(task), source(task, "mask"), spec.level),
        output,
        WeightsSource.of(compute.weights, compute.offline),
        storage_of(compute),
        task.paths.get("companion"),
        getattr(spec, "backend", "auto"),
        compute.scratch,
    )


def engine_of(compute: ComputeSpec) -> EngineSpec:
    """Return the engine of a step."""
    return engine_spec(
        compute.engine,
        compute.workers,
        compute.scheduler_file,
        from_environment(compute.engine_options),
        compute.devices,
    )


def convert_options(task: Task, *, overwrite: bool = False, verify: bool = False) -> ConvertOptions:
    """Return how a volume is converted."""
    spec: Any = task.spec
    image = ImageOptions(spec.ome_zarr, spec.chunks, spec.shards, spec.compression, spec.uint8, spec.pyramid)
    return ConvertOptions(
        engine_of(task.compute),
        image,
        level=spec.level,
        scratch=task.compute.scratch,
        verify=verify,
        overwrite=overwrite,
        storage_options=storage_of(task.compute),
    )


def _class_weights(spec: Any) -> ClassWeights:
    factors: Mapping[str, float] = getattr(spec, "class_weights", {})
    return ClassWeights.of(factors or None, getattr(spec, "fractions", None))


def distil_options(task: Task) -> DistilOptions:
    """Return how a model is distilled."""
    spec: Any = task.spec
    return DistilOptions(
        spec.minutes,
        spec.tiles,
        spec.size,
        spec.seed,
        spec.volumetric,
        spec.rarity,
        spec.steps,
        spec.accept,
        source(task, "held_out"),
    )


def cluster_options(task: Task) -> ClusterOptions:
    """Return how classes are found."""
    spec: Any = task.spec
    return ClusterOptions(task.recipe, spec.clusters, spec.merge, spec.classes, spec.seed)
