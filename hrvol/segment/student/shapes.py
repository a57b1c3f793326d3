"""Shapes and cost of a student's convolutions, computed without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from hrvol.segment.student.spec import StudentSpec


@dataclass(frozen=True)
class Convolution:
    """A convolution of a folded network, which has a bias.

    Attributes
    ----------
    name
        Of the module in :class:`hrvol.segment.student.network.StudentNetwork`.
    shape
        Of its weights: ``(out, in, y, x)``, or ``(out, in, z, y, x)`` in a 3D network.
    level
        Level of the network that it works at, 0 the finest.
    """

    name: str
    shape: tuple[int, ...]
    level: int


def convolutions(spec: StudentSpec, classes: int) -> Iterator[Convolution]:
    """Yield the convolutions of the network for a number of classes."""
    cells, last = prod(spec.stem), len(spec.widths) - 1

    def convolution(name: str, into: int, out: int, depth: int, side: int, level: int) -> Convolution:
        kernel = (depth, side, side) if spec.is_3d else (side, side)
        return Convolution(name, (out, into, *kernel), level)

    for level, (width, depth) in enumerate(zip(spec.widths, spec.depth_kernels, strict=True)):
        into = spec.widths[level - 1] if level else spec.channels * cells
        for n in range(spec.encoder_convolutions):
            depth_now, into_now = (1, width) if n else (depth, into)
            yield convolution(f"encoder.{level}.{n}.0", into_now, width, depth_now, 3, level)
    for level in range(last):
        yield convolution(f"rise.{level}.0", spec.widths[level + 1], spec.widths[level], 1, 1, level + 1)
        for n in range(spec.decoder_convolutions):
            width, depth = spec.widths[level], 1 if n else spec.depth_kernels[level]
            yield convolution(f"decoder.{level}.{n}.0", width, width, depth, 3, level)
    yield convolution("head", spec.widths[0], classes * cells, 1, 3, 0)


def array_shapes(spec: StudentSpec, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a folded network by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for convolution in convolutions(spec, classes):
        shapes[f"{convolution.name}.weight"] = convolution.shape
        shapes[f"{convolution.name}.bias"] = convolution.shape[:1]
    return shapes


def flop_per_voxel(spec: StudentSpec, classes: int) -> float:
    """Return the floating-point operations of a prediction per voxel, counting those of convolutions."""
    cells = [prod(spec.stem)]
    for pool in spec.pools:
        cells.append(cells[-1] * prod(pool))
    return 2 * sum(prod(one.shape) / cells[one.level] for one in convolutions(spec, classes))
