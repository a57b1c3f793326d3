"""Measure the classes of an output: voxels, fraction and volume, by the counts that its blocks recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.run.ledger_totals import ledger_totals
from hrvol.run.provenance import Summary, cleaned_grid, read_attributes, run_grid
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import class_info, open_labels

_PER_STEP = 1000.0
"""Ratio of the lengths of the units that volumes are expressed in."""

_SHOWN = ("nanometer", "micrometer", "millimeter", "meter")


@dataclass(frozen=True)
class ClassVolume:
    """What a class fills.

    Attributes
    ----------
    info
        The class.
    voxels
        Number of its voxels; exact.
    fraction
        Of the labelled voxels, in 0..1.
    volume
        In cubed units of :attr:`ClassVolumes.unit`, of a plane squared ones.
    """

    info: ClassInfo
    voxels: int
    fraction: float
    volume: float


@dataclass(frozen=True)
class ClassVolumes:
    """What the classes of an output fill.

    Attributes
    ----------
    classes
        In order of value; classes without voxels too.
    voxels
        Labelled voxels.
    unit
        Length whose cube, or square, is the unit of volumes, by its OME name; ``None``: unknown.
    ndim
        3, or 2 for a plane.
    """

    classes: tuple[ClassVolume, ...]
    voxels: int
    unit: str | None
    ndim: int


def class_volumes(
    out: str | Path | Location, *, storage_options: Mapping[str, Any] | None = None
) -> ClassVolumes:
    """Return voxels, fraction and volume of each class of an output, as far as it is computed.

    No labels are read: each block has recorded its counts when it was written. Labels that were changed by
    other programs since are not counted again.

    Parameters
    ----------
    out
        An output of :func:`hrvol.segment_volume`, :func:`hrvol.cluster_volume` or :func:`hrvol.clean_labels`,
        path or URL.
    storage_options
        Keywords of the fsspec file system of a URL.

    Raises
    ------
    InputError
        The path is not such an output, or its metadata are damaged.
    """
    location = Location.of(out, storage_options)
    grid, summary = _blocks(location)
    labels = open_labels(location)
    infos = class_info(location)
    if not infos:
        raise InputError(f"{location}: found labels without classes, expected an output of hrvol segment")
    counts: Mapping[int, int]
    if summary is None:
        counts = ledger_totals(location, len(grid)).counts
    else:  # labels of an image keep no ledger; a fraction times the voxels is a whole number
        names = {info.name: info.value for info in infos}
        counts = {
            names[name]: round(share * summary.voxels)
            for name, share in summary.fractions.items()
            if name in names and math.isfinite(share)
        }
    total = sum(counts.get(info.value, 0) for info in infos)
    size = math.prod(labels.voxel_size[-labels.ndim :])
    most = max((counts.get(info.value, 0) for info in infos), default=0) * size
    unit, factor = _readable(labels.unit, labels.ndim, most)
    rows = []
    for info in sorted(infos, key=lambda info: info.value):
        number = counts.get(info.value, 0)
        rows.append(ClassVolume(info, number, number / max(total, 1), number * size * factor))
    return ClassVolumes(tuple(rows), total, unit, labels.ndim)


def _blocks(location: Location) -> tuple[BlockGrid, Summary | None]:
    """Return the blocks of an output, and what is kept of a ledger that is gone."""
    if (cleaned := cleaned_grid(location)) is not None:
        return cleaned[0], None
    attributes = read_attributes(location)
    return run_grid(attributes, location)[0], attributes.summary


def _readable(unit: str | None, ndim: int, most: float) -> tuple[str | None, float]:
    """Return the metric unit in which the largest volume has few digits, and the factor to it."""
    if unit not in _SHOWN:
        return unit, 1.0
    number, factor = _SHOWN.index(unit), 1.0
    while most * factor >= _PER_STEP**ndim and number + 1 < len(_SHOWN):
        number, factor = number + 1, factor / _PER_STEP**ndim
    return _SHOWN[number], factor
