"""Coarser levels of images and labels, made from the level before on disk.

Memory is bounded whatever the size of the volume: one shard of the coarser level is made at a time, from the
eight (or four) times larger box of the finer one. Parts of a level may be made by several processes, in any
order, and again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.metadata import ArrayV2Metadata

from hrvol.arrays import Spacing3
from hrvol.errors import InputError
from hrvol.volume.grid.tiling import shard_and_chunk
from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.output import ensure_array
from hrvol.volume.storage.location import Location

Reduction = Literal["mode", "mean"]

Factor = tuple[int, int, int]

T = TypeVar("T")

STOP_SIDE = 256
"""No coarser level is made of one whose sides are all this short."""

_THIN = 32

_ANISOTROPIC = 1.9


def next_factor(shape: tuple[int, int, int], voxel_size: Spacing3) -> Factor | None:
    """Return by how much the next level is coarser, per axis.

    Planes are halved. Depth is halved with them unless it is small, or planes lie about twice as far
    apart as pixels or more: it waits until halved pixels have caught up.

    Parameters
    ----------
    shape, voxel_size
        Of the level, (z, y, x).

    Returns
    -------
    tuple of int, or None
        1 or 2 per axis; ``None`` if the level is small enough to be the last.
    """
    depth, height, width = shape
    if max(shape) <= STOP_SIDE:
        return None
    dz, dy, dx = voxel_size
    deep = depth > _THIN and dz < _ANISOTROPIC * min(dy, dx)
    if max(height, width) <= STOP_SIDE and not deep:
        return None
    return (2 if deep else 1, 2 if height > 1 else 1, 2 if width > 1 else 1)


def mode_reduce(labels: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    """Take the commonest label of each cell of voxels.

    Parameters
    ----------
    labels
        Unsigned integers (z, y, x). Where an axis does not divide, the last cell holds what is there.
    factor
        Voxels per cell, (z, y, x).

    Returns
    -------
    numpy.ndarray
        Same type, (ceil(z / fz), ...). Of equally common labels the smallest that is not 0 wins.
    """
    # Repeating the last voxel doubles all counts of a cut cell, and so changes no winner.
    padded = _pad(labels, factor)
    fz, fy, fx = factor
    out = np.empty(tuple(n // f for n, f in zip(padded.shape, factor, strict=True)), labels.dtype)
    for k in range(len(out)):  # a plane at a time: all voters of a whole shard would take twice its memory
        voters = (padded[k * fz + a, b::fy, c::fx] for a, b, c in product(range(fz), range(fy), range(fx)))
        out[k] = _vote([np.ascontiguousarray(voter) for voter in voters])
    return out


def mean_reduce(image: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    """Average each cell of voxels; integers are rounded, halves up. Shapes as for :func:`mode_reduce`."""
    padded = _pad(image, factor)
    fz, fy, fx = factor
    whole_numbers = image.dtype.kind in "iu"
    exact = {"i": np.int64, "u": np.uint64}.get(image.dtype.kind, np.float64)
    out = np.empty(tuple(n // f for n, f in zip(padded.shape, factor, strict=True)), image.dtype)
    cell = fz * fy * fx
    for k in range(len(out)):  # a plane at a time: sums of a whole shard would take three times its memory
        total = np.zeros(out.shape[1:], exact)
        for a, b, c in product(range(fz), range(fy), range(fx)):
            total += padded[k * fz + a, b::fy, c::fx]
        out[k] = (2 * total + cell) // (2 * cell) if whole_numbers else total / cell
    return out


@dataclass(frozen=True)
class LevelPlan:
    """A coarser level that is to be made, in parts that are each one shard (of each row of channels).

    Attributes
    ----------
    axes
        Of its array: ``zyx`` or ``yx``, with ``c`` before them or not.
    finer
        Path of the level that it is made of.
    level
        Its path, voxel size and position. A coarser voxel's centre is that of its cell.
    shape, shards, chunks
        Of its array, as stored.
    factor
        By how much it is coarser, (z, y, x).
    """

    axes: str
    finer: str
    level: Level
    shape: tuple[int, ...]
    shards: tuple[int, ...]
    chunks: tuple[int, ...]
    factor: Factor

    @property
    def lead(self) -> int:
        """Number of axes before the spatial ones."""
        return self.axes.count("c")

    @property
    def parts(self) -> int:
        """Number of parts."""
        return math.prod(self._counts)

    def box(self, part: int) -> tuple[slice, ...]:
        """Return the voxels of a part, as slices of the spatial axes."""
        index = np.unravel_index(part, self._counts)
        spatial = zip(index, self.shards[self.lead :], self.shape[self.lead :], strict=True)
        return tuple(slice(int(i) * step, min((int(i) + 1) * step, side)) for i, step, side in spatial)

    @property
    def _counts(self) -> tuple[int, ...]:
        spatial = zip(self.shape[self.lead :], self.shards[self.lead :], strict=True)
        return tuple(-(-side // step) for side, step in spatial)


@dataclass(frozen=True)
class ImagePlan:
    """An image, and the coarser levels it shall have.

    Attributes
    ----------
    path
        Of its group.
    axes, unit
        Of its arrays.
    reduction
        How a coarser level is made.
    first
        The finest level.
    levels
        The coarser ones.
    """

    path: str
    axes: str
    unit: str | None
    reduction: Reduction
    first: Level
    levels: tuple[LevelPlan, ...]


class HasLevels(Protocol):
    """A store whose images get coarser levels."""

    @property
    def location(self) -> Location:
        """Where it is."""
        ...

    @property
    def block_shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of a part."""
        ...

    @property
    def images(self) -> tuple[ImagePlan, ...]:
        """What it holds, and what is to be made of it."""
        ...

    def make_level(self, image: int, level: int) -> None:
        """Make the empty array of the ``level``-th coarser level of an image."""
        ...

    def make_part(self, image: int, level: int, part: int) -> None:
        """Make one part of a coarser level; any number of processes may make different ones."""
        ...


def plan_levels(
    shape: tuple[int, ...],
    axes: str,
    first: Level,
    block: tuple[int, int, int],
    channels_per_shard: int = 1,
) -> tuple[LevelPlan, ...]:
    """Plan the coarser levels ``1``, ``2``, ... of an array.

    Parameters
    ----------
    shape, axes
        Of the array, as stored: ``zyx`` or ``yx``, with ``c`` before them or not.
    first
        Its level, the finest.
    block
        Shape (z, y, x) of shards.
    channels_per_shard
        Channels that share a shard, if there are channels.
    """
    lead = axes.count("c")
    flat = 3 - (len(axes) - lead)
    plans: list[LevelPlan] = []
    previous, sides = first, _triple((1,) * flat + shape[lead:])
    while True:
        factor = next_factor(sides, _triple((1.0,) * flat + previous.scale[lead:]))
        if factor is None:
            return tuple(plans)
        sides = _triple(tuple(-(-n // f) for n, f in zip(sides, factor, strict=True)))
        shards, chunks = shard_and_chunk(sides, block)
        cell = (1,) * lead + factor[flat:]
        moved = (
            t + 0.5 * (f - 1) * s for t, s, f in zip(previous.translation, previous.scale, cell, strict=True)
        )
        scale = (s * f for s, f in zip(previous.scale, cell, strict=True))
        level = Level(str(len(plans) + 1), tuple(scale), tuple(moved))
        plans.append(
            LevelPlan(
                axes,
                previous.path,
                level,
                shape[:lead] + sides[flat:],
                (min(channels_per_shard, shape[0]),) * lead + shards[flat:],
                (1,) * lead + chunks[flat:],
                factor,
            )
        )
        previous = level


def make_level(group: zarr.Group, plan: LevelPlan) -> None:
    """Make the empty array of a level, unless it is there already, as planned.

    Parameters
    ----------
    group
        Group that holds the levels; opened for writing.
    plan
        The level.
    """
    finer = group[plan.finer]
    if not isinstance(finer, zarr.Array):
        raise InputError(f"{group.store_path}: found no array at {plan.finer!r}")
    wanted: dict[str, Any] = {"shape": plan.shape, "chunks": plan.chunks, "dtype": finer.dtype}
    if isinstance(finer.metadata, ArrayV2Metadata):  # no shards there: a part is then many files
        wanted |= {
            "shards": None,
            "chunk_key_encoding": {"name": "v2", "separator": finer.metadata.dimension_separator},
        }
    else:
        wanted |= {"shards": plan.shards, "dimension_names": list(plan.axes)}
    ensure_array(group, plan.level.path, **wanted, fill_value=0)


def make_part(group: zarr.Group, plan: LevelPlan, part: int, reduction: Reduction) -> None:
    """Make one part of a level from the finer one; done twice it comes out the same.

    Parameters
    ----------
    group, plan
        The level, whose array is there already.
    part
        Its number, 0 to ``plan.parts - 1``.
    reduction
        ``mode`` for labels, ``mean`` for images.
    """
    reduce = mode_reduce if reduction == "mode" else mean_reduce
    fine, coarse = group[plan.finer], group[plan.level.path]
    assert isinstance(fine, zarr.Array)
    assert isinstance(coarse, zarr.Array)
    target = plan.box(part)
    flat = 3 - len(target)
    source = tuple(slice(s.start * f, s.stop * f) for s, f in zip(target, plan.factor[flat:], strict=True))

    def reduced(*channel: int) -> npt.NDArray[Any]:
        selection: tuple[int | slice, ...] = (*channel, *source)
        values = np.asarray(fine[selection])
        result = reduce(values.reshape((1,) * flat + values.shape), plan.factor)
        return result.reshape(result.shape[flat:])

    if not plan.lead:
        coarse[target] = reduced()
        return
    for start in range(0, plan.shape[0], plan.shards[0]):  # channels of one shard are written together
        together = range(start, min(start + plan.shards[0], plan.shape[0]))
        coarse[(slice(together.start, together.stop), *target)] = np.stack(
            [reduced(channel) for channel in together]
        )


def write_levels(
    group: zarr.Group,
    axes: str,
    first: Level,
    block: tuple[int, int, int],
    reduction: Reduction,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Level, ...]:
    """Make all coarser levels of an array, one part after the other.

    Parameters
    ----------
    group
        Group that holds the array; opened for writing.
    axes, first, block
        As for :func:`plan_levels`.
    reduction
        ``mode`` for labels, ``mean`` for images.
    progress
        Called with parts done and parts in all of a level.

    Returns
    -------
    tuple of Level
        All levels, the first included.
    """
    fine = group[first.path]
    if not isinstance(fine, zarr.Array):
        raise InputError(f"{group.store_path}: found no array at {first.path!r}")
    plans = plan_levels(fine.shape, axes, first, block, (fine.shards or fine.shape)[0])
    for plan in plans:
        make_level(group, plan)
        for part in range(plan.parts):
            make_part(group, plan, part, reduction)
            if progress is not None:
                progress(part + 1, plan.parts)
    return (first, *(plan.level for plan in plans))


def _vote(voters: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the winners (y, x) of an election at each pixel; each voter is a plane (y, x) of labels."""
    votes = [np.ones(voters[0].shape, np.uint8) for _ in voters]
    for (i, one), (j, other) in combinations(enumerate(voters), 2):
        agree = (one == other).view(np.uint8)
        votes[i] += agree
        votes[j] += agree
    most = np.maximum.reduce(votes)
    # Unsigned numbers wrap: of negatives, that of the smallest label is the largest, and that of 0 is 0.
    merits = [(count == most) * np.negative(label) for count, label in zip(votes, voters, strict=True)]
    winner: npt.NDArray[Any] = np.negative(np.maximum.reduce(merits))
    return winner


def _pad(array: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    short = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    return np.pad(array, short, mode="edge") if any(after for _, after in short) else array


def _triple(values: tuple[T, ...]) -> tuple[T, T, T]:
    z, y, x = values
    return z, y, x
