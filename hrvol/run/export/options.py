"""The request of an export as frozen objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from hrvol.errors import UsageError
from hrvol.progress import format_size
from hrvol.volume.exporters.sources import LABELS
from hrvol.volume.region import Region

LEAST_MEMORY = 2**22

_MOST_BY_DEFAULT = 2**32

_LEAST_BY_DEFAULT = 2**28


@dataclass(frozen=True)
class ExportSelection:
    """What is exported.

    Attributes
    ----------
    what
        ``labels``, ``image``, ``probabilities`` or ``uncertainty``.
    name
        Of the labels.
    level
        Resolution, 0 the finest.
    roi
        ``(z, y, x)`` slices in voxels; ``None``: everything.
    only
        Names or values of the classes of masks and meshes; ``None``: all.
    class_names
        Names of classes 1, 2, ..., where the source has none.
    unfinished
        Whether labels of an unfinished run are exported.
    """

    what: str = LABELS
    name: str | None = None
    level: int = 0
    roi: Region | None = None
    only: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    unfinished: bool = False


@dataclass(frozen=True)
class ExportFiles:
    """How it is written.

    Attributes
    ----------
    format
        Name of the format; ``None``: by the suffix.
    per_class
        Whether to write a mask per class.
    mesh
        ``stl`` or ``ply``: a mesh per class.
    compress
        Whether to compress; ``None``: labels and masks.
    memory
        Bytes for voxels; ``None``: a quarter of what is free, 256 MiB to 4 GiB.
    url
        Where the source is published, for the state of neuroglancer.
    overwrite
        Whether to replace earlier exports.
    """

    format: str | None = None
    per_class: bool = False
    mesh: str | None = None
    compress: bool | None = None
    memory: int | None = None
    url: str | None = None
    overwrite: bool = False

    @property
    def memory_bytes(self) -> int:
        """Bytes for voxels."""
        if self.memory is None:
            free = int(psutil.virtual_memory().available)
            return min(max(free // 4, _LEAST_BY_DEFAULT), _MOST_BY_DEFAULT)
        if self.memory < LEAST_MEMORY:
            raise UsageError(
                f"memory: found {format_size(self.memory)}, expected at least {format_size(LEAST_MEMORY)}"
            )
        return self.memory
