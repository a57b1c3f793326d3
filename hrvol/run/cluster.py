"""Classes from nothing, over a whole volume: fitted once on a sample, then every block is labelled alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.analysis.boxes import find_boxes, write_boxes
from hrvol.analysis.objects import Object
from hrvol.device import free_gpu_memory
from hrvol.engine.placement import place
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.files import BOXES, MODEL, check_file, text
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import CrfSpec
from hrvol.run.job import MODEL_FILE
from hrvol.run.report import SegmentReport
from hrvol.run.segment import segment_volume
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import check_available
from hrvol.segment.model.model import Model, read_model, save_model
from hrvol.training.cluster import cluster_recipe, default_recipe, fit_classes
from hrvol.volume.grid.tiling import Box
from hrvol.volume.ome.labels import LabelStore, open_label_store
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.region import Region, keep_input, region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels, open_volume

LOG = logging.getLogger("hrvol.run")

MIN_SIZE = 200
"""Voxels of the smallest object that gets a box (the paper's code: more than 200 pixels)."""


@dataclass(frozen=True)
class ClusterReport:
    """What was found.

    Attributes
    ----------
    model
        The clusters and their classes.
    segmentation
        What became of the blocks.
    objects
        Boxes of foreground objects, if they were asked for and all blocks were done.
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
        Voxels that an object has at least to get a box.
    model
        File to keep the model in; it labels other volumes with :func:`hrvol.segment_volume`.
    engine, workers, scheduler_file, engine_options, device, devices, probabilities, uncertainty, roi, mask,
    level, overwrite
        As in :func:`hrvol.segment_volume`. With ``roi`` the classes are found in that region too. An
        unfinished output is gone on with, with the classes that were found for it.
    weights_path, offline, storage_options, stop, progress
        As in :func:`hrvol.segment_volume`.

    Raises
    ------
    InputError, UsageError, WeightsError
        As in :func:`fit_classes`.
    OutputExistsError
        ``out`` is in the way.
    """
    opened = open_volume(located(volume, storage_options), level=level)
    spec = cluster_recipe(
        default_recipe(opened) if recipe is None else recipe, clusters, merge, classes, seed
    )
    if crf:
        spec = spec.with_(crf=spec.crf or CrfSpec())
    # What can be refused is refused before the minutes of fitting.
    asked_for = EngineSpec(
        engine, workers, text(scheduler_file), dict(engine_options or {}), tuple(devices or ())
    )
    where, _ = place(asked_for, device)
    location = Location.of(out, storage_options)
    keep_input(opened, location)
    region = region_box(roi, opened)
    kept = None if overwrite else _kept_model(location, spec, opened, region)
    if kept is None:
        check_overwrite(location, overwrite)
    for file, kind in ((boxes, BOXES), (model, MODEL)):
        if file is not None:
            keep_input(opened, file)
            check_file(file, kind, overwrite or kept is not None)
    if spec.crf is not None:
        check_available()
    found = kept or fit_classes(
        opened,
        recipe=spec,
        roi=roi,
        # Where other machines have the GPUs, this one does what it can.
        device="auto" if where.remote and where.device == "cuda" else where.device,
        weights_path=weights_path,
        offline=offline,
        progress=progress,
    )
    free_gpu_memory()  # what is left of it is the workers'
    if model is not None:
        save_model(found, model)
    report = segment_volume(
        opened,
        location,
        found,
        engine=engine,
        workers=workers,
        scheduler_file=scheduler_file,
        engine_options=engine_options,
        device=device,
        devices=devices,
        probabilities=probabilities,
        uncertainty=uncertainty,
        roi=roi,
        mask=located(mask, storage_options),
        level=level,
        overwrite=overwrite,
        weights_path=weights_path,
        offline=offline,
        stop=stop,
        progress=progress,
    )
    if boxes is None or report.failed:
        return ClusterReport(found, report, None)
    objects = find_boxes(
        open_labels(location),
        ClusterReport(found, report, None).clusters.foreground,
        open_label_store(location).block_shape,
        min_size=min_size,
        engine=where,
        progress=progress,
    )
    write_boxes(boxes, objects, {info.value: info.name for info in found.classes}, opened.ndim)
    return ClusterReport(found, report, objects)


def _kept_model(location: Location, spec: Recipe, volume: Volume, region: Box) -> Model | None:
    """Return the model of a run that can be gone on with: found with the same recipe, in the same place."""
    said = (location.attributes() or {}).get("hrvol")
    if not isinstance(said, Mapping) or "clusters" not in said:
        return None
    kept = LabelStore(location).read_file(MODEL_FILE)
    if kept is None:
        return None
    model = read_model(kept, f"{location}/{MODEL_FILE}")
    seen = volume.identity()
    same = model.recipe == spec and said.get("region") == [[span.start, span.stop] for span in region]
    return model if same and said.get("input", {}).get("sha256") == seen["sha256"] else None
