"""Coarser levels of images and labels, made from the level before on disk.

Memory is bounded whatever the size of the volume: one shard of the coarser level is made at a time, from
the eight (or four) times larger box of the finer one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from hrvol.errors import InputError
from hrvol.volume.ome import Level, Triple
from hrvol.volume.tiling import Box, grid, shard_and_chunk

Reduction = Literal["mode", "mean"]
Factor = tuple[int, int, int]
T = TypeVar("T")

STOP_SIDE = 256
"""No coarser level is made of one whose sides are all this short."""

_THIN = 32
_ANISOTROPIC = 1.9


def next_factor(shape: tuple[int, int, int], voxel_size: Triple) -> Factor | None:
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
    for k in range(len(out)):  # a plane at a time: votes of a whole shard would take 40 bytes a voxel
        cells = np.stack(
            [padded[k * fz + a, b::fy, c::fx] for a, b, c in product(range(fz), range(fy), range(fx))]
        )
        out[k] = cells[0]
        mixed = (cells != cells[0]).any(axis=0)
        if mixed.any():
            out[k][mixed] = _vote(cells[:, mixed])
    return out


def mean_reduce(image: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    """Average each cell of voxels; integers are rounded, halves up. Shapes as for :func:`mode_reduce`."""
    padded = _pad(image, factor)
    fz, fy, fx = factor
    whole_numbers = image.dtype.kind in "iu"
    exact = {"i": np.int64, "u": np.uint64}.get(image.dtype.kind, np.float64)
    shape = tuple(n // f for n, f in zip(padded.shape, factor, strict=True))
    total = np.zeros(shape, exact)
    for a, b, c in product(range(fz), range(fy), range(fx)):
        total += padded[a::fz, b::fy, c::fx]
    cell = fz * fy * fx
    mean = (2 * total + cell) // (2 * cell) if whole_numbers else total / cell
    return mean.astype(image.dtype)


def build_levels(
    group: zarr.Group,
    axes: str,
    first: Level,
    block: tuple[int, int, int],
    reduction: Reduction,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Level, ...]:
    """Make coarser levels ``1``, ``2``, ... of an array, replacing those that are there.

    Parameters
    ----------
    group
        Group that holds the array; opened for writing.
    axes
        Of the array: ``zyx`` or ``yx``, with ``c`` before them or not.
    first
        The finest level.
    block
        Shape (z, y, x) of shards.
    reduction
        ``mode`` for labels, ``mean`` for images.
    progress
        Called with shards done and shards in all of a level.

    Returns
    -------
    tuple of Level
        All levels, the first included. A coarser voxel's centre is that of its cell, which the
        translation says.
    """
    lead = axes.count("c")
    flat = 3 - (len(axes) - lead)
    levels = [first]
    while True:
        fine, previous = group[levels[-1].path], levels[-1]
        if not isinstance(fine, zarr.Array):
            raise InputError(f"{group.store_path}: found no array at {previous.path!r}")
        shape = _triple((1,) * flat + fine.shape[lead:])
        factor = next_factor(shape, _triple((1.0,) * flat + previous.scale[lead:]))
        if factor is None:
            return tuple(levels)
        smaller = _triple(tuple(-(-n // f) for n, f in zip(shape, factor, strict=True)))
        shards, chunks = shard_and_chunk(smaller, block)
        coarse = group.create_array(
            str(len(levels)),
            shape=fine.shape[:lead] + smaller[flat:],
            dtype=fine.dtype,
            chunks=(1,) * lead + chunks[flat:],
            shards=(fine.shards or fine.shape)[:lead] + shards[flat:],
            fill_value=0,
            dimension_names=list(axes),
            overwrite=True,
        )
        parts = grid(smaller, _triple(shards))
        for done, part in enumerate(parts, start=1):
            _fill(fine, coarse, part.core, factor, lead, reduction)
            if progress is not None:
                progress(done, len(parts))
        cell = (1,) * lead + factor[flat:]
        moved = (
            t + 0.5 * (f - 1) * s for t, s, f in zip(previous.translation, previous.scale, cell, strict=True)
        )
        scale = (s * f for s, f in zip(previous.scale, cell, strict=True))
        levels.append(Level(str(len(levels)), tuple(scale), tuple(moved)))


def _fill(
    fine: zarr.Array[Any],
    coarse: zarr.Array[Any],
    target: Box,
    factor: Factor,
    lead: int,
    reduction: Reduction,
) -> None:
    """Make one box of a coarser level; channels of one shard are written together."""
    reduce = mode_reduce if reduction == "mode" else mean_reduce
    flat = 3 - (fine.ndim - lead)
    depth, height, width = (slice(s.start * f, s.stop * f) for s, f in zip(target, factor, strict=True))
    source = (depth, height, width)[flat:]

    def reduced(*channel: int) -> npt.NDArray[Any]:
        selection: tuple[int | slice, ...] = (*channel, *source)
        values = np.asarray(fine[selection])
        result = reduce(values.reshape((1,) * flat + values.shape), factor)
        return result.reshape(result.shape[flat:])

    if not lead:
        coarse[target[flat:]] = reduced()
        return
    step = (coarse.shards or coarse.chunks)[0]
    for start in range(0, fine.shape[0], step):
        together = slice(start, min(start + step, fine.shape[0]))
        coarse[(together, *target[flat:])] = np.stack(
            [reduced(channel) for channel in range(together.start, together.stop)]
        )


def _vote(cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the winner of each column of (voters, cells)."""
    votes = np.stack([(cells == row).sum(axis=0) for row in cells])
    # By votes first; among equals a smaller label is better, and 0 is worst.
    top = int(np.iinfo(cells.dtype).max)
    merit = np.where(cells == 0, 0, top + 1 - cells.astype(np.int64))
    winner = (votes * (top + 2) + merit).argmax(axis=0)
    chosen: npt.NDArray[Any] = np.take_along_axis(cells, winner[None], axis=0)[0]
    return chosen


def _pad(array: npt.NDArray[Any], factor: Factor) -> npt.NDArray[Any]:
    short = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    return np.pad(array, short, mode="edge") if any(after for _, after in short) else array


def _triple(values: tuple[T, ...]) -> tuple[T, T, T]:
    z, y, x = values
    return z, y, x
