"""The tasks that engines hand to workers: find the basins of a block, describe them, write its objects."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.separating.basins import CELL, basins_of, pack, unpack
from hrvol.analysis.separating.contraction import contract
from hrvol.analysis.separating.graph import Basins, describe_basins
from hrvol.analysis.separating.heights import (
    FIRST_DISTANCE,
    distance_heights,
    kept_classes,
    probability_heights,
    reach_of,
)
from hrvol.analysis.separating.merging import Depth, Objects
from hrvol.arrays import Shape3, Spacing3
from hrvol.engine.task import computing, configuration
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe.specs import TileSpec
from hrvol.run.block_job import (
    BlockJob,
    BlockReport,
    JobReader,
    check_unchanged,
    input_states,
    peak_memory,
    reader_of,
)
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.chunk_cache import ChunkUses, uses_of
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, around, box_shape, whole
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import combined
from hrvol.volume.volume import Reader, Volume

OBJECT = 1
"""Under which the voxels of objects are counted in a ledger."""


@dataclass(frozen=True)
class Landscape:
    """What is flooded.

    Attributes
    ----------
    classes
        Whose objects are separated, ascending.
    sampling
        Sides (z, y, x) of a voxel, the shortest 1.
    most
        Longer distances are as this one, in shortest sides of voxels.
    depth
        How far a peak rises to be one.
    probabilities
        Of each of the classes, in order; empty: the distance to other classes is flooded.
    cell
        Sides of the cells that basins do not leave.
    """

    classes: tuple[int, ...]
    sampling: Spacing3
    most: float
    depth: Depth
    probabilities: tuple[Volume, ...] = ()
    cell: int = CELL

    @property
    def first_reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that are read for any block."""
        return (0, 0, 0) if self.probabilities else reach_of(min(self.most, FIRST_DISTANCE), self.sampling)

    @property
    def reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that may be read."""
        return (0, 0, 0) if self.probabilities else reach_of(self.most, self.sampling)


@dataclass(frozen=True)
class _Job:
    """What the jobs of both passages have in common.

    Attributes
    ----------
    volume, store
        What is read, and where to write.
    block_shape
        Voxels (z, y, x) of a block.
    landscape
        What is flooded.
    objects
        Object of each basin; ``None``: not known yet.
    cache
        Where a worker keeps decoded chunks.
    """

    volume: Volume
    store: LabelStore
    block_shape: Shape3
    landscape: Landscape
    objects: Objects | None = None
    cache: CachePlan = CachePlan()

    mask = None
    mask_cache = CachePlan(0)

    @property
    def usual_reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that are read for any block."""
        raise NotImplementedError

    @property
    def grid(self) -> BlockGrid:
        """The blocks."""
        return BlockGrid(
            self.volume.shape, TileSpec(), self.volume.chunks, self.usual_reach, sides=self.block_shape
        )

    @property
    def region(self) -> Box:
        """All of the labels."""
        return whole(self.volume.shape)

    @property
    def key(self) -> str:
        """What identifies how its input is read."""
        shapes = f"{self.volume.shape} {self.block_shape} {self.usual_reach}"
        return f"{type(self).__name__} {self.volume.source} {shapes}"

    def uses(self) -> ChunkUses:
        """Count the blocks that read each chunk of the labels."""
        volume = self.volume
        return uses_of(self.grid.read_spans(), volume.shape, volume.chunks).along(volume.axes)

    def mask_uses(self) -> None:
        """Return nothing: there is no mask."""


class BasinJob(_Job):
    """What a worker needs to find the basins of any block; plain data, sent to each worker once."""

    @property
    def usual_reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that are read for any block."""
        return self.landscape.first_reach

    def reads(self, block: Block) -> Box:
        """Return the box of the labels that a block is computed from."""
        return around(block.core, self.landscape.reach, self.volume.shape)

    def computed(self, block: Block, reader: Reader | None = None) -> NDArray[np.uint64]:
        """Return the basins of a block, as :func:`hrvol.analysis.separating.basins.pack` stores them."""
        land = self.landscape
        usual = around(block.core, land.first_reach, self.volume.shape)

        def read(box: Box) -> NDArray[np.uint16]:
            # What few blocks read must not stay in the cache of what all read.
            return kept_classes(self.volume.read(box, reader if box == usual else None), land.classes)

        if land.probabilities:
            kept = read(block.core)
            channels = np.stack([volume.read(block.core) for volume in land.probabilities])
            heights = probability_heights(kept, channels, land.classes)
        else:
            kept, heights = distance_heights(read, block.core, self.volume.shape, land.sampling, land.most)
        found, _ = basins_of(heights, kept, land.cell)
        basins = contract(found, heights, kept, (block.core, self.volume.shape), land.depth)
        return pack(basins, heights, kept)


class ObjectJob(_Job):
    """What a worker needs to describe the basins of any block, and to write its objects."""

    @property
    def usual_reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that are read for any block."""
        return (1, 1, 1)

    def reads(self, block: Block) -> Box:
        """Return the box of the basins that a block is computed from."""
        return block.core

    def survey(self, block: Block, reader: Reader | None = None) -> Basins:
        """Describe the basins of a block."""
        box = around(block.core, (1, 1, 1), self.volume.shape)
        return describe_basins(self.volume.read(box, reader), box, block.core, self.grid)

    def computed(self, block: Block, reader: Reader | None = None) -> NDArray[Any]:
        """Return the objects ``(z, y, x)`` of a block."""
        assert self.objects is not None
        number = int(np.ravel_multi_index(block.index, self.grid.counts))
        basins, _, _ = unpack(self.volume.read(block.core, reader))
        return self.objects.of(number)[basins]


class _Computes(BlockJob, Protocol):
    """A job that computes labels of blocks."""

    @property
    def store(self) -> LabelStore:
        """Where to write."""
        ...

    def computed(self, block: Block, reader: Reader | None = None) -> NDArray[Any]:
        """Return the labels of a block."""
        ...


def survey_block(block: Block) -> Basins:
    """Describe the basins of a block; the task that engines hand to workers."""
    job: ObjectJob = configuration()
    reader = reader_of(job)
    state = input_states(job, block)
    with computing():
        return job.survey(block, reader.of(state[0]))


def write_block(block: Block) -> BlockReport:
    """Compute the labels of a block and write them; this task is the only writer of its shard."""
    job: _Computes = configuration()
    before = input_states(job, block)
    reader: JobReader = reader_of(job)
    with computing():
        began = time.monotonic()
        labels = job.computed(block, reader.of(before[0]))
        seconds = time.monotonic() - began
    inputs = check_unchanged(job, block, before)
    assert labels.shape == box_shape(block.core)
    job.store.write(block.core, labels)
    objects = job.store.object_checksums([block.index])[0]
    return BlockReport(
        block.index,
        labels.size,
        seconds,
        {OBJECT: int(np.count_nonzero(labels))},
        SeamDisagreement(),
        combined(objects),
        reader.newly_decoded(),
        peak_memory(),
        objects,
        inputs,
    )
