"""Check the request of a cleaning before anything is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.analysis.cleaning.steps import MOST_STEPS, parse_step
from hrvol.analysis.label_classes import classes_of
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.engine.spec import EngineSpec
from hrvol.errors import InputError, UsageError
from hrvol.run.attribute_names import CLEANING
from hrvol.run.clean.clean_block import Stage, stages_of
from hrvol.version import VERSION
from hrvol.volume.grid.order import MOST_BLOCKS
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels

BLOCK, FLAT_BLOCK = (64, 512, 512), (1, 2048, 2048)
"""Voxels (z, y, x) of blocks of volumes, and of images."""


@dataclass(frozen=True)
class CleanOptions:
    """Everything a cleaning is requested to do, besides its input and output.

    Attributes
    ----------
    steps
        As users write them, see :data:`hrvol.analysis.cleaning.steps.FORMS`.
    engine
        Where blocks are cleaned.
    background
        Whether 0 is a class like others.
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

    steps: tuple[str, ...]
    engine: EngineSpec = EngineSpec()
    background: bool = False
    name: str | None = None
    block_shape: Shape3 | None = None
    scratch: str | Path | None = None
    overwrite: bool = False
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold secrets

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise UsageError(f"steps: found {len(self.steps)}, expected 1 to {MOST_STEPS} (--step)")
        sides = self.block_shape
        if sides is not None and (len(sides) != 3 or not all(isinstance(n, int) and n > 0 for n in sides)):
            raise UsageError(f"block_shape: found {sides}, expected three whole numbers above 0: z, y, x")


@dataclass(frozen=True)
class PreparedCleaning:
    """A cleaning that is checked and can start; nothing is written yet.

    Attributes
    ----------
    labels
        What is cleaned.
    location
        Of the output.
    classes
        Of the labels.
    stages
        What is done.
    block_shape
        Voxels (z, y, x) of a block.
    attributes
        Provenance that the output will carry.
    """

    labels: Volume
    location: Location
    classes: tuple[ClassInfo, ...]
    stages: tuple[Stage, ...]
    block_shape: Shape3
    attributes: dict[str, Any] = field(repr=False)


def prepare_cleaning(labels: Any, out: str | Path | Location, options: CleanOptions) -> PreparedCleaning:
    """Check a request before anything is written; parameters as for :func:`hrvol.clean_labels`."""
    source = located(labels, options.storage_options)
    opened = open_labels(source, name=options.name)
    location = Location.of(out, options.storage_options)
    keep_inputs(location, opened, options.engine.scheduler_file)
    check_scale(opened.source, *opened.voxel_size, *opened.translation)
    flat = opened.ndim == 2 or opened.shape[0] == 1
    block = options.block_shape or (FLAT_BLOCK if flat else BLOCK)
    z, y, x = (min(step, side) for step, side in zip(block, opened.shape, strict=True))
    count = math.prod(-(-side // step) for step, side in zip((z, y, x), opened.shape, strict=True))
    if count > MOST_BLOCKS:
        raise InputError(
            f"{opened.source}: found shape {opened.shape}, {count:.2g} blocks,"
            f" expected at most {MOST_BLOCKS:,}"
        )
    classes = classes_of(opened, source, (z, y, x), options.name)
    sizes = VoxelGrid.of(opened)
    steps = [step for text in options.steps for step in parse_step(text, classes, sizes)]
    attributes = {
        CLEANING: {
            "steps": list(options.steps),
            "in_voxels": [step.to_dict() for step in steps],
            "background": options.background,
        },
        "versions": {"hrvol": VERSION},
        "input": opened.identity(),
        "outputs": {"labels": "hrvol", "probabilities": False, "uncertainty": False},
    }
    stages = stages_of(steps)
    return PreparedCleaning(opened, location, classes, stages, (z, y, x), json.loads(json.dumps(attributes)))
