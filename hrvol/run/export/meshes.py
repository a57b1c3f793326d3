"""Write a mesh per class, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.progress import Tally
from hrvol.volume.exporters.content import Content
from hrvol.volume.exporters.mesh_files import MeshFormat
from hrvol.volume.exporters.surface import MOST_SIDE, mesh_blocks, surface_of
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.volume import Volume

_BYTES_PER_VOXEL = 64
"""Of a block that is meshed: labels twice, a mask, scikit-image's copies, and triangles."""

_SIDES = (64, 256)
"""Shortest and longest side of a block, in voxels."""


@dataclass(frozen=True)
class MeshTarget:
    """A mesh to write: of which class, and where."""

    path: Path
    format: MeshFormat
    content: Content
    value: int


def write_meshes(
    volume: Volume,
    box: Box,
    targets: Sequence[MeshTarget],
    place: Callable[[Path], Path],
    *,
    memory: int,
    tally: Tally,
) -> tuple[MeshTarget, ...]:
    """Write the surfaces of classes, closed at the faces of the box; parameters as for ``write_planes``.

    Returns
    -------
    tuple of MeshTarget
        Classes without a voxel, of which no file is left.
    """
    shape = box_shape(box)
    if max(shape) > MOST_SIDE:
        raise InputError(f"{volume.source}: found shape {shape}, expected sides of at most {MOST_SIDE:,}")
    side = _side(memory)
    empty = set(range(len(targets)))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(target.format.open(place(target.path), target.content)) for target in targets
        ]
        for index, block, labels in _blocks(volume, box, side):
            present = set(np.unique(labels).tolist())
            for number, (target, writer) in enumerate(zip(targets, writers, strict=True)):
                if target.value not in present:
                    continue
                surface = surface_of(labels == target.value, (block[0].start, block[1].start, block[2].start))
                if surface is not None:
                    writer.write(index, block, surface)
                    empty.discard(number)
            tally.finish(index, _owned(block, shape))
    for number in empty:
        place(targets[number].path).unlink()
    return tuple(targets[number] for number in sorted(empty))


def _side(memory: int) -> int:
    longest = round(math.cbrt(memory / _BYTES_PER_VOXEL))
    return min(max(longest // 64 * 64, _SIDES[0]), _SIDES[1])


def _owned(block: Box, shape: tuple[int, int, int]) -> int:
    """Return how many voxels of the volume are the low corners of a block's cells."""
    return math.prod(
        max(min(s.stop - 1, n) - max(s.start - 1, 0), 0) for s, n in zip(block, shape, strict=True)
    )


def _blocks(volume: Volume, box: Box, side: int) -> Iterator[tuple[tuple[int, int, int], Box, NDArray[Any]]]:
    """Yield blocks with their labels and one more plane at the far sides, each read in advance.

    Outside of the box labels are 0.
    """
    shape = box_shape(box)

    def read(block: Box) -> NDArray[Any]:
        sides = [span.stop - span.start + 1 for span in block]
        labels = np.zeros(sides, volume.dtype)
        inside, target = [], []
        for span, whole, length in zip(block, box, shape, strict=True):
            # Voxel i of the box is at i + 1 of the padded one.
            start, stop = max(span.start - 1, 0), min(span.stop, length)
            inside.append(slice(whole.start + start, whole.start + stop))
            target.append(slice(start + 1 - span.start, stop + 1 - span.start))
        if all(span.start < span.stop for span in inside):
            labels[tuple(target)] = volume.read((inside[0], inside[1], inside[2]))
        return labels

    blocks = list(mesh_blocks(shape, (side, side, side)))
    with ThreadPoolExecutor(1, "hrvol-export-read") as reader:
        following = reader.submit(read, blocks[0][1])
        for number, (index, block) in enumerate(blocks):
            labels = following.result()
            if number + 1 < len(blocks):
                following = reader.submit(read, blocks[number + 1][1])
            yield index, block, labels
