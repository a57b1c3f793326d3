"""Read and write what a model file may keep of doubt: its training pixels, and its calibration."""

from __future__ import annotations

import zipfile
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrvol.errors import ModelError
from hrvol.quality.calibration import BINS, COLDEST, HOTTEST, Calibration, Reliability
from hrvol.reading.schema import Name, Schema
from hrvol.segment.drift import COMPONENTS, DriftRecord, FeatureCloud
from hrvol.segment.model.archive import array_bytes, read_array

_Positive = Annotated[float, Field(gt=0, le=1e30)]

_Row = Annotated[tuple[Annotated[float, Field(ge=0, le=1e15)], ...], Field(min_length=BINS, max_length=BINS)]


class DriftEntry(Schema):
    """The values of a record of training pixels that are no arrays."""

    columns: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
    components: Annotated[int, Field(ge=1, le=COMPONENTS)]
    classes: Annotated[int, Field(ge=1, le=1000)]
    variance: _Positive
    threshold: _Positive
    held_out: _Positive
    description: Name


class ReliabilityEntry(Schema):
    """Pixels by the probability of their most likely class."""

    counts: _Row
    confidence: _Row
    right: _Row


class CalibrationEntry(Schema):
    """A calibration."""

    temperature: Annotated[float, Field(ge=COLDEST, le=HOTTEST)]
    before: ReliabilityEntry
    after: ReliabilityEntry
    pixels: Annotated[int, Field(ge=1, le=2**53)]
    held_out: Name


def drift_members(record: DriftRecord) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the members of the zip, and the JSON values for its ``info.json``."""
    cloud = record.cloud
    arrays = {
        "centre": cloud.centre,
        "scale": cloud.scale,
        "components": cloud.components,
        "whitening": cloud.whitening,
        "means": cloud.means,
    }
    entries = {
        "columns": list(cloud.columns),
        "components": len(cloud.components),
        "classes": len(cloud.means),
        "variance": float(cloud.variance),
        "threshold": float(record.threshold),
        "held_out": float(record.held_out),
        "description": record.description[:200],
    }
    members = {f"drift_{name}.npy": array_bytes(values.astype("<f4")) for name, values in arrays.items()}
    return members, entries


def read_drift(archive: zipfile.ZipFile, entry: DriftEntry, n_features: int, source: str) -> DriftRecord:
    """Read the members and JSON values that :func:`drift_members` returned.

    Raises
    ------
    ModelError
        A member is missing or damaged, or does not fit the model.
    """
    start, stop = entry.columns
    if not start < stop <= n_features:
        raise ModelError(
            f"{source}: info.json: drift: found columns {start}..{stop}, expected some of {n_features}"
        )
    width, count = stop - start, entry.components

    def read(name: str, *shape: int) -> NDArray[np.float32]:
        return read_array(archive, f"drift_{name}.npy", "f", shape, source).astype(np.float32, copy=False)

    scale = read("scale", width)
    if not (scale > 0).all():
        raise ModelError(f"{source}: drift_scale.npy: found {scale.min():g}, expected values above 0")
    cloud = FeatureCloud(
        (start, stop),
        read("centre", width),
        scale,
        read("components", count, width),
        read("whitening", count, count),
        read("means", entry.classes, count),
        entry.variance,
    )
    return DriftRecord(cloud, entry.threshold, entry.held_out, entry.description)


def calibration_entries(calibration: Calibration) -> dict[str, Any]:
    """Return the JSON values of a calibration for ``info.json``."""
    return {
        "temperature": float(calibration.temperature),
        "before": _entries(calibration.before),
        "after": _entries(calibration.after),
        "pixels": calibration.pixels,
        "held_out": calibration.held_out[:200],
    }


def read_calibration(entry: CalibrationEntry) -> Calibration:
    """Return the calibration of the JSON values that :func:`calibration_entries` returned."""
    before, after = (
        Reliability(*(np.array(row) for row in (part.counts, part.confidence, part.right)))
        for part in (entry.before, entry.after)
    )
    return Calibration(entry.temperature, before, after, entry.pixels, entry.held_out)


def _entries(found: Reliability) -> dict[str, list[float]]:
    return {
        "counts": found.counts.tolist(),
        "confidence": found.confidence.tolist(),
        "right": found.right.tolist(),
    }
