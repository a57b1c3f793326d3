"""The tasks that engines hand to workers: copy a block, compare a block with its source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.engine.task import configuration
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe.specs import TileSpec
from hrvol.run.block_job import BlockReport, check_unchanged, input_states, peak_memory, reader_of
from hrvol.run.convert.window import to_uint8
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.chunk_cache import ChunkUses, uses_of
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, box_shape, whole
from hrvol.volume.intensity import Window
from hrvol.volume.ome.converted import ConvertedImage
from hrvol.volume.storage.location import checksum, combined
from hrvol.volume.volume import Reader, Volume

_FEW = 100  # objects of a block whose checksums are recorded one by one


@dataclass(frozen=True)
class ConvertJob:
    """What a worker needs to copy any block; plain data, sent to each worker once.

    Attributes
    ----------
    volume, store
        Where to read and where to write.
    origin
        First voxel (z, y, x) of the volume that is copied.
    window
        Grey values that become 0 and 255; ``None``: values are kept.
    cache
        Where a worker keeps decoded chunks of the volume.
    """

    volume: Volume
    store: ConvertedImage
    origin: Shape3 = (0, 0, 0)
    window: Window | None = None
    cache: CachePlan = CachePlan()

    mask = None
    mask_cache = CachePlan(0)

    @property
    def grid(self) -> BlockGrid:
        """The blocks of the output."""
        return block_grid(self.store.layout.shape, self.store.block_shape, self.volume.chunks)

    @property
    def region(self) -> Box:
        """All of the output."""
        return whole(self.store.layout.shape)

    @property
    def key(self) -> str:
        """What identifies how its input is read."""
        return f"convert {self.volume.source} {self.volume.shape} {self.origin} {self.store.layout}"

    def reads(self, block: Block) -> Box:
        """Return the box of the volume that a block is copied from."""
        z, y, x = (
            slice(span.start + first, span.stop + first)
            for span, first in zip(block.core, self.origin, strict=True)
        )
        return z, y, x

    def uses(self) -> ChunkUses:
        """Count the blocks that read each chunk of the volume."""
        spans = [
            tuple((start + first, stop + first) for start, stop in axis)
            for axis, first in zip(self.grid.read_spans(), self.origin, strict=True)
        ]
        return uses_of(spans, self.volume.shape, self.volume.chunks).along(self.volume.axes)

    def mask_uses(self) -> None:
        """Return nothing: there is no mask."""

    def values(self, block: Block, reader: Reader) -> NDArray[Any]:
        """Return what a block of the output holds (z, y, x), from the volume."""
        values = self.volume.read(self.reads(block), reader)
        return values if self.window is None else to_uint8(values, self.window)


def block_grid(shape: Shape3, sides: Shape3, chunks: Shape3 | None) -> BlockGrid:
    """Return the blocks of an output of this shape."""
    return BlockGrid(shape, TileSpec(), chunks, sides=sides)


def convert_block(block: Block) -> BlockReport:
    """Copy a block; this task is the only writer of its shard, or of its chunks."""
    job: ConvertJob = configuration()
    began = time.monotonic()
    before = input_states(job, block)
    reader = reader_of(job)
    values = job.values(block, reader.of(before[0]))
    inputs = check_unchanged(job, block, before)
    job.store.write(block.core, values)
    objects = job.store.object_checksums([block.index])[0]
    return BlockReport(
        block.index,
        values.size,
        time.monotonic() - began,
        {},
        SeamDisagreement(),
        combined(objects),
        reader.newly_decoded(),
        peak_memory(),
        objects if len(objects) <= _FEW else (),
        inputs,
    )


def compare_block(block: Block) -> bool:
    """Read a block of the input and of the output again; return whether their checksums are the same."""
    job: ConvertJob = configuration()
    reader = reader_of(job)
    expected = checksum(job.values(block, reader).tobytes())
    stored = job.store.read(block.core)
    return stored.shape == box_shape(block.core) and checksum(stored.tobytes()) == expected
