"""Boxes around the foreground objects of a label map, and its saliency mask (paper, section 4.3.1).

A map is boxed at once (:func:`find_objects`) or in blocks that tile it (:func:`label_block` on each, in any
order, then :func:`join_blocks`), to the same objects. Blocks agree as follows:
A block is labelled together with its halo, the voxels next to it on its low sides. Two touching voxels always
lie in one such extended block: along each axis, the higher of the two blocks that own them. There they are of
one component. What remains is to know a component of one block again in another, by the voxels that both
labelled: up to seven *contacts* of a halo with the blocks that own its voxels, by faces, edges and a corner.
Both blocks of a contact cut it into the same patches, connected voxels of one class, in the same order; so a
block reports one component for each patch, and no voxel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.quality.metrics import box_iou

Mode = Literal["multi", "single"]


Contact = tuple[Shape3, Shape3]
"""First voxel (z, y, x) of a contact of two blocks, and for each axis 1 if they differ along it, else 0."""

NAME_OF_SUPERBOX = "all foreground"

_FAR = np.iinfo(np.int32).max  # where a box without voxels starts, so that any other box takes over

_COMPACT = 200_000  # components held before those that nothing can touch any more are let go


@dataclass(frozen=True)
class Object:
    """A connected component of the foreground.

    Attributes
    ----------
    label
        Its class; 0 for the superbox, whose component is one of all foreground classes together.
    box
        Half-open, in pixels: ``(y0, x0, y1, x1)``, or ``(z0, y0, x0, z1, y1, x1)`` in 3D.
    size
        Pixels of the component (not of the box).
    superbox
        Whether this is the superbox.
    """

    label: int
    box: tuple[int, ...]
    size: int
    superbox: bool


@dataclass(frozen=True, eq=False)
class Components:
    """Measures of n connected components: a table of D-dimensional boxes.

    Attributes
    ----------
    labels
        ``(n,)`` int64: classes; 0 for components of all foreground classes together.
    sizes
        ``(n,)`` int64: pixels.
    boxes
        ``(n, 2 * D)`` int32, as in :class:`Object`; of a component without pixels, ends before it starts.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    boxes: NDArray[np.int32]

    def __getitem__(self, chosen: NDArray[Any]) -> Components:
        """Return those that a mask or an index array chooses."""
        return Components(self.labels[chosen], self.sizes[chosen], self.boxes[chosen])

    def merged(self, group: NDArray[Any]) -> Components:
        """Return the union of each group, of a member's class; ``group`` ``(n,)`` numbers them 0..m-1."""
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        lows, highs = np.split(self.boxes[order], 2, axis=1)
        return Components(
            self.labels[order][starts],
            np.add.reduceat(self.sizes[order], starts),
            np.hstack([np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)]),
        )


@dataclass(frozen=True, eq=False)
class BlockObjects:
    """What one block of a volume reports of its components.

    Attributes
    ----------
    origin
        First voxel of the block, without its halo: ``(z, y, x)`` in the volume.
    components
        n components of single classes, then those of all foreground classes together; boxes in voxels of the
        volume. Voxels of the halo do not count: a component that has no others is of size 0.
    part_of
        ``(n,)`` int32: index of the component of all foreground classes that each of a single class is in.
    contacts
        Components ``(patches,)`` int32 (indices below n) of the patches of each contact.
    """

    origin: Shape3
    components: Components
    part_of: NDArray[np.int32]
    contacts: Mapping[Contact, NDArray[np.int32]]


def foreground_mask(labels: NDArray[Any], foreground: Sequence[int]) -> NDArray[np.bool_]:
    """Return where integer labels of any shape are of a foreground class: the saliency mask (section 4.3.2).

    Raises
    ------
    InputError
        Labels are no integers, or a foreground class is below 1.
    """
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels: found values of type {labels.dtype}, expected integer labels")
    if any(value < 1 for value in foreground):
        raise InputError(f"foreground: found classes {sorted(foreground)}, expected them from 1")
    return np.isin(labels, np.asarray(foreground, np.int64))


def find_objects(
    labels: NDArray[Any],
    foreground: Sequence[int],
    *,
    min_size: int = 200,
    mode: Mode = "multi",
    superbox_iou: float = 0.8,
) -> tuple[Object, ...]:
    """Box the connected components of each foreground class, and the superbox (paper, section 4.3.1).

    The superbox is around the largest connected component of all foreground classes together: it mends
    objects that came apart into classes. Pixels that touch by a corner are connected.

    Parameters
    ----------
    labels
        ``(Y, X)`` or ``(Z, Y, X)`` integer labels.
    foreground
        Foreground classes, from 1. Those that the map lacks do no harm.
    min_size
        Least pixels of a component (the reference code's is 201). The superbox may have fewer, so that
        ``single`` gives every map with any foreground a box.
    mode
        ``multi``: all boxes; ``single``: the superbox only, and always.
    superbox_iou
        With ``multi``, the superbox is left out if its intersection over union with another box is larger.

    Returns
    -------
    tuple[Object, ...]
        The superbox, then the others by falling size, then by box and class. Empty without foreground.

    Raises
    ------
    InputError
        Labels are no integers or of another dimension, or a foreground class is below 1.
    """
    if labels.ndim not in (2, 3):
        raise InputError(f"labels: found shape {labels.shape}, expected (Y, X) or (Z, Y, X)")
    kept = np.where(foreground_mask(labels, foreground), labels, 0)
    _, components, _ = _measure(kept, (0,) * labels.ndim, (0,) * labels.ndim)
    return _choose(*_found(components, min_size), mode, superbox_iou)


def as_rows(
    objects: Iterable[Object], classes: Mapping[int, str] | None = None
) -> list[dict[str, int | str]]:
    """Return rows of a table: ``class``, ``superbox`` (0 or 1), ``size``, ``z0`` (not in 2D) .. ``x1``.

    With names of classes, ``name`` is that of the class; of the superbox :data:`NAME_OF_SUPERBOX`.
    """
    rows: list[dict[str, int | str]] = []
    for item in objects:
        axes = "zyx" if len(item.box) == 6 else "yx"
        names = [f"{axis}{end}" for end in (0, 1) for axis in axes]
        row: dict[str, int | str] = {"class": item.label, "superbox": int(item.superbox), "size": item.size}
        if classes is not None:
            row["name"] = classes.get(item.label, NAME_OF_SUPERBOX)
        rows.append(row | dict(zip(names, item.box, strict=True)))
    return rows


def label_block(
    labels: NDArray[Any], origin: Shape3, halo_low: Shape3, foreground: Sequence[int], *, open_high: Shape3
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

    Raises
    ------
    InputError
        Labels are no integers or not 3-D, or a foreground class is below 1.
    """
    if labels.ndim != 3:
        raise InputError(f"labels: found a block of shape {labels.shape}, expected (z, y, x)")
    kept = np.where(foreground_mask(labels, foreground), labels, 0)
    numbered, components, part_of = _measure(kept, origin, halo_low)
    return BlockObjects(origin, components, part_of, _contacts(kept, numbered, origin, halo_low, open_high))


def join_blocks(
    reports: Iterable[BlockObjects], *, min_size: int = 200, mode: Mode = "multi", superbox_iou: float = 0.8
) -> tuple[Object, ...]:
    """Join the components of blocks: the objects that :func:`find_objects` finds in the whole volume.

    Parameters
    ----------
    reports
        What :func:`label_block` gave for every block, in any order, read one at a time. What is held are
        objects, and components that reach a block which is still to come.
    min_size, mode, superbox_iou
        As for :func:`find_objects`.

    Raises
    ------
    InputError
        A block is there twice or missing, or the labels of two blocks differ where they meet.
    """
    joiner = _Joiner(min_size)
    for report in reports:
        joiner.add(report)
    return _choose(*joiner.finish(), mode, superbox_iou)


class _Joiner:
    """The components of blocks that came so far, as nodes of a graph whose edges mean "the same component".

    A node is a component of one class (label above 0) or of all foreground classes (label 0); edges join
    nodes of one kind. Two components that share a patch are the same, and so are those they are a part of.
    """

    def __init__(self, min_size: int) -> None:
        self._min_size = min_size
        self._nodes: list[Components] = []
        self._count = 0
        self._limit = _COMPACT
        self._edges: list[NDArray[np.int64]] = []  # (k, 2) nodes
        # Contacts whose other block is to come: (patches, 2) nodes, of the class and of all classes.
        self._waiting: dict[Contact, NDArray[np.int64]] = {}
        self._seen: set[Shape3] = set()
        self._objects: list[Object] = []
        self._largest: Object | None = None

    def add(self, report: BlockObjects) -> None:
        """Take in one block."""
        if report.origin in self._seen:
            raise InputError(f"block at {report.origin}: found twice, expected each block once")
        self._seen.add(report.origin)
        start, count = self._count, len(report.part_of)
        self._nodes.append(report.components)
        self._count += len(report.components.labels)
        nodes = start + np.stack([np.arange(count), report.part_of], axis=1)
        for key, numbers in report.contacts.items():
            mine = nodes[numbers]
            other = self._waiting.pop(key, None)
            if other is None:
                self._waiting[key] = mine
            elif len(other) != len(mine):
                found = f"{len(mine)} and {len(other)} patches at {key[0]}"
                raise InputError(f"blocks that meet: found {found}, expected the same labels in both")
            else:
                self._edges.append(np.stack([mine, other], axis=-1).reshape(-1, 2))
        if self._count > self._limit:
            self._compact()
            self._limit = max(_COMPACT, 2 * self._count)

    def finish(self) -> tuple[list[Object], Object | None]:
        """Return, once every block came, the objects and the largest component of all classes."""
        if self._waiting:
            (first, _), *_ = self._waiting
            found = f"{len(self._waiting)} contacts of one block only, the first at {first}"
            raise InputError(f"blocks: found {found}, expected all blocks of a grid")
        if self._count:
            self._compact()
        return self._objects, self._largest

    def _compact(self) -> None:
        """Merge joined nodes; let go of those that no waiting contact has, keeping what objects they are."""
        edges = np.concatenate([np.empty((0, 2), np.int64), *self._edges])
        graph = coo_array((np.ones(len(edges), np.bool_), edges.T), shape=(self._count, self._count))
        count, group = connected_components(graph, directed=False)
        merged = _stacked(self._nodes).merged(group)
        held = np.zeros(count, np.bool_)
        for nodes in self._waiting.values():
            held[group[nodes]] = True
        number = np.cumsum(held) - 1
        self._waiting = {key: number[group[nodes]] for key, nodes in self._waiting.items()}
        objects, largest = _found(merged[~held], self._min_size)
        self._objects += objects
        self._largest = min((item for item in (self._largest, largest) if item), key=_rank, default=None)
        self._nodes, self._edges, self._count = [merged[held]], [], int(held.sum())


def _measure(
    kept: NDArray[Any], origin: tuple[int, ...], halo_low: tuple[int, ...]
) -> tuple[NDArray[Any], Components, NDArray[np.int32]]:
    """Label and measure the components of a map that is 0 off the foreground.

    Returns the map of the numbers of those of single classes (from 1; 0 off the foreground), and
    ``components`` and ``part_of`` of :class:`BlockObjects`.
    """
    numbered, count = measure.label(kept, background=0, return_num=True, connectivity=kept.ndim)
    labels, part_of = np.zeros((2, count + 1), np.int64)
    labels[numbered] = kept
    part_of[numbered] = measure.label(kept > 0, connectivity=kept.ndim)
    inside = numbered[tuple(slice(halo, None) for halo in halo_low)]
    sizes = np.bincount(inside.ravel(), minlength=count + 1).astype(np.int64, copy=False)
    boxes = np.tile(np.repeat(np.array([_FAR, 0], np.int32), kept.ndim), (count, 1))
    for number, place in enumerate(ndimage.find_objects(inside, count)):
        if place is not None:
            boxes[number] = [axis.start for axis in place] + [axis.stop for axis in place]
    boxes[sizes[1:] > 0] += np.array(origin * 2, np.int32)
    single = Components(labels[1:], sizes[1:], boxes)
    united = Components(np.zeros(count, np.int64), sizes[1:], boxes).merged(part_of[1:] - 1)
    return numbered, _stacked([single, united]), (count - 1 + part_of[1:]).astype(np.int32)


def _contacts(
    kept: NDArray[Any], numbered: NDArray[Any], origin: Shape3, halo_low: Shape3, open_high: Shape3
) -> dict[Contact, NDArray[np.int32]]:
    """Return the component (from 0) of each patch of each contact; see :class:`BlockObjects`."""
    contacts: dict[Contact, NDArray[np.int32]] = {}
    lowest, highest = (0, 0, 0), tuple(size - 1 for size in kept.shape)
    for side in product((0, 1), (0, 1), (0, 1)):
        for ends, open_ in ((lowest, halo_low), (highest, open_high)):
            if not any(side) or any(step > free for step, free in zip(side, open_, strict=True)):
                continue
            # The axes along which the blocks differ have one voxel, the others are without the halo.
            starts = np.where(side, ends, halo_low)
            stops = np.where(side, starts + 1, kept.shape)
            where = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
            patches, count = measure.label(kept[where], background=0, return_num=True, connectivity=3)
            numbers = np.zeros(count + 1, np.int32)
            numbers[patches] = numbered[where]
            z, y, x = (starts + origin - halo_low).tolist()
            contacts[(z, y, x), side] = numbers[1:] - 1
    return contacts


def _stacked(tables: Iterable[Components]) -> Components:
    columns = zip(*((table.labels, table.sizes, table.boxes) for table in tables), strict=True)
    return Components(*map(np.concatenate, columns))


def _found(components: Components, min_size: int) -> tuple[list[Object], Object | None]:
    """Return objects of single classes, and the largest of all together: of equals, the first box."""
    single, united = components[components.labels > 0], components[components.labels == 0]
    united = united[united.sizes == united.sizes.max(initial=0)]
    return _objects(single[single.sizes >= min_size]), min(_objects(united), key=_rank, default=None)


def _objects(components: Components) -> list[Object]:
    columns = components.labels.tolist(), components.boxes.tolist(), components.sizes.tolist()
    return [Object(label, tuple(box), size, label == 0) for label, box, size in zip(*columns, strict=True)]


def _choose(
    objects: Iterable[Object], superbox: Object | None, mode: Mode, superbox_iou: float
) -> tuple[Object, ...]:
    """Return the objects asked for, in order; see :func:`find_objects`."""
    if superbox is None or mode == "single":
        return (superbox,) if superbox else ()
    others = tuple(sorted(objects, key=_rank))
    doubled = any(box_iou(superbox.box, item.box) > superbox_iou for item in others)
    return others if doubled else (superbox, *others)


def _rank(item: Object) -> tuple[int, tuple[int, ...], int]:
    return -item.size, item.box, item.label
