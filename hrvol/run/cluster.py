"""Classes from nothing, over a whole volume: fitted once on a sample, then every block is labelled alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import InputError, UsageError
from hrvol.recipe import CrfSpec, Recipe
from hrvol.run.block import MODEL_FILE
from hrvol.run.boxes import find_boxes, write_boxes
from hrvol.run.devices import choose, free_gpu_memory, place
from hrvol.run.engine import EngineSpec
from hrvol.run.outputs import BOXES, MODEL, check_file
from hrvol.run.position import position_field
from hrvol.run.progress import ProgressCallback
from hrvol.run.request import Region, keep_input, region_box, text
from hrvol.run.sample import sample_pixels
from hrvol.run.segment import segment_volume
from hrvol.run.stop import Stop
from hrvol.run.sweep import SegmentReport
from hrvol.run.train import check_context, common_window
from hrvol.segment.cas import ClusterClassifier, fit_clusters
from hrvol.segment.crf import check_available
from hrvol.segment.model import Model, read_model, save_model
from hrvol.segment.objects import Object
from hrvol.volume.intensity import sample_boxes
from hrvol.volume.labels import LabelStore, open_label_store
from hrvol.volume.location import Location, located
from hrvol.volume.output import check_way
from hrvol.volume.store import Volume, open_labels, open_volume
from hrvol.volume.tiling import Box, window_side

LOG = logging.getLogger("hrvol.run")

IMAGE_RECIPE, VOLUME_RECIPE = "cas", "cas-volume"
"""Default for what fits one tile a plane, and for what does not."""

MIN_SIZE = 200
"""Voxels of the smallest object that gets a box (the paper's code: more than 200 pixels)."""


def fit_classes(
    volume: Any,
    *,
    recipe: str | Path | Recipe | None = None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    seed: int | None = None,
    roi: Region | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    progress: ProgressCallback | None = None,
) -> Model:
    """Find the classes of a volume without any labels (paper, section 3.2, algorithm 2).

    A sample of pixels, spread over the volume, is cut into clusters; their attention tells foreground from
    background, and they are merged up to the semantic distance. All that is frozen in the model, so that a
    class means the same in the first plane and in the last.

    Parameters
    ----------
    volume
        A path, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``.
    recipe
        A recipe, its file, or a preset's name; ``None`` for ``cas`` if a plane fits one tile, else
        ``cas-volume``. Features may be of any kind; classical ones have no attention, so that ``classes``
        must be given.
    clusters, merge, classes, seed
        Override the recipe's ``cluster.clusters``, ``cluster.merge`` (lambda), ``cluster.classes`` and seed.
    roi
        Look at this region only, as ``(z, y, x)`` slices in voxels.
    device
        Where features are made, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees one.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Look for weights on this machine only.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    Model
        To be used in :func:`hrvol.segment_volume`. Classes are numbered in falling order of their share of
        the sample, and named ``background 1``, ``foreground 2``, ... by their attention.

    Raises
    ------
    InputError
        The volume cannot be read, shows one grey value only, or has fewer different pixels than clusters.
    UsageError
        More classes than clusters are asked for; or features without attention need ``classes``.
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    opened = open_volume(volume)
    spec = cluster_recipe(
        default_recipe(opened) if recipe is None else recipe, clusters, merge, classes, seed
    )
    region = region_box(roi, opened)
    _check_structure(opened, region, spec.seed)
    if not spec.features.uses_deep and spec.cluster.classes is None:
        raise UsageError(
            "cluster: classical features have no attention to tell how far to merge;"
            " expected the number of classes (--classes N), or a deep recipe"
        )
    choice = choose(device)
    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("classes: %s", choice)
    check_context(featuriser, [opened], spec.tiles)
    window = common_window([opened], spec.intensity, spec.seed)
    sample = sample_pixels(
        opened,
        region,
        featuriser,
        window,
        spec.tiles,
        pixels=spec.cluster.samples,
        most_tiles=spec.cluster.sample_tiles,
        seed=spec.seed,
        unit=True,
        attention=spec.features.uses_deep,
        progress=progress,
    )
    position = position_field(
        [(opened, region)],
        {opened: window},
        featuriser,
        spec,
        progress,
        most_tiles=spec.cluster.sample_tiles,
    )
    features = sample.features
    if position is not None:
        features[:, featuriser.groups["deep"]] -= position.at(sample.places)
    count = len(features)
    if progress is not None:
        progress("fit", 0, count)
    found = fit_clusters(
        features,
        sample.attention,
        spec.cluster,
        directions=featuriser.groups.get("deep"),
        seed=spec.seed,
        source=opened.source,
        device=choice.device,
    )
    if progress is not None:
        progress("fit", count, count)
    return Model(
        recipe=spec,
        classes=name_clusters(found),
        window=window,
        classifier=replace(found, position=position),
        weights_sha256=featuriser.weights_sha256,
        channels=featuriser.channels,
        trained_on=(opened.identity() | {"pixels": count},),
    )


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
        check_way(location, overwrite)
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


def default_recipe(volume: Volume) -> str:
    """Return the preset where no recipe is given: by whether a plane fits one tile."""
    tiles = Recipe.load(VOLUME_RECIPE).tiles
    fits = all(window_side(side, tiles) == side for side in volume.shape[1:])
    return IMAGE_RECIPE if fits else VOLUME_RECIPE


def cluster_recipe(
    recipe: str | Path | Recipe | None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """Return a recipe with what was asked for; :class:`RecipeError` where that makes no sense."""
    spec = Recipe.load(IMAGE_RECIPE if recipe is None else recipe)
    wanted = {"clusters": clusters, "merge": merge, "classes": classes}
    changes = spec.cluster.to_dict() | {name: value for name, value in wanted.items() if value is not None}
    if merge is not None and classes is None:
        changes["classes"] = None
    spec = spec.with_(cluster=changes)
    return spec if seed is None else spec.with_(seed=seed)


def name_clusters(found: ClusterClassifier) -> tuple[ClassInfo, ...]:
    """Return names and colours for classes that nobody named."""
    front = found.foreground
    attended = found.tally.attention is not None
    names = [
        f"{('foreground' if value in front else 'background') if attended else 'class'} {value}"
        for value in found.classes
    ]
    return default_classes(found.classes, names)


def _check_structure(volume: Volume, region: Box, seed: int) -> None:
    """Refuse a region that shows one grey value only: its clusters would be those of positions."""
    shape = tuple(span.stop - span.start for span in region)
    first = None
    for box in sample_boxes((shape[0], shape[1], shape[2]), seed):
        z, y, x = (
            slice(part.start + span.start, part.stop + span.start)
            for part, span in zip(box, region, strict=True)
        )
        values = volume.read((z, y, x))
        first = values.flat[0] if first is None else first
        if np.any(values != first):
            return
    raise InputError(
        f"{volume.source}: found one grey value ({first}) everywhere, expected structure to see"
        " (a large volume is sampled: --roi chooses where)"
    )
