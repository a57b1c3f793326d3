"""The architecture of a student network, and how far it sees."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hrvol.arrays import Shape3
from hrvol.recipe.spec import Spec, invalid

Normalisation = Literal["beside", "alone", "none"]

POOL = 4
"""Side in pixels of the squares whose means local normalisation smooths."""

BOX = 9
"""Side of the box filter of local normalisation, in units of :data:`POOL`; it is applied twice."""

_Width = Annotated[int, Field(ge=1, le=1024)]

_Stride = Literal[1, 2, 4]

_Strides = tuple[_Stride, _Stride, _Stride]

_DepthKernel = Literal[1, 3]

MOST_ALIGNMENT = 64
"""Most voxels per axis of a cell of the coarsest level: the step of the lattice's cells."""


class StudentSpec(Spec):
    """Architecture of a student: a U-Net whose first level is already coarser than the voxels.

    Voxels are rearranged into channels (pixel unshuffle), so that no convolution works at full resolution.
    Skip connections are added, not concatenated. All kernels are 3 x 3 in a plane.

    Attributes
    ----------
    widths
        Channels of each level, the finest first.
    stem
        Voxels (z, y, x) that are rearranged into the channels of the first level.
    pools
        Factors (z, y, x) between one level and the next; one less than levels.
    depth_kernels
        Size along z of the first kernel of each level; 1 everywhere for a network of single planes.
    planes
        Planes that are input channels of a prediction (2.5D), an odd number; 1: the plane itself.
    encoder_convolutions, decoder_convolutions
        Convolutions of a level on the way down and up.
    normalisation
        Whether the grey value minus its local mean, divided by the local standard deviation, is given to the
        network ``beside`` the grey value, ``alone``, or not (``none``).
    """

    widths: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=6)] = (12, 24, 48, 64)
    stem: _Strides = (1, 2, 2)
    pools: Annotated[tuple[_Strides, ...], Field(max_length=5)] = ((1, 2, 2),) * 3
    depth_kernels: Annotated[tuple[_DepthKernel, ...], Field(min_length=1, max_length=6)] = (1, 1, 1, 1)
    planes: Annotated[int, Field(ge=1, le=15)] = 1
    encoder_convolutions: Annotated[int, Field(ge=1, le=4)] = 2
    decoder_convolutions: Annotated[int, Field(ge=1, le=4)] = 1
    normalisation: Normalisation = "beside"

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        levels = len(self.widths)
        for name, found, expected in (
            ("pools", len(self.pools), levels - 1),
            ("depth_kernels", len(self.depth_kernels), levels),
        ):
            if found != expected:
                raise invalid(f"found {found} entries, expected {expected} for {levels} widths", name)
        if self.planes % 2 == 0:
            raise invalid(f"found {self.planes}, expected an odd number", "planes")
        if self.planes > 1 and self.is_3d:
            raise invalid(f"found {self.planes} planes as channels, expected 1 in a 3D network", "planes")
        if any(side != side_x for _, side, side_x in (self.stem, *self.pools)):
            raise invalid("found factors that differ along y and x, expected equal ones", "pools")
        if max(self.alignment) > MOST_ALIGNMENT:
            raise invalid(
                f"found factors whose product is {max(self.alignment)}, expected at most {MOST_ALIGNMENT}",
                "pools",
            )
        if self.alignment[1] % POOL and self.normalisation != "none":
            raise invalid(
                f"found factors whose product is {self.alignment[1]}, expected a multiple of {POOL}", "pools"
            )
        return self

    @property
    def is_3d(self) -> bool:
        """Whether convolutions mix planes."""
        return any(kernel > 1 for kernel in self.depth_kernels) or self.alignment[0] > 1

    @cached_property
    def alignment(self) -> Shape3:
        """Voxels (z, y, x) of which windows must be multiples: a cell of the coarsest level."""
        z, y, x = (prod(side[axis] for side in (self.stem, *self.pools)) for axis in range(3))
        return z, y, x

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return self.planes * (2 if self.normalisation == "beside" else 1)

    @cached_property
    def network_halo(self) -> Shape3:
        """Voxels (z, y, x) of context that the network's prediction of a voxel depends on, rounded up.

        A multiple of :attr:`alignment`: windows that begin that far outside of what they predict are aligned.
        """
        z, y, x = (_round_up(self._reach(axis), self.alignment[axis]) for axis in range(3))
        return z, y, x

    @cached_property
    def halo(self) -> Shape3:
        """The same with the context of local normalisation and, for 2.5D, of the planes beside."""
        z, y, x = self.network_halo
        local = 0
        if self.normalisation != "none":
            # Two box filters and linear interpolation between the centres of pools.
            local = _round_up((2 * (BOX // 2) + 1) * POOL, self.alignment[1])
        return z + self.planes // 2, y + local, x + local

    def _reach(self, axis: int) -> int:
        """Return how many voxels along an axis, to either side, the network's output depends on at most."""
        strides = [side[axis] for side in (self.stem, *self.pools)]
        cell = prod(strides)
        reach = 0
        for voxel in range(cell):
            low, high = self._seen(axis, 0, voxel // strides[0], voxel // strides[0], head=True)
            reach = max(reach, voxel - low * strides[0], (high + 1) * strides[0] - 1 - voxel)
        return reach

    def _seen(self, axis: int, level: int, low: int, high: int, *, head: bool = False) -> tuple[int, int]:
        """Return the cells of a level's input on which cells ``low`` to ``high`` of its output depend."""
        first = 1 if axis else self.depth_kernels[level] // 2
        further = 1 if axis else 0
        if level < len(self.pools):
            out = further * head + first + further * (self.decoder_convolutions - 1)
            low, high = low - out, high + out
        down = first + further * (self.encoder_convolutions - 1)
        own = low - down, high + down
        if level == len(self.pools):
            return own
        pool = self.pools[level][axis]
        below = self._seen(axis, level + 1, low // pool, high // pool)
        skip = below[0] * pool - down, (below[1] + 1) * pool - 1 + down
        return min(own[0], skip[0]), max(own[1], skip[1])


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


Dimensions = Literal["planes", "mixed", "volume"]
"""What a student sees: single planes, a few neighbours of a plane, too, or as far along z as in a plane."""

_WIDTHS = {"small": (12, 24, 48, 64), "medium": (24, 48, 96, 128)}


def student_spec(size: str, dimensions: Dimensions = "planes") -> StudentSpec:
    """Return a named architecture.

    Parameters
    ----------
    size
        ``small``, ``medium`` or ``large``.
    dimensions
        What the student sees.
    """
    if dimensions == "volume":
        widths = {"small": (16, 32, 64), "medium": (24, 48, 96), "large": (32, 64, 128)}[size]
        return StudentSpec(widths=widths, stem=(2, 2, 2), pools=((2, 2, 2),) * 2, depth_kernels=(3,) * 3)
    kernel: _DepthKernel = 3 if dimensions == "mixed" else 1
    if size == "large":
        return StudentSpec(
            widths=(16, 32, 64, 128, 128),
            stem=(1, 1, 1),
            pools=((1, 2, 2),) * 4,
            depth_kernels=(kernel,) * 5,
        )
    return StudentSpec(widths=_WIDTHS[size], depth_kernels=(kernel,) * 4)


NAMES = ("small", "medium", "large")
"""Names of architectures, the fastest first."""

SIZES: dict[str, StudentSpec] = {name: student_spec(name) for name in NAMES}
"""Architectures for single planes: about 6, 22 and 48 kFLOP a voxel."""
