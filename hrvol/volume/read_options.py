"""Options of reading: what the file of an input lacks, or states wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hrvol.arrays import Spacing3
from hrvol.errors import UsageError
from hrvol.text import printable
from hrvol.volume.units import METRES, normal_unit

Channel = int | str
"""Number of a channel, its name, ``"mean"`` (of all) or ``"rgb"`` (the first three as colour)."""

COLOUR: Literal["rgb"] = "rgb"
"""Channel of a colour volume: red, green and blue together."""

_AXES = frozenset("zyxct")


@dataclass(frozen=True)
class RawLayout:
    """Where the voxels of a file without a header are.

    Attributes
    ----------
    shape
        Voxels per axis as stored, the slowest first: (z, y, x), or (y, x).
    dtype
        NumPy's name of their type, such as ``"uint16"``; ``">u2"`` is ``"uint16"`` with byte order ``"big"``.
    offset
        Bytes before the first voxel.
    byteorder
        ``"little"`` or ``"big"``.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    offset: int = 0
    byteorder: str = "little"

    def __post_init__(self) -> None:
        if not 2 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise UsageError(f"raw shape: found {self.shape}, expected 2 or 3 numbers above 0: z,y,x")
        if self.offset < 0:
            raise UsageError(f"raw offset: found {self.offset}, expected 0 or more bytes")
        if self.byteorder not in ("little", "big"):
            shown = printable(self.byteorder, 60)
            raise UsageError(f"raw byte order: found {shown}, expected little or big")
        order = {"<": "little", ">": "big"}.get(str(self.dtype)[:1])
        if order == "little" and self.byteorder == "big":
            raise UsageError(
                f"raw type: found {printable(str(self.dtype), 60)} with byte order big, expected one of both"
            )
        try:
            known = np.dtype(self.dtype).kind in "biuf"
        except (TypeError, ValueError):
            known = False
        if not known:
            shown = printable(str(self.dtype), 60)
            raise UsageError(f"raw type: found {shown}, expected a type such as uint8, uint16 or float32")
        if order is not None:
            object.__setattr__(self, "byteorder", order)
            object.__setattr__(self, "dtype", str(self.dtype)[1:])

    @property
    def stored(self) -> np.dtype[np.generic]:
        """Type of the voxels with its byte order."""
        return np.dtype(self.dtype).newbyteorder("<" if self.byteorder == "little" else ">")


@dataclass(frozen=True)
class ReadOptions:
    """How an input is read where its file lacks metadata, or has wrong ones.

    Attributes
    ----------
    voxel_size
        (z, y, x) in ``unit``, in place of that of the file.
    unit
        Unit of length; without one, that of the file.
    axis_order
        One letter per stored axis, the slowest first: ``"xyz"`` for a stack of which the first axis is x;
        ``c`` for channels. Not used for OME-Zarr, whose metadata name the axes.
    channel
        Number (from 0) or name of the channel that is read of an image with several; ``"mean"`` of all; or
        ``"rgb"``: the first three of 3 or 4 as colour. Not used for an image of one channel.
    raw
        Layout of files without a header; not used for others.
    """

    voxel_size: Spacing3 | None = None
    unit: str | None = None
    axis_order: str | None = None
    channel: Channel | None = None
    raw: RawLayout | None = None

    def __post_init__(self) -> None:
        if self.voxel_size is not None:
            object.__setattr__(self, "voxel_size", _spacing(self.voxel_size))
        if self.unit is not None and normal_unit(self.unit) not in (None, *METRES):
            shown = printable(self.unit, 60)
            raise UsageError(
                f"unit: found {shown}, expected one of length: nm, um, mm, cm, m, angstrom, pm, inch"
            )
        if self.axis_order is not None:
            order = self.axis_order.replace(",", "").strip().lower()
            if len(set(order)) != len(order) or not {"y", "x"} <= set(order) <= _AXES:
                raise UsageError(
                    f"axis order: found {printable(self.axis_order, 60)}, expected the letters z, y and x in"
                    " the order of the stored axes, such as xyz"
                )
            object.__setattr__(self, "axis_order", order)
        named = isinstance(self.channel, str) and bool(self.channel.strip())
        if self.channel is not None and not named and not _is_index(self.channel):
            shown = printable(str(self.channel), 60)
            raise UsageError(f"channel: found {shown}, expected a number from 0, a name, mean or rgb")

    def words(self) -> list[str]:
        """Return the same as options of the command line."""
        words: list[str] = []
        if self.voxel_size is not None:
            words += ["--voxel-size", ",".join(f"{size!r}" for size in self.voxel_size)]
        for flag, value in (
            ("--unit", self.unit),
            ("--axis-order", self.axis_order),
            ("--channel", self.channel),
        ):
            if value is not None:
                words += [flag, str(value)]
        if self.raw is not None:
            words += ["--raw-shape", ",".join(map(str, self.raw.shape)), "--raw-dtype", self.raw.dtype]
            if self.raw.offset:
                words += ["--raw-offset", str(self.raw.offset)]
            if self.raw.byteorder != "little":
                words += ["--raw-byteorder", self.raw.byteorder]
        return words


def _spacing(sizes: Iterable[float]) -> Spacing3:
    numbers = tuple(float(size) for size in sizes)
    if len(numbers) not in (1, 2, 3) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise UsageError(f"voxel size: found {numbers}, expected numbers above 0: z,y,x (y,x for an image)")
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    z, y, x = numbers if len(numbers) == 3 else (1.0, *numbers)
    return z, y, x


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def ordered_axes(order: str, shape: Sequence[int]) -> tuple[str, ...] | None:
    """Return the names of the axes of an array by an axis order; ``None`` if the numbers of axes differ.

    Axes of length 1 may be left out of the order.
    """
    if len(order) == len(shape):
        return tuple(order)
    longer = [i for i, side in enumerate(shape) if side > 1]
    if len(order) != len(longer):
        return None
    names = dict(zip(longer, order, strict=True))
    return tuple(names.get(i, f"axis {i}") for i in range(len(shape)))
