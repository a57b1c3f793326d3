"""Remove small components and fill holes block by block, as on the whole map.

Each block is labelled twice. The *survey* reports the pieces of components that reach other blocks; joined,
they are the components of the whole volume, and are decided on in one place. Then each block is labelled
again, in the same way: pieces that reach other blocks are changed as was decided, the others by the block
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from hrvol.analysis.cleaning.joining import NO_LABEL, Pieces, most_frequent
from hrvol.analysis.cleaning.steps import FILL, LARGEST, REMOVE, Step
from hrvol.analysis.object_blocks import contacts_of
from hrvol.arrays import Shape3
from hrvol.volume.grid.tiling import Box, box_shape


@dataclass(frozen=True)
class Place:
    """Where the map of a block with its surroundings lies.

    Attributes
    ----------
    core
        Voxels of the block in the volume.
    shape
        Of the volume.
    """

    core: Box
    shape: Shape3

    @property
    def low(self) -> Shape3:
        """Voxels of the map on the low side of the block: 1 along axes with blocks there, else 0."""
        z, y, x = (int(span.start > 0) for span in self.core)
        return z, y, x

    @property
    def high(self) -> Shape3:
        """The same of the high side."""
        z, y, x = (int(span.stop < side) for span, side in zip(self.core, self.shape, strict=True))
        return z, y, x

    @property
    def origin(self) -> Shape3:
        """First voxel of the block."""
        z, y, x = (span.start for span in self.core)
        return z, y, x

    @property
    def inside(self) -> Box:
        """The block in its map."""
        z, y, x = (
            slice(before, before + length)
            for before, length in zip(self.low, box_shape(self.core), strict=True)
        )
        return z, y, x

    @property
    def labelled(self) -> Box:
        """The block and what is on its low sides, in its map."""
        z, y, x = (slice(0, span.stop) for span in self.inside)
        return z, y, x


def survey(labels: NDArray[Any], step: Step, block: int, place: Place, *, background: bool = False) -> Pieces:
    """Report the pieces of components in a block that reach other blocks.

    Parameters
    ----------
    labels
        ``(z, y, x)`` of the block and of one voxel around it, where the volume does not end.
    step
        ``remove``, ``keep-largest`` or ``fill``.
    block, place
        Number of the block, and where it lies.
    background
        As for :func:`hrvol.analysis.cleaning.filters.apply_filter`.
    """
    found = _Found.of(labels, step, place)
    # Holes are of one kind, and components are recognised by label.
    contacts = contacts_of(
        found.kept, found.numbered, place.origin, place.low, place.high, found.connectivity
    )
    reaching = np.unique(np.concatenate([np.empty(0, np.int32), *contacts.values()])).astype(np.int32)
    sizes, values, firsts = found.sizes, found.values, found.firsts(place)
    removable = np.zeros(len(sizes), np.bool_)
    removable[reaching + 1] = True
    if step.name == REMOVE:
        assert step.least is not None
        removable &= sizes < step.least
    around = np.empty((0, 3), np.int64)
    if step.name != FILL and step.into is None:
        around = found.around(labels, place, removable, background)
        around[:, 0] = np.searchsorted(reaching, around[:, 0] - 1)
    return Pieces(
        block,
        reaching + 1,
        values[reaching + 1],
        sizes[reaching + 1],
        firsts[reaching + 1],
        found.at_border(place)[reaching + 1],
        around,
        {key: np.searchsorted(reaching, nodes).astype(np.int32) for key, nodes in contacts.items()},
        _best(sizes, values, firsts, reaching + 1) if step.name == LARGEST else {},
    )


def apply_step(
    labels: NDArray[Any],
    step: Step,
    place: Place,
    decided: tuple[NDArray[np.int32], NDArray[np.int64]],
    *,
    background: bool = False,
) -> NDArray[Any]:
    """Return the labels of a block after a step.

    Parameters
    ----------
    labels, step, place, background
        As for :func:`survey`.
    decided
        Components of the block and their labels, of :meth:`Decisions.of`.
    """
    found = _Found.of(labels, step, place)
    count = len(found.sizes)
    if step.name == FILL:
        own = ~found.at_border(place)
        if step.least is not None:
            own &= found.sizes < step.least
    else:
        own = np.ones(count, np.bool_)
        if step.name == REMOVE:
            assert step.least is not None
            own = found.sizes < step.least
    own[0] = False
    own[_reaching(found.numbered, place)] = False
    target = found.values.copy()
    numbers, values = decided
    own[numbers] = False
    if step.name == FILL:
        target[own] = step.classes[0]
    elif step.into is not None:
        target[own] = step.into
    else:
        around = found.around(labels, place, own, background)
        best = most_frequent(around, count)
        target = np.where(own & (best != NO_LABEL), best, target)
        own &= best != NO_LABEL
    target[numbers] = values
    changes = own
    changes[numbers] = True
    core = labels[place.inside].copy()
    of_core = found.numbered[place.inside]
    where = changes[of_core]
    core[where] = target[of_core[where]]
    return core


@dataclass(frozen=True, eq=False)
class _Found:
    """The components of a block and of what is on its low sides, numbered from 1."""

    kept: NDArray[Any]
    numbered: NDArray[Any]
    connectivity: int
    sizes: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[Any], step: Step, place: Place) -> _Found:
        part = labels[place.labelled]
        if step.name == FILL:  # what a class of whole bodies encloses is connected by faces
            kept, connectivity = (part != step.classes[0]).astype(np.uint8), 1
        else:
            kept, connectivity = np.where(np.isin(part, step.classes), part, 0), 3
        numbered, count = measure.label(kept, background=0, return_num=True, connectivity=connectivity)
        sizes = np.bincount(numbered[place.inside].ravel(), minlength=count + 1).astype(np.int64)
        values = np.zeros(count + 1, np.int64)
        if step.name != FILL:
            values[numbered] = kept
        return cls(kept, numbered, connectivity, sizes, values)

    def firsts(self, place: Place) -> NDArray[np.int64]:
        """Return the position of the first voxel of each component in the volume."""
        core = self.numbered[place.inside].ravel()
        firsts = np.full(len(self.sizes), np.iinfo(np.int64).max)
        present, places = np.unique(core, return_index=True)
        local = np.unravel_index(places, box_shape(place.core))
        whole = [axis + start for axis, start in zip(local, place.origin, strict=True)]
        firsts[present] = np.ravel_multi_index(whole, place.shape)
        return firsts

    def at_border(self, place: Place) -> NDArray[np.bool_]:
        """Return which components reach a border of the volume; an image has none along z."""
        reached = np.zeros(len(self.sizes), np.bool_)
        core = self.numbered[place.inside]
        for axis in range(3):
            if place.shape[axis] > 1:
                if not place.low[axis]:
                    reached[np.take(core, 0, axis)] = True
                if not place.high[axis]:
                    reached[np.take(core, -1, axis)] = True
        return reached

    def around(
        self, labels: NDArray[Any], place: Place, wanted: NDArray[np.bool_], background: bool
    ) -> NDArray[np.int64]:
        """Return ``(m, 3)``: component, label, faces; for wanted components and other labels."""
        core = labels[place.inside]
        numbered = self.numbered[place.inside]
        keys, radix = [], int(labels.max()) + 1
        for axis in range(3):
            for ends, step in ((place.low, -1), (place.high, 1)):
                spans = list(place.inside)
                span = slice(spans[axis].start + step, spans[axis].stop + step)
                own = [slice(None)] * 3
                if not ends[axis]:  # the border of the volume
                    own[axis] = slice(1, None) if step < 0 else slice(None, -1)
                    cut = (1, 0) if step < 0 else (0, -1)
                    span = slice(span.start + cut[0], span.stop + cut[1])
                spans[axis] = span
                of_voxel, value, other = numbered[tuple(own)], core[tuple(own)], labels[tuple(spans)]
                meets = wanted[of_voxel] & (other != value)
                keys.append(of_voxel[meets].astype(np.int64) * radix + other[meets].astype(np.int64))
        found, counts = np.unique(np.concatenate(keys), return_counts=True)
        table = np.stack([found // radix, found % radix, counts], axis=1)
        if not background:
            table[table[:, 1] == 0, 2] = 0  # only where there is nothing else
        return table


def _reaching(numbered: NDArray[Any], place: Place) -> NDArray[Any]:
    """Return the numbers of the components that reach another block."""
    planes = [np.empty(0, numbered.dtype)]
    for axis in range(3):
        for there, end in ((place.low[axis], 0), (place.high[axis], -1)):
            if there:
                planes.append(np.take(numbered, end, axis).ravel())
    return np.unique(np.concatenate(planes))


def _best(
    sizes: NDArray[np.int64], values: NDArray[np.int64], firsts: NDArray[np.int64], others: NDArray[np.int32]
) -> dict[int, tuple[int, int, int]]:
    """Return the largest component of each label among those inside the block."""
    inside = np.ones(len(sizes), np.bool_)
    inside[0] = False
    inside[others] = False
    numbers = np.flatnonzero(inside)
    order = numbers[np.lexsort((firsts[numbers], -sizes[numbers], values[numbers]))]
    labels, first = np.unique(values[order], return_index=True)
    return {
        int(label): (int(sizes[number]), int(firsts[number]), int(number))
        for label, number in zip(labels, order[first], strict=True)
    }
