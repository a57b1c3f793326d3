"""The lattice of a student that predicts beside another model, in whose blocks its cells lie.

It depends on the shapes of the volume and of a block alone, so that labels are the same whatever the workers
and regions of a run are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from hrvol.arrays import Shape3
from hrvol.segment.student.lattice import (
    CLASSES,
    DEEPEST,
    LONGEST,
    STEP,
    WINDOW_BYTES,
    Lattice,
    bytes_per_voxel,
)
from hrvol.segment.student.spec import StudentSpec


def block_lattice(
    shape: Shape3, spec: StudentSpec, block: Shape3, planes: int = 1, classes: int = CLASSES
) -> Lattice:
    """Return the lattice that divides blocks evenly and needs the fewest computations in bounded memory.

    Where no cell divides a block, because its sides are no multiples of ``spec.alignment``, cells are small.

    Parameters
    ----------
    shape, block
        Of the volume and of a block that is not clipped by a border, (z, y, x).
    spec
        The student's architecture.
    planes
        Most planes that are predicted together by a student of planes.
    classes
        Number of classes, which counts for the memory.
    """
    z_step, step, _ = spec.alignment
    deepest = DEEPEST if spec.is_3d else planes
    candidates = product(
        _sides(shape[0], block[0], z_step, deepest, z_step),
        _sides(shape[1], block[1], step, LONGEST, STEP),
        _sides(shape[2], block[2], step, LONGEST, STEP),
    )
    best: tuple[float, Shape3] | None = None
    for cell in candidates:
        window = prod(side + 2 * around for side, around in zip(cell, spec.network_halo, strict=True))
        count = prod(-(-side // step) for side, step in zip(block, cell, strict=True))
        fits = window * bytes_per_voxel(spec, classes) <= WINDOW_BYTES
        # Where all are too large for the memory, the smallest.
        cost = float(count * window if fits else window * WINDOW_BYTES)
        best = (cost, cell) if best is None or (cost, cell) < best else best
    assert best is not None
    return Lattice(shape, best[1], spec.halo)


def reach_of(lattice: Lattice, block: Shape3) -> Shape3:
    """Return the voxels (z, y, x) around any block that its prediction depends on, at most."""
    z, y, x = (
        around + (0 if side >= length or side % cell == 0 else cell - 1)
        for around, side, cell, length in zip(lattice.halo, block, lattice.cell, lattice.shape, strict=True)
    )
    return z, y, x


def _sides(length: int, block: int, step: int, most: int, small: int) -> Iterator[int]:
    """Yield the sides that a cell may have along an axis, multiples of ``step``, at most about ``most``.

    ``small`` is the side where none divides the block.
    """
    if block >= length:  # one block: its cells may end beyond the volume
        whole = -(-length // step) * step
        yield from sorted({min(side, whole) for side in range(small, max(most, small) + 1, small)})
        return
    even = [side for side in range(step, min(block, most) + 1, step) if block % side == 0]
    yield from even or [small]
