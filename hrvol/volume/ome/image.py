"""Grey volumes as OME-Zarr: written block by block, and given coarser levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import zarr

from hrvol.errors import InputError
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.pyramid import ImagePlan, make_level, make_part, plan_levels
from hrvol.volume.storage.location import Location

BLOCK = (64, 512, 512)
"""Voxels (z, y, x) of a shard, and of a part of a level, of images that hrvol writes."""

_AXES = ("zyx", "yx", "czyx", "cyx")


@dataclass(frozen=True)
class ImageStore:
    """An OME-Zarr image that gets coarser levels; cheap to pickle.

    Attributes
    ----------
    location
        Of the image's group, of OME-Zarr 0.4 (Zarr 2) or 0.5 (Zarr 3).
    block_shape
        Voxels (z, y, x) of a part of a level.
    """

    location: Location
    block_shape: tuple[int, int, int] = BLOCK

    @property
    def levels(self) -> int:
        """How many levels the image says it has."""
        return len(self._multiscale.levels)

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """The image, and the coarser levels that are to be made of it."""
        multiscale = self._multiscale
        axes, first = "".join(multiscale.axes), multiscale.levels[0]
        array = self._group.get(first.path)
        if axes not in _AXES or not isinstance(array, zarr.Array):
            raise InputError(
                f"{self.location}: found axes {', '.join(multiscale.axes)}, expected (c), (z), y, x"
            )
        plans = plan_levels(array.shape, axes, first, self.block_shape)
        return (ImagePlan("", axes, multiscale.units[-1], "mean", first, plans),)

    def make_level(self, image: int, level: int) -> None:
        """Make the empty array of a coarser level."""
        make_level(self._group, self.images[image].levels[level])

    def make_part(self, image: int, level: int, part: int) -> None:
        """Make one part of a coarser level; any number of processes may make different ones."""
        plan = self.images[image]
        make_part(self._group, plan.levels[level], part, plan.reduction)

    def declare(self) -> None:
        """Say in the metadata that the coarser levels are there."""
        group, plan = self._group, self.images[0]
        said = group.attrs.asdict()
        inner = dict(ome.ome_attributes(said))
        levels = (plan.first, *(coarser.level for coarser in plan.levels))
        made = ome.write_multiscale("", plan.axes, plan.unit, levels, plan.reduction)
        entry, *others = inner["multiscales"]
        inner["multiscales"] = [{**entry, "datasets": made["datasets"], "type": plan.reduction}, *others]
        if "ome" in said:
            group.attrs["ome"] = inner
        else:
            group.attrs["multiscales"] = inner["multiscales"]

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageStore, (self.location, self.block_shape)

    @cached_property
    def _group(self) -> zarr.Group:
        try:
            return zarr.open_group(self.location.store(read_only=False), mode="r+")
        except (FileNotFoundError, ValueError):
            raise InputError(f"{self.location}: found no Zarr group, expected an OME-Zarr image") from None

    @property
    def _multiscale(self) -> ome.Multiscale:
        found = ome.read_multiscale(self._group.attrs.asdict(), str(self.location))
        if found is None:
            raise InputError(f"{self.location}: found no 'multiscales', expected an OME-Zarr image")
        return found
