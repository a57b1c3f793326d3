"""Describe a volume, labels or a model as plain values, from metadata only."""

from __future__ import annotations

import reprlib
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrvol.errors import InputError
from hrvol.run.attribute_names import DRIFT
from hrvol.run.drift_entry import read_entry
from hrvol.text import printable
from hrvol.volume.importers.registry import list_datasets
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.zip_input import zip_root
from hrvol.volume.volume import class_info, open_volume

if TYPE_CHECKING:
    from hrvol.segment.model.model import Model
    from hrvol.segment.student.student import StudentClassifier


def describe(
    path: str | Location, *, storage_options: Mapping[str, Any] | None = None, background: bool = False
) -> dict[str, Any]:
    """Describe a file or store from its metadata.

    Parameters
    ----------
    path
        A volume, labels or a ``*.hrvol`` model: a path or, except for models, a URL; or a location with
        reading options.
    storage_options
        Keywords of the fsspec file system of a URL.
    background
        Whether to read the volume coarsely, and add what a run with ``mask="auto"`` would skip of it.

    Returns
    -------
    dict
        JSON values. ``kind`` is ``model``, ``labels``, ``volume``, or ``datasets`` for an HDF5 file with
        several, which are listed; lengths are ``[z, y, x]`` or ``[y, x]``.

    Raises
    ------
    InputError
        The path does not exist, or holds something else.
    """
    location, path = Location.of(path, storage_options), str(path)
    file = Path(path)
    if file.suffix == ".hrvol" or (file.is_file() and zipfile.is_zipfile(file) and zip_root(file) is None):
        # imports scikit-learn, which takes seconds
        from hrvol.segment.model.model import load_model

        return _describe_model(load_model(path))
    datasets, chosen = list_datasets(location)
    try:
        volume = open_volume(location)
    except InputError:
        if not datasets or location.inside:
            raise
        return {"kind": "datasets", "path": path, "datasets": datasets}
    shape, chunks, size = (list(v)[-volume.ndim :] for v in (volume.shape, volume.chunks, volume.voxel_size))
    classes = class_info(location)
    values: dict[str, Any] = {
        "kind": "labels" if classes else "volume",
        "path": path,
        "shape": shape,
        "dtype": str(volume.dtype),
        "chunks": chunks,
        "voxel_size": size,
        "unit": volume.unit,
        "voxel_size_from": volume.voxel_size_from or None,
        "gigavoxels": volume.shape[0] * volume.shape[1] * volume.shape[2] / 1e9,
    }
    if volume.colour:
        values["channels"] = volume.channels
    if volume.notes:
        values["notes"] = list(volume.notes)
    if len(datasets) > 1 and chosen in datasets:
        values |= {"dataset": chosen, "datasets": datasets}
    if background:
        from hrvol.volume.background.find import find_material  # scikit-image: only where it is needed

        mask = find_material(volume)
        values["background"] = {
            "found": "none" if mask is None else mask.found,
            "skipped": 0.0 if mask is None else round(mask.share, 4),
        }
    if classes:
        values["classes"] = {str(info.value): info.name for info in classes}
    try:
        attributes = open_label_store(location).attributes
    except InputError:
        return values
    values |= {
        "kind": "labels",
        "complete": bool(attributes.get("complete")),
        "made_from": _source(attributes, "input", path),
        "model": _source(attributes, "model", path),
        "made_with": attributes.get("versions"),
    }
    companion = _source(attributes, "companion", path)
    values |= {} if companion is None else {"companion": companion}
    drift = read_entry(attributes.get(DRIFT), path)
    if drift is not None:
        distances = zip(drift.planes, drift.distances, strict=True)
        values["drift"] = {
            "threshold": drift.threshold,
            "distance_of_plane": {str(z): distance for z, distance in distances},
            "far": [str(z) for z in drift.far] or ["none"],
        }
    return values


def _source(attributes: Mapping[str, Any], key: str, path: str) -> Any:
    """Return the source that the provenance of an output records; ``None`` if it records none."""
    values = attributes.get(key, {})
    if not isinstance(values, Mapping):
        found = printable(reprlib.repr(values), 100)
        raise InputError(f"{path}: attributes: {key}: found {found}, expected a mapping")
    return values.get("source")


def _describe_model(model: Model) -> dict[str, Any]:
    from hrvol.run.provenance import describe_clusters
    from hrvol.segment.cluster_classifier import ClusterClassifier
    from hrvol.segment.student.student import StudentClassifier

    recipe = model.recipe
    if isinstance(model.classifier, StudentClassifier):
        return _describe_student(model, model.classifier)
    clusters = model.classifier if isinstance(model.classifier, ClusterClassifier) else None
    return {
        "kind": "model",
        "path": model.source,
        "classes": {str(info.value): info.name for info in model.classes},
        "features": recipe.features.kind,
        **({"input": "colour"} if recipe.features.of_colour else {}),
        "channels": len(model.channels),
        "classifier": "clusters" if clusters else recipe.classifier.kind,
        "combine": None if clusters else recipe.combine,
        "clusters": describe_clusters(clusters) if clusters else None,
        "window": list(model.window),
        "weights": recipe.features.deep.weights if recipe.features.uses_deep else None,
        "weights_sha256": model.weights_sha256,
        "trained_on": [str(entry.get("source")) for entry in model.trained_on],
        "calibration": _describe_calibration(model),
        "drift": _describe_drift(model),
        "made_with": dict(model.versions),
    }


def _describe_calibration(model: Model) -> dict[str, Any] | None:
    found = model.calibration
    if found is None:
        return None
    return {
        "temperature": found.temperature,
        "error_before": round(found.before.error, 4),
        "error_after": round(found.after.error, 4),
        "pixels": found.pixels,
        "held_out": found.held_out,
    }


def _describe_drift(model: Model) -> dict[str, Any] | None:
    found = model.drift
    if found is None:
        return None
    return {"threshold": round(found.threshold, 3), "held_out": found.description}


def _describe_student(model: Model, student: StudentClassifier) -> dict[str, Any]:
    from hrvol.segment.student.shapes import array_shapes, flop_per_voxel

    spec = student.spec
    kind = "3D" if spec.is_3d else "2D" if spec.planes == 1 else "2.5D"
    return {
        "kind": "model",
        "path": model.source,
        "classes": {str(info.value): info.name for info in model.classes},
        "classifier": "student",
        "dimensions": kind,
        "planes": spec.planes,
        "widths": list(spec.widths),
        "parameters": sum(prod(shape) for shape in array_shapes(spec, len(model.classes)).values()),
        "flop_per_voxel": flop_per_voxel(spec, len(model.classes)),
        "context": list(spec.halo),
        "temperature": student.temperature,
        "window": list(model.window),
        "taught": dict(student.taught),
        "made_with": dict(model.versions),
    }
