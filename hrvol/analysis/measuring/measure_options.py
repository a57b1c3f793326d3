"""What is measured of labels, and how, as one object."""

from __future__ import annotations

from dataclasses import dataclass

from hrvol.arrays import Shape3
from hrvol.engine.spec import EngineSpec
from hrvol.errors import UsageError
from hrvol.text import printable

BLOCK = (128, 512, 512)
"""Voxels (z, y, x) of a block."""

MOST_CELL = 2**20

TORTUOSITY = ("z", "y", "x", "all")
"""Accepted axes of tortuosity."""


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured, and how.

    Attributes
    ----------
    background
        Whether 0 is a class, ``background (0)``.
    name
        Name of the labels to read of several in an image.
    components, chords, correlation
        Whether to label components, to count chords, and to correlate.
    min_size
        Voxels of the smallest component in the table; ``None``: 8, of objects 1.
    cell
        Voxels along x of the side of the cells of intervals; ``None``: chosen.
    seed
        Of the draws of intervals.
    engine
        Where blocks are measured.
    block_shape
        Voxels (z, y, x) of a block.
    objects
        Whether values are objects, not classes; ``None``: if the labels are those of separated objects.
    classes
        Classes, by name or number, of which thickness and tortuosity are measured; empty: all.
    thickness
        Whether to measure the local thickness.
    max_thickness
        Largest diameter that is tested, ``40um`` or voxels; ``None``: 64 voxels.
    thickness_map
        Path of an OME-Zarr image of the thickness to write; ``None``: none.
    overwrite
        Whether to replace an earlier image there.
    tortuosity
        Axes along which the tortuosity is computed, ``z``, ``y``, ``x`` or ``all``; ``None``: none.
    tortuosity_size
        Voxels of the side of the central part of which it is computed; ``None``: all that fits in memory.
    device
        Where it is computed: ``auto``, ``cpu`` or ``cuda``.
    """

    background: bool = False
    name: str | None = None
    components: bool = True
    chords: bool = True
    correlation: bool = True
    min_size: int | None = None
    cell: int | None = None
    seed: int = 0
    engine: EngineSpec = EngineSpec()
    block_shape: Shape3 = BLOCK
    objects: bool | None = None
    classes: tuple[str, ...] = ()
    thickness: bool = False
    max_thickness: str | None = None
    thickness_map: str | None = None
    overwrite: bool = False
    tortuosity: str | None = None
    tortuosity_size: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.min_size is not None and self.min_size < 1:
            raise UsageError(f"min_size: found {self.min_size}, expected at least 1 voxel")
        if self.cell is not None and not 1 <= self.cell <= MOST_CELL:
            raise UsageError(f"cell: found {self.cell}, expected 1 to {MOST_CELL} voxels")
        if len(self.block_shape) != 3 or min(self.block_shape) < 1:
            raise UsageError(f"block_shape: found {self.block_shape}, expected three whole numbers above 0")
        if self.tortuosity is not None and self.tortuosity not in TORTUOSITY:
            raise UsageError(
                f"tortuosity: found '{printable(str(self.tortuosity), 50)}', expected one of:"
                f" {', '.join(TORTUOSITY)}"
            )
        if self.tortuosity_size is not None and self.tortuosity_size < 2:
            raise UsageError(f"tortuosity_size: found {self.tortuosity_size}, expected at least 2 voxels")
        if self.classes and not (self.thickness or self.tortuosity):
            raise UsageError("class: found one without thickness or tortuosity, expected one of these")
        if self.max_thickness is not None and not self.thickness:
            raise UsageError("max_thickness: found it without thickness, expected both")
        if self.thickness_map is not None and not self.thickness:
            raise UsageError("thickness_map: found it without thickness, expected both")
        if self.tortuosity_size is not None and self.tortuosity is None:
            raise UsageError("tortuosity_size: found it without tortuosity, expected both")
