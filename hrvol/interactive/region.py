"""Describe the region of a plane that is seen."""

from __future__ import annotations

from dataclasses import dataclass

from hrvol.arrays import Shape3
from hrvol.errors import UsageError
from hrvol.volume.grid.tiling import Box, intersection


@dataclass(frozen=True)
class Region:
    """A region of a plane.

    Attributes
    ----------
    plane
        Number of the plane.
    rows, columns
        Pixels, as slices with explicit bounds.
    level
        Resolution of a preview: one value for ``2**level`` pixels.
    """

    plane: int
    rows: slice
    columns: slice
    level: int = 0

    @property
    def box(self) -> Box:
        """The voxels."""
        return slice(self.plane, self.plane + 1), self.rows, self.columns

    @property
    def bounds(self) -> tuple[int, int, int, int, int]:
        """Plane, first and last rows and columns: a key, as slices cannot be one."""
        return self.plane, self.rows.start, self.rows.stop, self.columns.start, self.columns.stop

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle."""
        return (self.rows.start + self.rows.stop) / 2, (self.columns.start + self.columns.stop) / 2

    def clipped(self, shape: Shape3) -> Region | None:
        """Return what of the region is inside of a volume, or ``None``."""
        inside = intersection(self.box, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])))
        return None if inside is None else Region(self.plane, inside[1], inside[2], self.level)


def visible_region(shape: Shape3, plane: int, rows: slice, columns: slice, level: int) -> Region:
    """Return what of a plane of a volume is seen.

    Raises
    ------
    UsageError
        Nothing of it is inside of the volume, or the level is below 0.
    """
    _, height, width = shape
    region = Region(plane, _bounded(rows, height), _bounded(columns, width), level).clipped(shape)
    if region is None or level < 0:
        raise UsageError(
            f"view: found plane {plane}, rows {rows}, columns {columns}, level {level};"
            f" expected pixels of a volume of shape {shape}"
        )
    return region


def _bounded(span: slice, length: int) -> slice:
    """Return a slice with explicit bounds, which may lie outside; it does not count from the end."""
    return slice(span.start or 0, length if span.stop is None else span.stop)
