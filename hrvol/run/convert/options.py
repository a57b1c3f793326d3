"""The request of a conversion as frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hrvol.arrays import Shape3
from hrvol.engine.spec import EngineSpec
from hrvol.errors import UsageError
from hrvol.run.convert.window import check_window
from hrvol.run.ledger_entries import check_part
from hrvol.text import printable
from hrvol.volume.ome.compression import compression_of
from hrvol.volume.ome.converted import MOST_VOXELS
from hrvol.volume.region import Region

Version = Literal["0.5", "0.4"]

Pyramid = Literal["mean", "mode", "none"]


@dataclass(frozen=True)
class ImageOptions:
    """How the image is stored.

    Attributes
    ----------
    version
        Of OME-Zarr.
    chunks, shards
        Voxels (z, y, x) of a chunk and of a shard; ``None``: chosen by the input, or those of the output that
        is resumed. Of OME-Zarr 0.4, which has no shards, ``shards`` is what one task writes.
    compression
        As :func:`hrvol.volume.ome.compression.compression_of` takes it; ``None``: as labels.
    uint8
        Window of grey values that becomes 0 to 255, as :func:`hrvol.run.convert.window.check_window` takes
        it; ``None``: values are kept.
    pyramid
        How coarser levels are computed: ``mean``, ``mode`` (for labels), or ``none``: there are none.
    """

    version: Version = "0.5"
    chunks: Shape3 | None = None
    shards: Shape3 | None = None
    compression: str | None = None
    uint8: str | None = None
    pyramid: Pyramid = "mean"

    def __post_init__(self) -> None:
        if self.version not in ("0.5", "0.4"):
            shown = printable(str(self.version), 20)
            raise UsageError(f"OME-Zarr version: found {shown}, expected 0.5 or 0.4")
        if self.pyramid not in ("mean", "mode", "none"):
            shown = printable(str(self.pyramid), 20)
            raise UsageError(f"pyramid: found {shown}, expected mean, mode or none")
        if self.compression is not None:
            object.__setattr__(self, "compression", compression_of(self.compression))
        if self.uint8 is not None:
            check_window(self.uint8)
        for name, sides in (("chunks", self.chunks), ("shards", self.shards)):
            if sides is not None:
                object.__setattr__(self, name, _sides(name, sides))
        if self.chunks is not None and self.shards is not None:
            _check_multiples(self.chunks, self.shards)


@dataclass(frozen=True)
class ConvertOptions:
    """Everything a conversion is requested to do, besides its input and output.

    Attributes
    ----------
    engine
        Where blocks are copied.
    image
        How the image is stored.
    roi
        ``(z, y, x)`` slices in voxels; ``None``: everything.
    level
        Resolution of a multiscale input, 0 the finest.
    part
        ``(k, n)``: only the k-th of n parts of the blocks, from 1.
    scratch
        As in :class:`hrvol.run.options.RunOptions`.
    verify
        Whether to read input and output again, and compare checksums.
    overwrite
        Whether to delete an earlier output and start over.
    storage_options
        Keywords of the fsspec file system of URLs.
    """

    engine: EngineSpec = field(default_factory=EngineSpec)
    image: ImageOptions = field(default_factory=ImageOptions)
    roi: Region | None = None
    level: int = 0
    part: tuple[int, int] | None = None
    scratch: str | Path | None = None
    verify: bool = False
    overwrite: bool = False
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold secrets

    def __post_init__(self) -> None:
        check_part(self.part)


def _sides(name: str, sides: Any) -> Shape3:
    numbers = tuple(sides)
    if len(numbers) not in (2, 3) or not all(isinstance(n, int | np.integer) and n > 0 for n in numbers):
        raise UsageError(f"{name}: found {sides}, expected whole numbers above 0: z,y,x (y,x for an image)")
    z, y, x = map(int, numbers if len(numbers) == 3 else (1, *numbers))
    if z * y * x > MOST_VOXELS:
        raise UsageError(f"{name}: found {z * y * x:,} voxels, expected at most {MOST_VOXELS:,}")
    return z, y, x


def _check_multiples(chunks: Shape3, shards: Shape3) -> None:
    if any(shard % chunk for shard, chunk in zip(shards, chunks, strict=True)):
        raise UsageError(f"shards: found {shards}, expected multiples of the chunks, {chunks}")
