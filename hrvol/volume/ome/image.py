"""Add coarser levels to OME-Zarr images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import zarr

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.pyramid import ImagePlan, make_level, make_part, plan_levels
from hrvol.volume.storage.location import Location

BLOCK = (64, 512, 512)
"""Voxels (z, y, x) of a shard of the images that hrvol writes, and so of a part of a level."""

_AXES = ("zyx", "yx", "czyx", "cyx")


@dataclass(frozen=True)
class ImageStore:
    """An OME-Zarr image to which coarser levels are added; cheap to pickle.

    Attributes
    ----------
    location
        Location of the image's group, of OME-Zarr 0.4 (Zarr 2) or 0.5 (Zarr 3).
    block_shape
        Voxels (z, y, x) of a part of a level.
    """

    location: Location
    block_shape: Shape3 = BLOCK

    @property
    def levels(self) -> int:
        """Number of levels in the metadata."""
        return len(self._multiscale.levels)

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """The image, with the coarser levels to compute."""
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
        """Create the empty array of a coarser level."""
        make_level(self._group, self.images[image].levels[level])

    def make_part(self, image: int, level: int, part: int) -> None:
        """Compute one part of a coarser level; several processes may compute different parts."""
        plan = self.images[image]
        make_part(self._group, plan.levels[level], part, plan.reduction)

    def declare(self) -> None:
        """Add the coarser levels to the metadata."""
        group, plan = self._group, self.images[0]
        attributes = group.attrs.asdict()
        image = dict(ome.ome_attributes(attributes))
        datasets = ome.write_multiscale("", plan.axes, plan.unit, plan.resolutions)["datasets"]
        entry, *others = image["multiscales"]
        image["multiscales"] = [{**entry, "datasets": datasets, "type": plan.reduction}, *others]
        if "ome" in attributes:
            group.attrs["ome"] = image
        else:
            group.attrs["multiscales"] = image["multiscales"]

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
        multiscale = ome.read_multiscale(self._group.attrs.asdict(), str(self.location))
        if multiscale is None:
            raise InputError(f"{self.location}: found no 'multiscales', expected an OME-Zarr image")
        return multiscale
