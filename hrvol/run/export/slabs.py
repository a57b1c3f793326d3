"""Read a volume slab by slab, and pass each slab to the writers of one or more files.

Memory is bounded: while one slab is written, the next one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.device import cpus
from hrvol.errors import InputError, ResourceError
from hrvol.progress import Tally, format_size
from hrvol.volume.exporters.content import Content, Format, PlaneWriter, Writing
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.volume import Volume

_SLABS = 4
"""Slabs that memory has to hold: one that is read, with a copy, one that is written, and one as a mask."""

_ENOUGH = 2**26
"""Bytes of a slab from which larger ones are no quicker."""

_THREADS = 256
"""Threads of all writers of a passage."""

MASKED = np.uint8(255)
"""Value of a class in its mask."""


@dataclass(frozen=True)
class Target:
    """A file to write.

    Attributes
    ----------
    path
        Where it will be.
    format, content
        What it will be.
    value
        Class whose mask it holds; ``None``: the values as they are.
    """

    path: Path
    format: Format
    content: Content
    value: int | None = None

    def of(self, planes: NDArray[Any]) -> NDArray[Any]:
        """Return what the file holds of planes."""
        return planes if self.value is None else (planes == self.value).view(np.uint8) * MASKED


def slab_planes(volume: Volume, box: Box, memory: int) -> int:
    """Return how many planes are read at once: whole chunks of the volume where memory suffices.

    Raises
    ------
    ResourceError
        Not even one plane fits.
    """
    depth, height, width = box_shape(box)
    plane = height * width * volume.dtype.itemsize
    most = memory // (_SLABS * plane)
    if most < 1:
        raise ResourceError(
            f"{volume.source}: found {format_size(memory)} of memory for an export,"
            f" expected at least {format_size(_SLABS * plane)} (--memory)"
        )
    chunk = volume.chunks[0]
    if most < chunk:
        return int(min(depth, 2 ** (int(most).bit_length() - 1)))
    wanted = chunk * max(1, -(-_ENOUGH // (chunk * plane)))
    return int(min(depth, wanted, most // chunk * chunk))


def slabs(volume: Volume, box: Box, planes: int) -> Iterator[NDArray[Any]]:
    """Yield the slabs of a box in order, each read while its predecessor is used."""
    z, y, x = box
    spans = [slice(start, min(start + planes, z.stop)) for start in range(z.start, z.stop, planes)]
    with ThreadPoolExecutor(1, "hrvol-export-read") as reader:
        following = reader.submit(volume.read, (spans[0], y, x))
        for span in [*spans[1:], None]:
            values = following.result()
            if span is not None:
                following = reader.submit(volume.read, (span, y, x))
            yield values
            del values


def write_planes(
    volume: Volume,
    box: Box,
    targets: Sequence[Target],
    place: Callable[[Path], Path],
    *,
    memory: int,
    compress: bool,
    tally: Tally,
) -> None:
    """Write a box of a volume to files; several ones in one passage.

    Parameters
    ----------
    volume, box
        What is read.
    targets
        What is written.
    place
        Returns where the file with a path is written.
    memory
        Bytes for slabs.
    compress
        Whether to compress.
    tally
        Counts the voxels.
    """
    planes = slab_planes(volume, box, memory)
    # Each writer has its own threads, which wait for their turn.
    writing = Writing(planes, max(1, min(cpus(), _THREADS // len(targets))), compress)
    with ExitStack() as stack:
        writers: list[PlaneWriter] = [
            stack.enter_context(target.format.open(place(target.path), target.content, writing))
            for target in targets
        ]
        for number, slab in enumerate(slabs(volume, box, planes)):
            for target, writer in zip(targets, writers, strict=True):
                writer.write(target.of(slab))
            tally.finish((volume.name, targets[0].path, number), slab.size)


def label_values(volume: Volume, box: Box, most: int, *, memory: int, tally: Tally) -> tuple[int, ...]:
    """Return the label values above 0 that occur in a box.

    Raises
    ------
    InputError
        There are more than ``most``, or negative ones.
    """
    found: set[int] = set()
    for number, slab in enumerate(slabs(volume, box, slab_planes(volume, box, memory))):
        found |= set(np.unique(slab).tolist())
        if min(found) < 0 or len(found) > most + 1:
            what = f"label {min(found)}" if min(found) < 0 else f"more than {most} labels"
            raise InputError(f"{volume.source}: found {what}, expected at most {most} classes from 1 on")
        tally.finish(number, slab.size)
    return tuple(sorted(found - {0}))
