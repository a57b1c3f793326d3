"""Shapes that were drawn on planes, with their classes, and how they become drawn voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hrvol.arrays import Shape3
from hrvol.classes import MAX_VALUE, ClassInfo, default_colour
from hrvol.errors import StrokesError
from hrvol.text import listed, printable
from hrvol.volume.strokes.painted import Canvas, Painted
from hrvol.volume.strokes.raster import Pixels
from hrvol.volume.strokes.source import class_value


@dataclass(frozen=True)
class Shape:
    """One shape on a plane.

    Attributes
    ----------
    z
        Number of the plane in the source, from 0; ``None``: the source does not say.
    kind
        Name or number of its class as text; ``None``: the source does not say.
    pixels
        Returns its pixels ``(n, 2)``, rows and columns in the source.
    colour
        Red, green and blue of its class, if the source has them.
    name
        Name of the class, where ``kind`` is its number and the source has both.
    anchors
        How many of its first pixels have to be inside of the plane: points, not outlines across the border.
    """

    z: int | None
    kind: str | None
    pixels: Callable[[], Pixels]
    colour: tuple[int, int, int] | None = None
    name: str | None = None
    anchors: int = 0


def paint(
    shapes: Iterable[Shape],
    source: str,
    values: Mapping[str, int],
    *,
    kind: str | None = None,
    offset: Shape3 = (0, 0, 0),
    shape: Shape3 | None = None,
) -> Painted:
    """Return the drawn voxels of shapes; later ones cover earlier ones.

    Parameters
    ----------
    shapes
        In the order of drawing.
    source
        Name for messages.
    values
        Class values by the name or number of the class.
    kind
        Class of shapes that name none.
    offset
        First voxel (z, y, x) of the source in the volume.
    shape
        Voxels (z, y, x) of the volume; ``None``: unknown.

    Raises
    ------
    StrokesError
        A shape has no plane or no class, or lies outside of the volume.
    """
    canvas = Canvas(source)
    for number, one in enumerate(shapes, start=1):
        name = one.kind if one.kind is not None else kind
        if name is None:
            raise StrokesError(
                f"{source}: found no class of shape {number}, expected one in the file, or as {source}::CLASS"
            )
        if one.z is None and shape is not None and shape[0] > 1 and not offset[0]:
            raise StrokesError(
                f"{source}: found no plane (z) of shape {number}, expected one: the volume has {shape[0]}"
            )
        z = (one.z or 0) + offset[0]
        pixels = one.pixels() + offset[1:]
        if shape is not None:
            inside = np.all((pixels >= 0) & (pixels < shape[1:]), axis=1)
            if not 0 <= z < shape[0] or not np.any(inside) or not np.all(inside[: one.anchors]):
                out = int(np.argmin(inside)) if len(pixels) else 0
                place = f"z {z}" + (f", y {pixels[out, 0]}, x {pixels[out, 1]}" if len(pixels) else "")
                raise StrokesError(
                    f"{source}: found shape {number} ({place}) outside of the volume, expected z, y, x below"
                    f" {shape[0]}, {shape[1]}, {shape[2]}"
                )
            pixels = pixels[inside]
        else:
            pixels = pixels[np.all(pixels >= 0, axis=1)] if z >= 0 else pixels[:0]
        canvas.add(z, np.unique(pixels, axis=0), values[name])
    return canvas.painted()


def value_classes(
    shapes: Sequence[Shape], source: str, kind: str | None, names: Sequence[str] | None
) -> tuple[dict[str, int], tuple[ClassInfo, ...] | None]:
    """Return the values of classes by their names or numbers, and what is known of the classes.

    Numbers are values. Names get the values 1, 2, ... in the order of ``names``, or else in alphabetical
    order.

    Parameters
    ----------
    shapes, source, kind
        As in :func:`paint`.
    names
        Names of the classes 1, 2, ... as the user gave them.

    Raises
    ------
    StrokesError
        Names and numbers are mixed, or there is a name that the user did not give.
    """
    kinds: dict[str, Shape | None] = {} if kind is None else {kind: None}
    for one in shapes:
        if one.kind is not None:
            kinds.setdefault(one.kind, one)
    numbers = {text: class_value(text, source) for text in kinds}
    named = sorted(text for text, value in numbers.items() if value is None)
    if named and len(named) < len(numbers):
        others = [text for text in numbers if text not in named]
        raise StrokesError(
            f"{source}: found classes {listed(named, 3)} and {listed(others, 3)}, expected only names or only"
            " numbers"
        )
    if not named:
        values = {text: value for text, value in numbers.items() if value is not None}
    elif names is not None:
        unknown = [text for text in named if text not in names]
        if unknown:
            raise StrokesError(f"{source}: found class {listed(unknown, 3)}, expected {listed(names, 10)}")
        values = {text: names.index(text) + 1 for text in named}
    else:
        values = {text: value for value, text in enumerate(named, start=1)}
    if max(values.values(), default=0) > MAX_VALUE:
        raise StrokesError(f"{source}: found {len(values)} classes, expected at most {MAX_VALUE}")
    infos: dict[int, ClassInfo] = {}
    for text, value in values.items():
        one_shape = kinds[text]
        name = text if named else None if one_shape is None else one_shape.name
        colour = None if one_shape is None else one_shape.colour
        if name is not None or colour is not None:
            label = printable(name or f"class {value}", 200)
            infos.setdefault(value, ClassInfo(value, label, colour or default_colour(value)))
    return values, tuple(infos[value] for value in sorted(infos)) or None
