"""Write the local thickness of each voxel as an OME-Zarr image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.measure_thickness import ThicknessJob, thickness_of_box
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.progress import ProgressCallback, Tally
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.guard import keep_inputs
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume
from hrvol.volume.write_image import write_image


@dataclass(frozen=True, eq=False)
class ThicknessArray:
    """The local thickness of the chosen classes as an array that is computed where it is read.

    Attributes
    ----------
    job
        What is measured.
    side
        Length of the shortest side of a voxel.
    tally
        Counts the voxels that were read.
    """

    job: ThicknessJob
    side: float
    tally: Tally

    @property
    def shape(self) -> Shape3:
        """Voxels per axis, (z, y, x)."""
        return self.job.labels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Lengths, 0 outside of the chosen classes."""
        return np.dtype(np.float32)

    def __getitem__(self, box: Box) -> NDArray[np.float32]:
        """Compute the thickness in a box."""
        found = sum(thickness_of_box(self.job, box), np.zeros(box_shape(box), np.uint16))
        self.tally.finish(tuple(span.start for span in box), math.prod(found.shape))
        lengths: NDArray[np.float32] = (found * self.side).astype(np.float32)
        return lengths


def write_thickness_map(
    path: str | Path,
    job: ThicknessJob,
    sizes: VoxelGrid,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> None:
    """Write the local thickness in units of length, computed block by block in this process.

    Parameters
    ----------
    path
        Of the image, float32: 0 outside of the chosen classes.
    job
        What is measured.
    sizes
        Size of the voxels.
    overwrite
        Whether to replace an earlier output of hrvol.
    progress
        Called with the stage, voxels done and the total.

    Raises
    ------
    OutputExistsError
        The path is occupied.
    """
    side = min(sizes.voxel_size[-sizes.ndim :])
    tally = Tally(progress, "thickness map", math.prod(job.labels.shape))
    image = replace(
        job.labels,
        source="local thickness",
        name="thickness",
        array=ThicknessArray(job, side, tally),
        axes=("z", "y", "x"),
        origin=None,
        channel=None,
    )
    write_image(path, image, overwrite=overwrite)


def check_map(path: str | Path, labels: Volume, overwrite: bool) -> None:
    """Check that a map can be written to a path, before anything is measured.

    Raises
    ------
    UsageError
        It is the path of the labels.
    OutputExistsError
        The path is occupied.
    """
    keep_inputs(path, labels)
    check_overwrite(Location.of(path), overwrite)
