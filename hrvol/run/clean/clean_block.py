"""The tasks that engines hand to workers: survey a block of labels, clean a block."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.cleaning.components import Place, apply_step, survey
from hrvol.analysis.cleaning.filters import apply_filter
from hrvol.analysis.cleaning.joining import Decisions, Pieces
from hrvol.analysis.cleaning.steps import Step
from hrvol.arrays import Shape3
from hrvol.engine.task import computing, configuration
from hrvol.errors import InputError
from hrvol.quality.metrics import SeamDisagreement
from hrvol.recipe.specs import TileSpec
from hrvol.run.block_job import BlockReport, check_unchanged, input_states, peak_memory, reader_of
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.chunk_cache import ChunkUses, uses_of
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, around, box_shape, whole
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import combined
from hrvol.volume.volume import Reader, Volume

MOST_REACH = 32
"""Voxels around a block along an axis from which on further steps begin a stage of their own."""


@dataclass(frozen=True)
class Stage:
    """Steps that are done in one passage over the labels.

    Attributes
    ----------
    filters
        Local steps, first.
    step
        A step of whole components, last; ``None``: none.
    """

    filters: tuple[Step, ...] = ()
    step: Step | None = None

    @property
    def reach(self) -> Shape3:
        """Voxels (z, y, x) around a block that are read."""
        one = int(self.step is not None)
        z, y, x = (one + sum(step.reach[axis] for step in self.filters) for axis in range(3))
        return z, y, x


def stages_of(steps: Sequence[Step]) -> tuple[Stage, ...]:
    """Divide steps into stages, as few as possible."""
    stages = [Stage()]
    for step in steps:
        last = stages[-1]
        if last.step is not None:
            last = Stage()
            stages.append(last)
        if not step.local:
            stages[-1] = replace(last, step=step)
            continue
        longer = replace(last, filters=(*last.filters, step))
        if last.filters and max(longer.reach) > MOST_REACH:
            stages.append(Stage((step,)))
        else:
            stages[-1] = longer
    return tuple(stages)


@dataclass(frozen=True)
class CleanJob:
    """What a worker needs to clean any block; plain data, sent to each worker once.

    Attributes
    ----------
    volume, store
        Labels to read, and where to write.
    block_shape
        Voxels (z, y, x) of a block.
    stage
        What is done.
    dtype
        Type of the labels that are written.
    background
        Whether 0 is a class like others.
    decisions
        What becomes of components that span blocks; ``None``: not known yet.
    cache
        Where a worker keeps decoded chunks of the labels.
    """

    volume: Volume
    store: LabelStore
    block_shape: Shape3
    stage: Stage
    dtype: str
    background: bool = False
    decisions: Decisions | None = None
    cache: CachePlan = CachePlan()

    mask = None
    mask_cache = CachePlan(0)

    @property
    def grid(self) -> BlockGrid:
        """The blocks."""
        return BlockGrid(
            self.volume.shape, TileSpec(), self.volume.chunks, self.stage.reach, sides=self.block_shape
        )

    @property
    def region(self) -> Box:
        """All of the labels."""
        return whole(self.volume.shape)

    @property
    def key(self) -> str:
        """What identifies how its input is read."""
        return f"clean {self.volume.source} {self.volume.shape} {self.block_shape} {self.stage.reach}"

    def reads(self, block: Block) -> Box:
        """Return the box of the labels that a block is computed from."""
        return around(block.core, self.stage.reach, self.volume.shape)

    def uses(self) -> ChunkUses:
        """Count the blocks that read each chunk of the labels."""
        volume = self.volume
        return uses_of(self.grid.read_spans(), volume.shape, volume.chunks).along(volume.axes)

    def mask_uses(self) -> None:
        """Return nothing: there is no mask."""

    def number(self, block: Block) -> int:
        """Return the number of a block in the grid."""
        return int(np.ravel_multi_index(block.index, self.grid.counts))

    def survey(self, block: Block, reader: Reader | None = None) -> Pieces:
        """Report the pieces of components of a block that reach other blocks."""
        assert self.stage.step is not None
        labels, place = self._filtered(block, reader), Place(block.core, self.volume.shape)
        return survey(labels, self.stage.step, self._number(block), place, background=self.background)

    def cleaned(self, block: Block, reader: Reader | None = None) -> NDArray[Any]:
        """Return the labels ``(z, y, x)`` of a block after the stage."""
        labels = self._filtered(block, reader)
        if self.stage.step is None:
            return labels
        assert self.decisions is not None
        decided, place = self.decisions.of(self._number(block)), Place(block.core, self.volume.shape)
        return apply_step(labels, self.stage.step, place, decided, background=self.background)

    def _number(self, block: Block) -> int:
        return int(np.ravel_multi_index(block.index, self.grid.counts))

    def _filtered(self, block: Block, reader: Reader | None) -> NDArray[Any]:
        """Return the filtered labels of a block, and of one voxel around it for a step of components."""
        box = self.reads(block)
        labels = self.volume.read(box, reader)
        low, high, most = int(labels.min()), int(labels.max()), np.iinfo(self.dtype).max
        if low < 0 or high > most:
            raise InputError(
                f"{self.volume.source}: found label {low if low < 0 else high}, expected 0 to {most}"
            )
        labels = labels.astype(self.dtype, copy=False)
        for step in self.stage.filters:
            labels = apply_filter(labels, step, background=self.background)
        one = int(self.stage.step is not None)
        inner = around(block.core, (one, one, one), self.volume.shape)
        z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, box, strict=True))
        return labels[z, y, x]


def survey_block(block: Block) -> Pieces:
    """Report the pieces of components of a block; the task that engines hand to workers."""
    job: CleanJob = configuration()
    reader = reader_of(job)
    state = input_states(job, block)
    with computing():
        return job.survey(block, reader.of(state[0]))


def clean_block(block: Block) -> BlockReport:
    """Clean a block; this task is the only writer of its shard."""
    job: CleanJob = configuration()
    before = input_states(job, block)
    reader = reader_of(job)
    with computing():
        began = time.monotonic()
        labels = job.cleaned(block, reader.of(before[0]))
        counts = np.bincount(labels.ravel(), minlength=1)
        seconds = time.monotonic() - began
    inputs = check_unchanged(job, block, before)
    assert labels.shape == box_shape(block.core)
    job.store.write(block.core, labels)
    objects = job.store.object_checksums([block.index])[0]
    return BlockReport(
        block.index,
        labels.size,
        seconds,
        {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value},
        SeamDisagreement(),
        combined(objects),
        reader.newly_decoded(),
        peak_memory(),
        objects,
        inputs,
    )
