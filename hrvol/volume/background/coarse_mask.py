"""A mask of a volume at a coarse resolution: small enough for memory, read as if it had the volume's shape.

In an output it is the OME-Zarr image ``mask`` (uint8, 1: material), at its place in physical space.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.volume.ome import metadata as ome
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume, open_volume

NAME = "mask"
"""Name of the mask in an output."""

AUTO = "auto"
"""In place of a mask: the one that is found in the volume."""

_ATTRIBUTES = "hrvol"

_MOST_VOXELS = 2**28


@dataclass(frozen=True, eq=False)
class CoarseMask:
    """Where there is material, in cells of several voxels.

    Attributes
    ----------
    cells
        ``(z, y, x)`` bool: a cell holds material.
    factors
        Voxels per cell along each axis; the last cell of an axis may be clipped.
    shape
        Voxels of the volume, (z, y, x).
    found
        What the background is, in words.
    """

    cells: NDArray[np.bool_]
    factors: Shape3
    shape: Shape3
    found: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what is read."""
        return np.dtype(np.uint8)

    @property
    def share(self) -> float:
        """Share (0..1) of the volume's voxels that are background."""
        sizes = [
            np.diff(np.minimum(np.arange(count + 1) * factor, length)).astype(np.float64)
            for count, factor, length in zip(self.cells.shape, self.factors, self.shape, strict=True)
        ]
        inside = float(np.einsum("zyx,z,y,x->", self.cells.astype(np.float64), *sizes))
        return 1 - inside / math.prod(self.shape)

    @property
    def sha256(self) -> str:
        """Digest of the whole mask."""
        text = f"{self.shape}{self.factors}{self.cells.shape}".encode()
        return hashlib.sha256(text + np.packbits(self.cells).tobytes()).hexdigest()

    def __getitem__(self, selection: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        """Return voxels ``(z, y, x)`` uint8, 1 where there is material; slices with explicit bounds."""
        rows = [
            np.arange(span.start, span.stop) // factor
            for span, factor in zip(selection, self.factors, strict=True)
        ]
        inside: NDArray[np.bool_] = self.cells[np.ix_(*rows)]
        return inside.astype(np.uint8)

    def volume(self, like: Volume) -> Volume:
        """Return the mask as a volume at the place of another one."""
        return Volume(
            source=f"{AUTO} ({self.found})",
            array=self,
            axes=("z", "y", "x"),
            voxel_size=like.voxel_size,
            unit=like.unit,
            ndim=like.ndim,
            name=AUTO,
            translation=like.translation,
        )


def mask_identity(mask: Volume | None) -> dict[str, Any] | None:
    """Return what identifies a mask in the provenance of a run, as JSON values."""
    if mask is None or not isinstance(mask.array, CoarseMask):
        return None if mask is None else mask.identity()
    cells = mask.array
    return {
        "source": AUTO,
        "found": cells.found,
        "skipped": round(cells.share, 6),
        "shape": list(cells.shape),
        "voxels_per_cell": list(cells.factors),
        "sha256": cells.sha256,
    }


def is_auto(mask: Any) -> bool:
    """Return whether a mask is requested to be found in the volume."""
    return isinstance(mask, str | Location) and str(mask) == AUTO


def save_mask(location: Location, mask: Volume | None) -> None:
    """Store a coarse mask in an output, unless it is there; other masks stay where they are."""
    if mask is None or not isinstance(mask.array, CoarseMask):
        return
    cells = mask.array
    if (kept := read_mask(location)) is not None and kept.sha256 == cells.sha256:
        return
    store = MemoryStore()
    factors = np.array(cells.factors, np.float64)
    size = np.array(mask.voxel_size)
    scale = tuple(float(value) for value in size * factors)
    start = tuple(float(value) for value in np.array(mask.translation) + size * (factors - 1) / 2)
    entry = ome.write_multiscale(NAME, "zyx", mask.unit, [ome.Level("0", scale, start)])
    own = {"voxels_per_cell": list(cells.factors), "shape": list(cells.shape), "found": cells.found}
    attributes = {"ome": {"version": ome.VERSION, "multiscales": [entry]}, _ATTRIBUTES: {NAME: own}}
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    chunks = tuple(min(side, 256) for side in cells.cells.shape)
    array = group.create_array(
        "0",
        shape=cells.cells.shape,
        dtype="uint8",
        chunks=chunks,
        fill_value=0,
        dimension_names=["z", "y", "x"],
    )
    array[...] = cells.cells
    for key, value in sorted(sync(_contents(store)).items(), key=lambda item: item[0] == "zarr.json"):
        location.write_bytes(f"{NAME}/{key}", value)  # the metadata of the group last


async def _contents(store: MemoryStore) -> dict[str, bytes]:
    found = {}
    async for key in store.list():
        value = await store.get(key, default_buffer_prototype())
        assert value is not None
        found[key] = value.to_bytes()
    return found


def read_mask(location: Location, name: str = NAME) -> CoarseMask | None:
    """Return the mask that :func:`save_mask` stored in an output; ``None`` without a whole one."""
    inside = Location.of(f"{location.url.rstrip('/')}/{name}", location.options) if name else location
    try:
        own = (inside.attributes() or {}).get(_ATTRIBUTES)
        values = own.get(NAME) if isinstance(own, Mapping) else None
        return None if values is None else _checked(inside, values)
    except (InputError, OSError):
        return None


def _checked(location: Location, values: Any) -> CoarseMask | None:
    if not isinstance(values, Mapping):
        return None
    factors, shape = _shape(values.get("voxels_per_cell")), _shape(values.get("shape"))
    if factors is None or shape is None:
        return None
    cells = open_volume(location)
    expected = tuple(-(-length // factor) for length, factor in zip(shape, factors, strict=True))
    if cells.shape != expected or math.prod(expected) > _MOST_VOXELS:
        return None
    return CoarseMask(cells.read() != 0, factors, shape, str(values.get("found"))[:200])


def _shape(values: Any) -> Shape3 | None:
    sides = values if isinstance(values, list) else []
    if len(sides) != 3 or not all(isinstance(side, int) and 0 < side < 2**31 for side in sides):
        return None
    return sides[0], sides[1], sides[2]
