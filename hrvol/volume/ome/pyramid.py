"""Compute the coarser levels of images and labels, each from the next finer one on disk.

Memory is independent of the size of the volume: a level is computed in parts of one shard each, from a box of
the finer level that is at most eight times as large. Several processes may compute parts, in any order and
repeatedly.
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

from hrvol.arrays import Shape3, Spacing3
from hrvol.errors import InputError
from hrvol.volume.grid.tiling import CHUNK_SIDE, shard_and_chunk
from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.output import ensure_array
from hrvol.volume.storage.location import Location

Reduction = Literal["mode", "mean"]

Factor = tuple[int, int, int]

T = TypeVar("T")

STOP_SIDE = 256
"""A level whose sides are all at most this long is the last."""

_THIN = 32

_ANISOTROPIC = 1.9


def next_factor(shape: Shape3, voxel_size: Spacing3) -> Factor | None:
    """Return the factors by which the next level is coarser, per axis.

    Planes are halved. Depth is halved with them unless it is small, or the distance of planes is about twice
    the size of pixels or more: voxels then become isotropic first.

    Parameters
    ----------
    shape, voxel_size
        Shape and voxel size of the level, (z, y, x).

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
    """Reduce each cell of voxels to its most common label.

    Parameters
    ----------
    labels
        Unsigned integers (z, y, x). If the factor does not divide an axis, its last cell is smaller.
    factor
        Voxels per cell, (z, y, x).

    Returns
    -------
    numpy.ndarray
        Same type, (ceil(z / fz), ...). Of equally common labels the smallest that is not 0 is taken.
    """
    # Repeating the last voxel doubles all counts of a smaller cell, and so changes no result.
    padded = _pad(labels, factor)
    fz, fy, fx = factor
    out = np.empty(tuple(n // f for n, f in zip(padded.shape, factor, strict=True)), labels.dtype)
    for k in range(len(out)):  # plane by plane: the voters of a whole shard would need twice its memory
        voters = (padded[k * fz + a, b::fy, c::fx] for a, b, c in product(range(fz), range(fy), range(fx)))
        out[k] = _vote([np.ascontiguousarray(voter) for voter in voters])
    return out


def mean_reduce(image: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    """Reduce each cell of voxels to its mean; integers are rounded, halves up. See :func:`mode_reduce`.

    Sums of numbers of 64 bits would overflow: they are divided before they are added, their remainders after.
    """
    padded = _pad(image, factor)
    fz, fy, fx = factor
    integer = image.dtype.kind in "iu"
    exact = {"i": np.int64, "u": np.uint64}.get(image.dtype.kind, np.float64)
    out = np.empty(tuple(n // f for n, f in zip(padded.shape, factor, strict=True)), image.dtype)
    cell = fz * fy * fx
    for k in range(len(out)):  # plane by plane: the sums of a whole shard would need three times its memory
        total, quotients = np.zeros(out.shape[1:], exact), np.zeros(out.shape[1:], exact)
        for a, b, c in product(range(fz), range(fy), range(fx)):
            values = padded[k * fz + a, b::fy, c::fx]
            if integer and image.dtype.itemsize == 8:
                quotient, values = np.divmod(values, image.dtype.type(cell))
                quotients += quotient
            total += values
        out[k] = quotients + (2 * total + cell) // (2 * cell) if integer else total / cell
    return out


@dataclass(frozen=True)
class LevelPlan:
    """A coarser level to compute, in parts of one shard each (per row of channels).

    Attributes
    ----------
    axes
        Axes of its array: ``zyx`` or ``yx``, optionally after ``c``.
    finer
        Path of the level from which it is computed.
    level
        Its path, voxel size and position. The centre of a voxel is that of its cell of finer voxels.
    shape, shards, chunks
        Shapes of its array, shards and chunks, as stored.
    factor
        Finer voxels per voxel, (z, y, x).
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
        return math.prod(self.counts)

    def box(self, part: int) -> tuple[slice, ...]:
        """Return the voxels of a part, as slices of the spatial axes."""
        index = np.unravel_index(part, self.counts)
        spatial = zip(index, self.shards[self.lead :], self.shape[self.lead :], strict=True)
        return tuple(slice(int(i) * step, min((int(i) + 1) * step, side)) for i, step, side in spatial)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of parts per spatial axis."""
        spatial = zip(self.shape[self.lead :], self.shards[self.lead :], strict=True)
        return tuple(-(-side // step) for side, step in spatial)


@dataclass(frozen=True)
class ImagePlan:
    """An image and the coarser levels to compute of it.

    Attributes
    ----------
    path
        Path of its group.
    axes, unit
        Axes of its arrays, and OME name of their unit.
    reduction
        Reduction of a cell of voxels: ``mode`` for labels, ``mean`` for images.
    first
        The finest level.
    levels
        The coarser levels, finest first.
    """

    path: str
    axes: str
    unit: str | None
    reduction: Reduction
    first: Level
    levels: tuple[LevelPlan, ...]

    @property
    def resolutions(self) -> tuple[Level, ...]:
        """All levels, finest first."""
        return (self.first, *(plan.level for plan in self.levels))


class HasLevels(Protocol):
    """A store of images whose coarser levels can be computed."""

    @property
    def location(self) -> Location:
        """Path or URL of the store."""
        ...

    @property
    def block_shape(self) -> Shape3:
        """Voxels (z, y, x) of a part."""
        ...

    @property
    def images(self) -> tuple[ImagePlan, ...]:
        """The images, with the coarser levels to compute."""
        ...

    def make_level(self, image: int, level: int) -> None:
        """Create the empty array of the ``level``-th coarser level of an image."""
        ...

    def make_part(self, image: int, level: int, part: int) -> None:
        """Compute one part of a coarser level; several processes may compute different parts."""
        ...


def plan_levels(
    shape: tuple[int, ...],
    axes: str,
    first: Level,
    block: Shape3,
    channels_per_shard: int = 1,
    chunk: Shape3 | None = None,
) -> tuple[LevelPlan, ...]:
    """Plan the coarser levels ``1``, ``2``, ... of an array.

    Parameters
    ----------
    shape, axes
        Shape and axes of the array, as stored: ``zyx`` or ``yx``, optionally after ``c``.
    first
        Path, voxel size and position of the array, the finest level.
    block
        Shape (z, y, x) of shards.
    channels_per_shard
        Channels per shard, if there are channels.
    chunk
        Target sides (z, y, x) of chunks; ``None``: the usual ones.
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
        shards, chunks = shard_and_chunk(sides, block, chunk or CHUNK_SIDE)
        cell = (1,) * lead + factor[flat:]
        translation = (
            t + 0.5 * (f - 1) * s for t, s, f in zip(previous.translation, previous.scale, cell, strict=True)
        )
        scale = (s * f for s, f in zip(previous.scale, cell, strict=True))
        level = Level(str(len(plans) + 1), tuple(scale), tuple(translation))
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


def make_level(group: zarr.Group, plan: LevelPlan, compressors: Any = "auto") -> None:
    """Create the empty array of a level, unless it exists as planned.

    Parameters
    ----------
    group
        Group of the levels, opened for writing.
    plan
        The level.
    compressors
        As of Zarr's ``create_array``.
    """
    finer = group[plan.finer]
    if not isinstance(finer, zarr.Array):
        raise InputError(f"{group.store_path}: found no array at {plan.finer!r}")
    properties: dict[str, Any] = {"shape": plan.shape, "chunks": plan.chunks, "dtype": finer.dtype}
    if isinstance(finer.metadata, ArrayV2Metadata):  # Zarr 2 has no shards: a part is many files
        properties |= {
            "shards": None,
            "chunk_key_encoding": {"name": "v2", "separator": finer.metadata.dimension_separator},
        }
    else:
        properties |= {"shards": plan.shards, "dimension_names": list(plan.axes)}
    ensure_array(group, plan.level.path, **properties, compressors=compressors, fill_value=0)


def make_part(group: zarr.Group, plan: LevelPlan, part: int, reduction: Reduction) -> None:
    """Compute one part of a level from the finer one; repeating it gives the same result.

    Parameters
    ----------
    group, plan
        As for :func:`make_level`, which has created the array.
    part
        Number of the part, 0 to ``plan.parts - 1``.
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
        stop = min(start + plan.shards[0], plan.shape[0])
        coarse[(slice(start, stop), *target)] = np.stack([reduced(c) for c in range(start, stop)])


def write_levels(
    group: zarr.Group, plan: ImagePlan, progress: Callable[[int, int], None] | None = None
) -> None:
    """Compute all coarser levels of an image, part by part.

    Parameters
    ----------
    group
        Group of the image, opened for writing.
    plan
        The image.
    progress
        Called with the number of parts done and the total number of parts of a level.
    """
    for level in plan.levels:
        make_level(group, level)
        for part in range(level.parts):
            make_part(group, level, part, plan.reduction)
            if progress is not None:
                progress(part + 1, level.parts)


def _vote(voters: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the most common label at each pixel; each voter is a plane (y, x) of labels."""
    votes = [np.ones(voters[0].shape, np.uint8) for _ in voters]
    for (i, one), (j, other) in combinations(enumerate(voters), 2):
        agree = (one == other).view(np.uint8)
        votes[i] += agree
        votes[j] += agree
    most = np.maximum.reduce(votes)
    # Negatives of unsigned numbers wrap: that of the smallest label is the largest, and that of 0 is 0.
    merits = [(count == most) * np.negative(label) for count, label in zip(votes, voters, strict=True)]
    winner: npt.NDArray[Any] = np.negative(np.maximum.reduce(merits))
    return winner


def _pad(array: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    short = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    return np.pad(array, short, mode="edge") if any(after for _, after in short) else array


def _triple(values: tuple[T, ...]) -> tuple[T, T, T]:
    z, y, x = values
    return z, y, x
