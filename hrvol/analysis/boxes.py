"""Find the objects of a labelled volume block by block on an engine, and write their boxes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrvol.analysis.object_blocks import BlockObjects, join_blocks, label_block
from hrvol.analysis.objects import Object, as_rows
from hrvol.arrays import Shape3
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.task import configuration
from hrvol.errors import BlockError
from hrvol.files import atomic_write
from hrvol.progress import ProgressCallback, Tally
from hrvol.volume.grid.tiling import Block, grid
from hrvol.volume.volume import Volume


@dataclass(frozen=True)
class BoxesJob:
    """The configuration of a worker.

    Attributes
    ----------
    labels
        The labels ``(Z, Y, X)``.
    foreground
        Foreground classes.
    last
        Index (z, y, x) of the last block of the grid.
    """

    labels: Volume
    foreground: tuple[int, ...]
    last: Shape3


def find_boxes(
    labels: Volume,
    foreground: Sequence[int],
    block_shape: Shape3,
    *,
    min_size: int = 200,
    engine: EngineSpec | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Object, ...]:
    """Find the objects of a labelled volume: connected components of its foreground classes.

    Each block is read once; components that span blocks are joined from the blocks' reports. Objects of an
    image have boxes ``(y0, x0, y1, x1)``.

    Parameters
    ----------
    labels
        The labels.
    foreground
        Foreground classes; without any there are no objects.
    block_shape
        Voxels (z, y, x) of the blocks that are read.
    min_size
        Least voxels of an object.
    engine
        The engine; ``None``: this process.
    progress
        Called with stage, voxels done, all voxels.

    Raises
    ------
    BlockError
        A block could not be read.
    """
    if not foreground:
        return ()
    pieces = grid(labels.shape, block_shape)
    job = BoxesJob(labels, tuple(foreground), pieces[-1].index)
    tally = Tally(progress, "boxes", math.prod(labels.shape))

    def reports() -> Iterator[BlockObjects]:
        with open_engine((engine or EngineSpec()).limited(len(pieces)), job) as opened:
            for outcome in opened.map_bounded(block_objects, pieces):
                if outcome.value is None:
                    raise BlockError(f"{labels.source}: block {outcome.task.index}: {outcome.error}")
                tally.finish(outcome.task.index, math.prod(outcome.task.shape))
                yield outcome.value

    objects = join_blocks(reports(), min_size=min_size)
    return tuple(_flat(item) for item in objects) if labels.ndim == 2 else objects


def block_objects(block: Block) -> BlockObjects:
    """Find the components of one block; the task that an engine runs on workers."""
    job: BoxesJob = configuration()
    low = tuple(int(i > 0) for i in block.index)
    high = tuple(int(i < last) for i, last in zip(block.index, job.last, strict=True))
    spans = [slice(span.start - halo, span.stop) for span, halo in zip(block.core, low, strict=True)]
    z, y, x = spans
    origin = tuple(span.start for span in block.core)
    return label_block(
        job.labels.read((z, y, x)), _triple(origin), _triple(low), job.foreground, open_high=_triple(high)
    )


def write_boxes(path: str | Path, objects: Iterable[Object], names: Mapping[int, str], ndim: int) -> None:
    """Write objects as CSV: class, name, superbox, size in voxels, and half-open boxes in voxels.

    The file is written whole or not at all.
    """
    axes = "zyx"[-ndim:]
    fields = ["class", "name", "superbox", "size", *(f"{axis}{end}" for end in (0, 1) for axis in axes)]
    with atomic_write(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(as_rows(objects, names))


def _flat(item: Object) -> Object:
    _, y0, x0, _, y1, x1 = item.box
    return Object(item.label, (y0, x0, y1, x1), item.size, item.superbox)


def _triple(values: Sequence[int]) -> Shape3:
    z, y, x = values
    return z, y, x
