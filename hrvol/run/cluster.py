"""Label a whole volume without strokes: fit classes once on a sample, then segment every block with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hrvol.analysis.boxes import find_boxes, write_boxes
from hrvol.analysis.objects import Object
from hrvol.device import free_gpu_memory
from hrvol.engine.check import check_engine
from hrvol.engine.stop import Stop
from hrvol.features.weights.source import WeightsSource
from hrvol.files import BOXES, MODEL, check_file
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import CrfSpec
from hrvol.run.job import MODEL_FILE
from hrvol.run.options import (
    MIN_SIZE,
    ClusterFiles,
    ClusterOptions,
    InputOptions,
    OutputOptions,
    RunOptions,
    engine_spec,
)
from hrvol.run.report import SegmentReport
from hrvol.run.segment import segment
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import check_available
from hrvol.segment.model.model import Model, read_model, save_model
from hrvol.training.cluster import cluster_recipe, default_recipe, fit_classes
from hrvol.training.colour import recipe_for
from hrvol.volume.grid.tiling import Box
from hrvol.volume.guard import file_or_none, keep_inputs
from hrvol.volume.ome.documents import recorded_documents
from hrvol.volume.ome.labels import LabelStore, open_label_store
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels, open_volume


@dataclass(frozen=True)
class ClusterReport:
    """Result of clustering a volume.

    Attributes
    ----------
    model
        The clusters and their classes.
    segmentation
        The result of the segmentation.
    objects
        Boxes of foreground objects, if requested and no block failed.
    """

    model: Model
    segmentation: SegmentReport
    objects: tuple[Object, ...] | None

    @property
    def clusters(self) -> ClusterClassifier:
        """The clusters behind the classes."""
        assert isinstance(self.model.classifier, ClusterClassifier)
        return self.model.classifier


def cluster_volume(
    volume: Any,
    out: str | Path | Location,
    *,
    recipe: str | Path | Recipe | None = None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    crf: bool = False,
    boxes: str | Path | None = None,
    min_size: int = MIN_SIZE,
    model: str | Path | None = None,
    seed: int | None = None,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    roi: Region | None = None,
    mask: Any = None,
    level: int = 0,
    overwrite: bool = False,
    backend: str = "auto",
    scratch: str | Path | None = None,
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> ClusterReport:
    """Find the classes of a volume without any labels, and label all of it, into an OME-Zarr.

    Parameters
    ----------
    volume, recipe, clusters, merge, classes, seed
        As in :func:`fit_classes`.
    out
        The OME-Zarr group to write.
    crf
        Refine each tile with a dense CRF (extra ``crf``).
    boxes
        CSV file to write with a box around each connected component of each foreground class, and the
        superbox around the largest component of all of them (section 4.3.1); 3D boxes of a volume.
    min_size
        Voxels of the smallest object that gets a box.
    model
        File of the model to write; it labels other volumes with :func:`hrvol.segment_volume`.
    engine, workers, scheduler_file, engine_options, device, devices, probabilities, uncertainty, roi, mask,
    level, overwrite, backend, scratch
        As in :func:`hrvol.segment_volume`. With ``roi`` the classes are fitted on that region only. An
        unfinished output is resumed with the classes that were fitted for it.
    weights_path, offline, storage_options, stop, progress
        As in :func:`hrvol.segment_volume`.

    Raises
    ------
    InputError, UsageError, WeightsError
        As in :func:`fit_classes`.
    OutputExistsError
        ``out`` exists and cannot be resumed or replaced.
    """
    options = RunOptions(
        engine_spec(engine, workers, scheduler_file, engine_options, devices),
        device,
        InputOptions(roi, mask, level),
        OutputOptions(probabilities=probabilities, uncertainty=uncertainty, crf=crf, overwrite=overwrite),
        WeightsSource.of(weights_path, offline),
        storage_options,
        backend=backend,
        scratch=scratch,
    )
    finding = ClusterOptions(recipe, clusters, merge, classes, seed)
    return cluster(volume, out, finding, ClusterFiles(boxes, min_size, model), options, stop, progress)


def cluster(
    volume: Any,
    out: str | Path | Location,
    finding: ClusterOptions,
    files: ClusterFiles,
    options: RunOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> ClusterReport:
    """Cluster a volume as :func:`cluster_volume` does, with its keywords as objects."""
    opened = open_volume(located(volume, options.storage_options), level=options.input.level)
    recipe = _recipe(finding, opened, options.output.crf)
    # Everything is checked before the minutes of fitting.
    engine = options.placed()[0].engine
    location = Location.of(out, options.storage_options)
    settings = (file_or_none(finding.recipe), options.weights.path, engine.scheduler_file)
    inputs = (opened, options.input.mask, *settings)
    keep_inputs(location, *inputs)
    check_engine(engine)
    region = region_box(options.input.roi, opened)
    overwrite = options.output.overwrite
    resumed, earlier = (False, None) if overwrite else _earlier_model(location, recipe, opened, region)
    if not resumed:
        check_overwrite(location, overwrite)
    if files.boxes is not None and files.model is not None:
        keep_inputs(files.model, files.boxes)
    for file, kind in ((files.boxes, BOXES), (files.model, MODEL)):
        if file is not None:
            keep_inputs(file, *inputs)
            if not Path(file).is_dir():  # a folder in the way is reported as that
                keep_inputs(file, location, role="output")
            check_file(file, kind, overwrite or resumed)
    if recipe.crf is not None:
        check_available()
    model = earlier or fit_classes(
        opened,
        recipe=recipe,
        roi=options.input.roi,
        # Where the workers with GPUs are on other machines, this one uses a GPU only if it has one.
        device="auto" if engine.remote and engine.device == "cuda" else engine.device,
        weights_path=options.weights.path,
        offline=options.weights.offline,
        progress=progress,
    )
    free_gpu_memory()  # for the workers
    if files.model is not None:
        save_model(model, files.model)
    mask = located(options.input.mask, options.storage_options)
    options = replace(options, input=replace(options.input, mask=mask))
    segmentation = segment(opened, location, model, options, stop, progress)
    report = ClusterReport(model, segmentation, None)
    if files.boxes is None or segmentation.failed:
        return report
    objects = find_boxes(
        open_labels(location),
        report.clusters.foreground,
        open_label_store(location).block_shape,
        min_size=files.min_size,
        engine=engine,
        progress=progress,
    )
    write_boxes(files.boxes, objects, {info.value: info.name for info in model.classes}, opened.ndim)
    return replace(report, objects=objects)


def can_resume(volume: Any, out: str | Path | Location, finding: ClusterOptions, options: RunOptions) -> bool:
    """Return whether an output was started by the same request, as :func:`cluster` decides."""
    opened = open_volume(located(volume, options.storage_options), level=options.input.level)
    recipe = _recipe(finding, opened, options.output.crf)
    location = Location.of(out, options.storage_options)
    return _earlier_model(location, recipe, opened, region_box(options.input.roi, opened))[0]


def _recipe(finding: ClusterOptions, volume: Volume, crf: bool) -> Recipe:
    """Return the recipe of a request, with all that overrides it."""
    recipe = cluster_recipe(
        default_recipe(volume) if finding.recipe is None else finding.recipe,
        finding.clusters,
        finding.merge,
        finding.classes,
        finding.seed,
    )
    recipe = recipe_for(recipe, [volume])
    return recipe.with_(crf=recipe.crf or CrfSpec()) if crf else recipe


def _earlier_model(
    location: Location, recipe: Recipe, volume: Volume, region: Box
) -> tuple[bool, Model | None]:
    """Return whether an output can be resumed (same recipe, input and region), and its model.

    Without a model, because its copy is damaged, the classes are fitted again: to the same, as its digest
    tells.
    """
    documents = recorded_documents(location)
    attributes = (location.attributes() or {}).get("hrvol") if documents is None else documents.provenance
    if not isinstance(attributes, Mapping) or "clusters" not in attributes:
        return False, None
    before, model = attributes.get("input"), attributes.get("model")
    identity = volume.identity()
    if (
        attributes.get("region") != [[span.start, span.stop] for span in region]
        or attributes.get("recipe") != json.loads(json.dumps(recipe.to_dict()))
        or not isinstance(before, Mapping)
        or before.get("sha256") != identity["sha256"]
        or before.get("channel", identity.get("channel")) != identity.get("channel")
    ):
        return False, None
    stored = LabelStore(location).read_file(MODEL_FILE)
    digest = None if stored is None else hashlib.sha256(stored).hexdigest()
    if stored is None or not isinstance(model, Mapping) or digest != model.get("sha256"):
        return True, None
    return True, read_model(stored, f"{location}/{MODEL_FILE}")
