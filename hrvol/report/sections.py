"""Make the pictures of a report: slices along the axes, a slider, a montage, surfaces, the worst plane."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.sizes import VoxelGrid
from hrvol.classes import ClassInfo
from hrvol.errors import UnreadableError
from hrvol.figures.slices import (
    bar_of,
    class_layer,
    encoded,
    grey_picture,
    heat_picture,
    montage,
    over,
    picture_size,
    resized,
    with_bar,
)
from hrvol.figures.surfaces import draw_surfaces
from hrvol.report.planes import coarse_labels
from hrvol.report.view import View, positions
from hrvol.volume.grid.tiling import Box, intersection
from hrvol.volume.units import metres

MOST_PLANES, FEWEST_PLANES = 24, 6
"""Planes of the slider."""

ALL_VOXELS = 2**30
"""Most voxels that are decoded for all planes of the slider, about."""

SLIDER_BYTES = 5_500_000
"""Most bytes of the pictures of the slider: a page is to stay below 8 MB."""

SURFACE_VOXELS = 2**21
"""Most voxels of the labels whose surfaces are drawn."""

_OPACITY = 0.55

_TILES, _TILE = 12, 220  # of the montage, and pixels of their longer side

_MOST_SURFACE = (
    0.5  # share of the voxels that the classes have together whose surfaces are drawn, if not chosen
)

_AXES = "zyx"


@dataclass(frozen=True)
class Image:
    """A picture of a page.

    Attributes
    ----------
    data
        A data URL.
    width, height
        In pixels.
    alt
        What it shows.
    """

    data: str = field(repr=False)
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Slice:
    """A slice of a volume: grey values, and the classes to be laid over them.

    Attributes
    ----------
    title
        Such as ``z = 24``.
    grey
        Grey values with a scale bar; black with one where there are none.
    classes
        The classes, transparent where no class is.
    bar
        Length of the scale bar in words.
    """

    title: str
    grey: Image
    classes: Image
    bar: str

    @property
    def size(self) -> int:
        """Bytes of both pictures in a page."""
        return len(self.grey.data) + len(self.classes.data)


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane as it was read.

    Attributes
    ----------
    axis, position
        Axis across, and voxel on it.
    grey, labels
        ``(Y, X)`` of one size: uint8, and label values.
    width
        In units of length.
    note
        What is special about it; begins with a comma.
    """

    axis: int
    position: int
    grey: NDArray[np.uint8]
    labels: NDArray[Any]
    width: float
    note: str


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn: labels and grey values of one box.

    Attributes
    ----------
    labels, grey
        The same box; ``None``: no grey values.
    classes
        Of the labels.
    window
        Grey values that are black and white.
    """

    labels: View
    grey: View | None
    classes: tuple[ClassInfo, ...]
    window: tuple[float, float]

    @property
    def unit_metres(self) -> float | None:
        """Length of the unit in metres; ``None``: lengths are in voxels."""
        grid = VoxelGrid.of(self.labels.levels[0])
        return None if grid.unit is None else metres(grid.unit)

    def lengths(self, box: Box) -> tuple[float, float, float]:
        """Return the sides (z, y, x) of a box in units of length; in voxels without one."""
        size = VoxelGrid.of(self.labels.levels[0]).voxel_size
        z, y, x = ((span.stop - span.start) * side for span, side in zip(box, size, strict=True))
        return z, y, x

    def affordable(self, axis: int) -> tuple[View, View | None]:
        """Return the views, cropped such that a plane across an axis is not too costly in any of them."""
        box = self.labels.affordable(axis)
        if self.grey is not None:
            box = intersection(box, self.grey.affordable(axis)) or box
        labels = View(self.labels.levels, box)
        return labels, None if self.grey is None else View(self.grey.levels, box, averaged=True)

    def plane(self, axis: int, position: int) -> Plane:
        """Read a plane across an axis."""
        labels, grey = self.affordable(axis)
        sides = [length for number, length in enumerate(self.lengths(labels.box)) if number != axis]
        size = picture_size(sides[0], sides[1])
        classes = resized(labels.plane(axis, position), size)
        shown = np.zeros(size, np.uint8)
        note = "" if labels.box == self.labels.box else ", a part around the middle"
        if grey is not None:
            try:
                shown = grey_picture(resized(grey.plane(axis, position), size), self.window)
            except UnreadableError:  # blocks of this plane have failed for the same reason
                note += ", grey values cannot be read"
        return Plane(axis, position, shown, classes, sides[1], note)


def slice_of(scene: Scene, plane: Plane) -> Slice:
    """Return the slice that shows a plane."""
    share, bar = bar_of(plane.width, scene.unit_metres)
    with_scale, corner = with_bar(plane.grey, share, bar)
    padded = np.zeros(with_scale.shape[:2], plane.labels.dtype)  # a bar below a low picture
    padded[: plane.labels.shape[0], : plane.labels.shape[1]] = plane.labels
    padded[corner] = 0
    where = f"{_AXES[plane.axis]} = {plane.position}{plane.note}"
    names = "".join(name for number, name in enumerate(_AXES) if number != plane.axis)[::-1]
    kind = "Grey values" if scene.grey is not None else "Scale bar"
    return Slice(
        f"{names}, {where}",
        image_of(encoded(with_scale), with_scale, f"{kind} of the {names} slice at {where}; scale bar {bar}"),
        image_of(class_layer(padded, scene.classes), padded, f"Classes of the same slice, {where}"),
        bar,
    )


def orthogonal(scene: Scene) -> list[Slice]:
    """Return the slices through the middle of the box across each axis with more than one voxel."""
    box = scene.labels.box
    shape = scene.labels.levels[0].shape
    middles = [(span.start + span.stop) // 2 for span in box]
    across = [axis for axis in range(3) if axis == 0 or (shape[0] > 1 and box[0].stop - box[0].start > 1)]
    return [slice_of(scene, scene.plane(axis, middles[axis])) for axis in across]


def slider_planes(scene: Scene) -> list[Plane]:
    """Read the planes of the slider: as many as are not too costly."""
    labels, grey = scene.affordable(0)
    cost = max(view.cost(0) for view in (labels, grey) if view is not None)
    count = min(MOST_PLANES, max(FEWEST_PLANES, ALL_VOXELS // cost))
    return [scene.plane(0, position) for position in positions(labels.box[0], count)]


def slider(scene: Scene, planes: Sequence[Plane]) -> list[Slice]:
    """Return the slices of the slider: every second one, or fewer, where all would be too large."""
    slices = [slice_of(scene, plane) for plane in planes]
    while len(slices) > 2 and sum(one.size for one in slices) > SLIDER_BYTES:
        slices = slices[len(slices) // 2 % 2 :: 2]
    return slices


def montage_of(scene: Scene, planes: Sequence[Plane]) -> Image:
    """Return some planes with their classes side by side."""
    step = max(1, -(-len(planes) // _TILES))
    shown = list(planes)[step // 2 :: step]
    tiles = []
    for plane in shown:
        size = picture_size(plane.grey.shape[0], plane.grey.shape[1], _TILE)
        opacity = _OPACITY if scene.grey is not None else 1.0
        tiles.append(over(resized(plane.grey, size), resized(plane.labels, size), scene.classes, opacity))
    sheet = montage(tiles, min(4, len(tiles)))
    names = ", ".join(str(plane.position) for plane in shown)
    return image_of(encoded(sheet), sheet, f"Planes {names} with their classes, row by row")


def surface_classes(
    classes: Sequence[ClassInfo], fractions: Sequence[float], chosen: Sequence[str]
) -> tuple[ClassInfo, ...]:
    """Return the classes whose surfaces are drawn: those chosen, or the rarest that fill less than half."""
    if chosen:
        return tuple(info for info in classes if info.name in chosen or str(info.value) in chosen)
    order = sorted(
        (share, info.value, info) for share, info in zip(fractions, classes, strict=True) if share > 0
    )
    found: list[ClassInfo] = []
    total = 0.0
    for share, _, info in order:
        total += share
        if found and total > _MOST_SURFACE:
            break
        found.append(info)
    return tuple(found[:6])


def surface_of(scene: Scene, classes: Sequence[ClassInfo]) -> Image | None:
    """Return the surfaces of classes in 3D; ``None`` for images and where no level is small enough."""
    box = scene.labels.box
    if min(span.stop - span.start for span in box) < 2 or not classes:
        return None
    found = coarse_labels(scene.labels, SURFACE_VOXELS)
    if found is None or min(found[0].shape) < 2:
        return None
    labels, spacing = found
    if VoxelGrid.of(scene.labels.levels[0]).unit is None:
        z, y, x = ((span.stop - span.start) / side for span, side in zip(box, labels.shape, strict=True))
        spacing = (z, y, x)
    picture = draw_surfaces(labels, {info.value: info.colour for info in classes}, spacing)
    if picture is None:
        return None
    names = ", ".join(info.name for info in classes)
    return image_of(encoded(picture), picture, f"Surfaces of {names} in 3D, seen from above")


def doubtful_plane(scene: Scene, uncertainty: View, position: int) -> Image:
    """Return a plane as grey values, with its classes, and its uncertainty as heat, side by side."""
    plane = scene.plane(0, position)
    box = scene.affordable(0)[0].box
    doubt = View(uncertainty.levels, box, averaged=True).plane(0, position)
    heat = heat_picture(resized(doubt, plane.grey.shape[:2]))
    share, bar = bar_of(plane.width, scene.unit_metres)
    opacity = _OPACITY if scene.grey is not None else 1.0
    parts = [over(plane.grey, plane.labels, scene.classes, opacity), heat]
    parts = [np.repeat(plane.grey[..., None], 3, axis=-1), *parts] if scene.grey is not None else parts
    parts[0], _ = with_bar(parts[0], share, bar)
    height = parts[0].shape[0]
    parts[1:] = [np.pad(part, ((0, height - part.shape[0]), (0, 0), (0, 0))) for part in parts[1:]]
    sheet = montage(parts, len(parts))
    first = "grey values, " if scene.grey is not None else ""
    return image_of(
        encoded(sheet),
        sheet,
        f"Plane {position}: {first}classes, uncertainty (bright: uncertain); scale bar {bar}",
    )


def image_of(file: tuple[str, bytes], picture: NDArray[Any], alt: str) -> Image:
    """Return a picture of a page."""
    kind, data = file
    text = base64.b64encode(data).decode("ascii")
    return Image(f"data:{kind};base64,{text}", picture.shape[1], picture.shape[0], alt)
