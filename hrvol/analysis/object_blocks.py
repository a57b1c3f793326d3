"""Find the objects of a label map in blocks: as :func:`hrvol.analysis.objects.find_objects` on the whole map.

A block is labelled together with its halo, the voxels next to it on its low sides. Two touching voxels always
lie in one such extended block: along each axis, that of the higher of their two owners. There they are in one
component. A component of one block is recognised in another by the voxels that both labelled: up to seven
*contacts* of a halo with the blocks that own its voxels, by faces, edges and a corner. Both blocks of a
contact divide it into the same patches, connected voxels of one class, in the same order; so a block reports
one component for each patch, and no voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure

from hrvol.analysis.objects import (
    Components,
    Mode,
    Object,
    foreground_mask,
    measure_components,
    rank,
    select_objects,
)
from hrvol.arrays import Shape3
from hrvol.errors import InputError

Contact = tuple[Shape3, Shape3]
"""First voxel (z, y, x) of a contact of two blocks, and for each axis 1 if they differ along it, else 0."""

_COMPACT = 200_000  # components held before those that no later block can touch are released


@dataclass(frozen=True, eq=False)
class BlockObjects:
    """The components of one block of a volume.

    Attributes
    ----------
    origin
        First voxel of the block, without its halo: ``(z, y, x)`` in the volume.
    components
        n components of single classes, then those of all foreground classes together; boxes in voxels of the
        volume. Voxels of the halo do not count: a component that has no others is of size 0.
    united_of
        ``(n,)`` int32: index of the component of all foreground classes that holds each of a single class.
    contacts
        Components ``(patches,)`` int32 (indices below n) of the patches of each contact.
    """

    origin: Shape3
    components: Components
    united_of: NDArray[np.int32]
    contacts: Mapping[Contact, NDArray[np.int32]]


def label_block(
    labels: NDArray[Any],
    origin: Shape3,
    halo_low: Shape3,
    foreground: Sequence[int],
    *,
    open_high: Shape3,
    sums: Callable[[NDArray[Any], int], NDArray[np.int64]] | None = None,
) -> BlockObjects:
    """Find the components of one block of a grid of blocks.

    Parameters
    ----------
    labels
        ``(z, y, x)`` integer labels of the block and its halo: one voxel more on the low side of each axis
        that has blocks there.
    origin
        First voxel of the block, without the halo, in the volume.
    halo_low, open_high
        For each axis, 1 if there are blocks on the low side (hence a halo), and on the high side, else 0.
    foreground
        Foreground classes, from 1; the same for all blocks.
    sums
        As for :func:`hrvol.analysis.objects.measure_components`.

    Raises
    ------
    InputError
        Labels are not integers or not 3-D, or a foreground class is below 1.
    """
    if labels.ndim != 3:
        raise InputError(f"labels: found a block of shape {labels.shape}, expected (z, y, x)")
    kept = np.where(foreground_mask(labels, foreground), labels, 0)
    numbered, components, united_of = measure_components(kept, origin, halo_low, sums)
    return BlockObjects(
        origin, components, united_of, contacts_of(kept, numbered, origin, halo_low, open_high)
    )


def join_blocks(
    reports: Iterable[BlockObjects], *, min_size: int = 200, mode: Mode = "multi", superbox_iou: float = 0.8
) -> tuple[Object, ...]:
    """Join the components of blocks into the objects of the whole volume.

    Parameters
    ----------
    reports
        The result of :func:`label_block` for every block, in any order, read one at a time. Held in memory
        are objects, and components that reach a block which is still missing.
    min_size, mode, superbox_iou
        As for :func:`hrvol.analysis.objects.find_objects`.

    Raises
    ------
    InputError
        A block occurs twice or is missing, or the labels of two blocks differ where they meet.
    """
    joiner = _Joiner(min_size)
    for report in reports:
        joiner.add(report)
    return select_objects(*joiner.finish(), mode, superbox_iou)


def join_components(reports: Iterable[BlockObjects], take: Callable[[Components], None]) -> None:
    """Join the components of blocks, and hand them over as they become whole.

    Parameters
    ----------
    reports
        As for :func:`join_blocks`.
    take
        Called with whole components of single classes, and those of all foreground classes (label 0); in an
        order that depends on that of the reports.

    Raises
    ------
    InputError
        As for :func:`join_blocks`.
    """
    joiner = _Joiner(take=take)
    for report in reports:
        joiner.add(report)
    joiner.finish()


class _Joiner:
    """The components of the blocks so far, as nodes of a graph whose edges mean "the same component".

    A node is a component of one class (label above 0) or of all foreground classes (label 0); edges join
    nodes of one kind. Two components that share a patch are the same, and so are those that hold them.
    """

    def __init__(self, min_size: int = 1, take: Callable[[Components], None] | None = None) -> None:
        self._min_size, self._take = min_size, take
        self._nodes: list[Components] = []
        self._count = 0
        self._limit = _COMPACT
        self._edges: list[NDArray[np.int64]] = []  # (k, 2) nodes
        # Contacts whose other block is still missing: (patches, 2) nodes, of the class and of all classes.
        self._waiting: dict[Contact, NDArray[np.int64]] = {}
        self._seen: set[Shape3] = set()
        self._objects: list[Object] = []
        self._largest: Object | None = None

    def add(self, report: BlockObjects) -> None:
        """Add the components of one block."""
        if report.origin in self._seen:
            raise InputError(f"block at {report.origin}: found twice, expected each block once")
        self._seen.add(report.origin)
        start, count = self._count, len(report.united_of)
        self._nodes.append(report.components)
        self._count += len(report.components.labels)
        nodes = start + np.stack([np.arange(count), report.united_of], axis=1)
        for key, numbers in report.contacts.items():
            patches = nodes[numbers]
            other = self._waiting.pop(key, None)
            if other is None:
                self._waiting[key] = patches
            elif len(other) != len(patches):
                raise InputError(
                    f"adjacent blocks: found {len(patches)} and {len(other)} patches at {key[0]},"
                    " expected the same labels in both"
                )
            else:
                self._edges.append(np.stack([patches, other], axis=-1).reshape(-1, 2))
        if self._count > self._limit:
            self._compact()
            self._limit = max(_COMPACT, 2 * self._count)

    def finish(self) -> tuple[list[Object], Object | None]:
        """Return the objects and the largest component of all classes, after the last block."""
        if self._waiting:
            (first, _), *_ = self._waiting
            raise InputError(
                f"blocks: found {len(self._waiting)} contacts of one block only, the first at {first},"
                " expected all blocks of a grid"
            )
        if self._count:
            self._compact()
        return self._objects, self._largest

    def _compact(self) -> None:
        """Merge joined nodes, and turn those without a waiting contact into objects."""
        edges = np.concatenate([np.empty((0, 2), np.int64), *self._edges])
        graph = coo_array((np.ones(len(edges), np.bool_), edges.T), shape=(self._count, self._count))
        count, group = connected_components(graph, directed=False)
        merged = Components.concatenated(self._nodes).merged(group)
        waiting = np.zeros(count, np.bool_)
        for nodes in self._waiting.values():
            waiting[group[nodes]] = True
        number = np.cumsum(waiting) - 1
        self._waiting = {key: number[group[nodes]] for key, nodes in self._waiting.items()}
        if self._take is not None:
            self._take(merged[~waiting])
        else:
            objects, largest = merged[~waiting].to_objects(self._min_size)
            self._objects += objects
            self._largest = min((item for item in (self._largest, largest) if item), key=rank, default=None)
        self._nodes, self._edges, self._count = [merged[waiting]], [], int(waiting.sum())


def contacts_of(
    kept: NDArray[Any],
    numbered: NDArray[Any],
    origin: Shape3,
    halo_low: Shape3,
    open_high: Shape3,
    connectivity: int = 3,
) -> dict[Contact, NDArray[np.int32]]:
    """Return the component (from 0) of each patch of each contact; see :class:`BlockObjects`.

    Parameters
    ----------
    kept, numbered
        ``(z, y, x)`` labels, 0 off the foreground, and the number of each voxel's component, from 1.
    origin, halo_low, open_high
        As for :func:`label_block`.
    connectivity
        With which components were found: 1 (faces) to 3 (faces, edges and corners).
    """
    contacts: dict[Contact, NDArray[np.int32]] = {}
    lowest, highest = (0, 0, 0), tuple(size - 1 for size in kept.shape)
    for side in product((0, 1), (0, 1), (0, 1)):
        for ends, adjacent in ((lowest, halo_low), (highest, open_high)):
            if not any(side) or any(step > more for step, more in zip(side, adjacent, strict=True)):
                continue
            # The axes along which the blocks differ have one voxel, the others are without the halo.
            starts = np.where(side, ends, halo_low)
            stops = np.where(side, starts + 1, kept.shape)
            contact = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
            patches, count = measure.label(
                kept[contact], background=0, return_num=True, connectivity=connectivity
            )
            numbers = np.zeros(count + 1, np.int32)
            numbers[patches] = numbered[contact]
            z, y, x = (starts + origin - halo_low).tolist()
            contacts[(z, y, x), side] = numbers[1:] - 1
    return contacts
