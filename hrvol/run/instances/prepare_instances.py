"""Check the request to separate objects before anything is written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hrvol.analysis.classes_of_objects import INSTANCES
from hrvol.analysis.label_classes import class_values, classes_of
from hrvol.analysis.separating.basins import CELL
from hrvol.analysis.separating.heights import MOST_DISTANCE, STEPS
from hrvol.analysis.separating.merging import Choice, Depth
from hrvol.analysis.sizes import VoxelGrid, least_voxels, shortest_sides
from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo
from hrvol.engine.spec import EngineSpec
from hrvol.errors import InputError, UsageError
from hrvol.run.instances.instance_block import Landscape
from hrvol.text import printable
from hrvol.version import VERSION
from hrvol.volume.exporters.sources import open_exported
from hrvol.volume.grid.order import MOST_BLOCKS
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.label_documents import PROBABILITIES
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels

BLOCK, FLAT_BLOCK = (128, 256, 256), (1, 2048, 2048)
"""Voxels (z, y, x) of blocks of volumes, and of images."""

DISTANCE, PROBABILITY = "distance", "probability"

LANDSCAPES = (DISTANCE, PROBABILITY)
"""What can be flooded."""

DEPTH = "30%"

LARGEST = 256
"""Diameter from which on objects are as thick as each other, in shortest sides of voxels."""

_CERTAIN = 255

_SHARE = re.compile(r"([0-9]*\.?[0-9]+)\s*%")


@dataclass(frozen=True)
class InstanceOptions:
    """Everything a separation is requested to do, besides its input and output.

    Attributes
    ----------
    classes
        Names or numbers of the classes whose objects are separated.
    depth, largest, min_size, border, landscape, probabilities
        As for :func:`hrvol.separate_instances`.
    engine
        Where blocks are separated.
    name
        Name of the labels to read of several in an image; ``None``: the only ones.
    block_shape
        Voxels (z, y, x) of a block; ``None``: the usual ones.
    scratch
        As in :class:`hrvol.run.options.RunOptions`.
    overwrite
        Whether to delete an earlier output and start over.
    storage_options
        Keywords of the fsspec file system of URLs.
    """

    classes: tuple[str, ...]
    depth: str = DEPTH
    largest: str | None = None
    min_size: str | None = None
    border: bool = True
    landscape: str = DISTANCE
    probabilities: Any = None
    engine: EngineSpec = EngineSpec()
    name: str | None = None
    block_shape: Shape3 | None = None
    scratch: str | Path | None = None
    overwrite: bool = False
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold secrets

    def __post_init__(self) -> None:
        if not self.classes:
            raise UsageError("classes: found none, expected one or more (--class)")
        if self.landscape not in LANDSCAPES:
            raise UsageError(
                f"landscape: found '{printable(str(self.landscape), 50)}', expected {' or '.join(LANDSCAPES)}"
            )
        if self.probabilities is not None and self.landscape != PROBABILITY:
            raise UsageError("probabilities: found some, expected the landscape 'probability' with them")
        sides = self.block_shape
        if sides is not None and (len(sides) != 3 or not all(isinstance(n, int) and n > 0 for n in sides)):
            raise UsageError(f"block_shape: found {sides}, expected three whole numbers above 0: z, y, x")


@dataclass(frozen=True)
class PreparedInstances:
    """A separation that is checked and can start; nothing is written yet.

    Attributes
    ----------
    labels
        Whose objects are separated.
    location
        Of the output.
    classes
        Those that are separated, ascending.
    landscape, choice
        How.
    block_shape
        Voxels (z, y, x) of a block: whole cells.
    dtype
        Type of the objects' numbers.
    attributes
        Provenance that the output will carry.
    """

    labels: Volume
    location: Location
    classes: tuple[ClassInfo, ...]
    landscape: Landscape
    choice: Choice
    block_shape: Shape3
    dtype: str
    attributes: dict[str, Any] = field(repr=False)


def prepare_instances(
    labels: Any, out: str | Path | Location, options: InstanceOptions, cell: int = CELL
) -> PreparedInstances:
    """Check a request before anything is written; parameters as for :func:`hrvol.separate_instances`.

    ``cell`` are the sides of the cells of :mod:`hrvol.analysis.separating.basins`.
    """
    source = located(labels, options.storage_options)
    opened = open_labels(source, name=options.name)
    location = Location.of(out, options.storage_options)
    keep_inputs(location, opened, options.engine.scheduler_file)
    check_scale(opened.source, *opened.voxel_size, *opened.translation)
    flat = opened.ndim == 2 or opened.shape[0] == 1
    block = _whole_cells(options.block_shape or (FLAT_BLOCK if flat else BLOCK), opened.shape, cell)
    count = math.prod(-(-side // step) for step, side in zip(block, opened.shape, strict=True))
    if count > MOST_BLOCKS:
        raise InputError(
            f"{opened.source}: found shape {opened.shape}, {count:.2g} blocks,"
            f" expected at most {MOST_BLOCKS:,}"
        )
    infos = classes_of(opened, source, block, options.name)
    values = tuple(sorted({v for text in options.classes for v in class_values(text, infos, "class")}))
    sizes = VoxelGrid.of(opened)
    if flat:  # a volume of one plane has areas, too
        sizes = replace(sizes, ndim=2)
    depth = _depth(options, sizes)
    most = shortest_sides(options.largest or str(LARGEST), sizes, "diameter") / 2
    if not 1 <= most <= MOST_DISTANCE:
        raise UsageError(
            f"largest: found '{printable(str(options.largest), 50)}', {2 * most:.3g} voxels, expected 2 to"
            f" {2 * MOST_DISTANCE}"
        )
    least = 1 if options.min_size is None else least_voxels(options.min_size, sizes)
    channels = _channels(opened, source, options, values) if options.landscape == PROBABILITY else ()
    return PreparedInstances(
        opened,
        location,
        tuple(info for info in infos if info.value in values),
        Landscape(values, _sampling(sizes), most, depth, channels, cell),
        Choice(least, options.border),
        block,
        dtype_of(opened.shape, least),
        _attributes(opened, infos, values, options, (depth, most, least, cell), channels),
    )


def _whole_cells(block: Shape3, shape: Shape3, cell: int) -> Shape3:
    """Return a block of whole cells, at most as large as the volume."""
    z, y, x = (min(-(-step // cell) * cell, side) for step, side in zip(block, shape, strict=True))
    return z, y, x


def _sampling(sizes: VoxelGrid) -> Spacing3:
    """Return the sides (z, y, x) of a voxel, the shortest 1; of an image, z counts for nothing."""
    shortest = min(sizes.voxel_size[-sizes.ndim :])
    z, y, x = (size / shortest for size in sizes.voxel_size)
    return (1.0, y, x) if sizes.ndim == 2 else (z, y, x)


def _depth(options: InstanceOptions, sizes: VoxelGrid) -> Depth:
    """Return the depth that a user writes."""
    share = _SHARE.fullmatch(options.depth.strip())
    if share is not None:
        part = float(share[1]) / 100
        if not 0 <= part <= 1:
            raise UsageError(f"depth: found '{printable(options.depth, 50)}', expected 0% to 100%")
        return Depth(_CERTAIN * part) if options.landscape == PROBABILITY else Depth(share=part)
    if options.landscape == PROBABILITY:
        raise UsageError(
            f"depth: found '{printable(options.depth, 50)}', expected percent of probability, such as 20%"
        )
    return Depth(STEPS * shortest_sides(options.depth, sizes, "depth"))


def dtype_of(shape: Shape3, least: int) -> str:
    """Return the type that holds any number of objects: of adjacent voxels, one can be a peak."""
    most = min(math.prod(-(-side // 2) for side in shape), math.prod(shape) // least)
    return "uint32" if most < 2**32 else "uint64"


def _channels(
    labels: Volume, source: Any, options: InstanceOptions, values: tuple[int, ...]
) -> tuple[Volume, ...]:
    """Return the probabilities of classes."""
    given = source if options.probabilities is None else options.probabilities
    place = located(given, options.storage_options)
    own = options.name if options.probabilities is None else None
    of_class = {
        channel.classes[0].value: channel.volume
        for channel in open_exported(place, PROBABILITIES, name=own)
        if channel.classes
    }
    missing = [value for value in values if value not in of_class]
    if missing:
        raise InputError(f"{place}: found no probabilities of class {missing[0]}, expected those of {values}")
    found = tuple(of_class[value] for value in values)
    for volume in found:
        if volume.shape != labels.shape:
            raise InputError(
                f"{volume.source}: found probabilities of shape {volume.shape}, expected that of the labels,"
                f" {labels.shape}"
            )
        if volume.dtype != "uint8":
            raise InputError(f"{volume.source}: found probabilities of type {volume.dtype}, expected uint8")
    return found


def _attributes(
    labels: Volume,
    infos: tuple[ClassInfo, ...],
    values: tuple[int, ...],
    options: InstanceOptions,
    numbers: tuple[Depth, float, int, int],
    channels: tuple[Volume, ...],
) -> dict[str, Any]:
    """Return the provenance of an output, as JSON values."""
    depth, most, least, cell = numbers
    inputs = [volume.identity() for volume in channels]
    made: dict[str, Any] = {
        "classes": {str(info.value): info.name for info in infos if info.value in values},
        "landscape": options.landscape,
        "depth": options.depth,
        "in_heights": {"least": depth.height, "share": depth.share},
        "border": options.border,
        "least_voxels": least,
        "cell": cell,
    }
    if channels:
        made["probabilities"] = [{name: one[name] for name in ("shape", "sha256")} for one in inputs]
    else:
        made["most_distance"] = most
    attributes = {
        INSTANCES: made,
        "versions": {"hrvol": VERSION, **{name: version(name) for name in ("scikit-image", "scipy")}},
        "input": labels.identity(),
        "outputs": {"labels": "hrvol", "probabilities": False, "uncertainty": False},
    }
    found: dict[str, Any] = json.loads(json.dumps(attributes))
    return found
