"""Read shapes from GeoJSON, as QuPath and others write it.

Coordinates are pixels (x, y); the edges of a pixel are at whole numbers. The format is RFC 7946.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import StrokesError
from hrvol.reading.bounded import parse_json
from hrvol.text import printable
from hrvol.volume.strokes.drawing import Shape
from hrvol.volume.strokes.raster import Pixels, disc, path, polygon
from hrvol.volume.strokes.source import MOST_BYTES

_MOST_SHAPES = 5_000_000


def read_geojson(data: bytes, source: str) -> Iterator[Shape]:
    """Yield the shapes of a GeoJSON document.

    The class of a feature is its property ``class`` or ``classification`` (QuPath: a mapping with ``name``
    and ``color``), its plane the property ``z``, the ``plane`` of its geometry, or the third coordinate;
    ``radius`` of points and ``width`` of lines are in pixels.

    Parameters
    ----------
    data
        A FeatureCollection, a Feature, or a list of features.
    source
        Name for messages.

    Raises
    ------
    StrokesError
        The document is damaged.
    """
    document = parse_json(data, source, StrokesError, MOST_BYTES)
    features = document.get("features", [document]) if isinstance(document, dict) else document
    if not isinstance(features, list) or len(features) > _MOST_SHAPES:
        raise StrokesError(f"{source}: found no list of features, expected GeoJSON")
    for number, feature in enumerate(features, start=1):
        where = f"{source}: feature {number}"
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise StrokesError(f"{where}: found no geometry, expected a GeoJSON feature")
        properties = feature.get("properties")
        yield from _shapes(feature["geometry"], properties if isinstance(properties, dict) else {}, where)


def _shapes(geometry: Mapping[str, Any], properties: Mapping[str, Any], where: str) -> Iterator[Shape]:
    kind, colour = _class(properties, where)
    coordinates = geometry.get("coordinates")
    form = str(geometry.get("type"))
    single = {"Point": "MultiPoint", "LineString": "MultiLineString", "Polygon": "MultiPolygon"}
    members = [coordinates] if form in single else coordinates
    form = single.get(form, form)
    if form not in single.values() or not isinstance(members, list):
        raise StrokesError(
            f"{where}: found {printable(form, 60)}, expected points, lines or polygons with coordinates"
        )
    for member in members:
        if form == "MultiPolygon":
            if not isinstance(member, list) or not member:
                raise StrokesError(f"{where}: found a polygon without rings, expected one")
            rings = [_vertices(ring, where) for ring in member]
        else:
            rings = [_vertices([member] if form == "MultiPoint" else member, where)]
        z = _plane(geometry, properties, rings, where)
        flat = [ring[:, :2] for ring in rings]
        yield Shape(
            z, kind, _pixels(form, flat, properties, where), colour, anchors=int(form == "MultiPoint")
        )


def _pixels(
    form: str, rings: list[NDArray[np.float64]], properties: Mapping[str, Any], where: str
) -> Callable[[], Pixels]:
    first = rings[0]
    if form == "MultiPoint":
        radius = _number(properties.get("radius", 0), where, "radius")
        return partial(disc, float(first[0, 0]), float(first[0, 1]), radius, where)
    if form == "MultiLineString":
        return partial(path, first, _number(properties.get("width", 1), where, "width"), where)
    return partial(polygon, rings, where)


def _vertices(values: Any, where: str) -> NDArray[np.float64]:
    """Return vertices as rows (row, column[, z]), with the centres of pixels at whole numbers."""
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not len(points):
        raise StrokesError(f"{where}: found no list of coordinates, expected [x, y] of pixels")
    points[:, :2] = points[:, 1::-1] - 0.5
    return points


def _plane(
    geometry: Mapping[str, Any], properties: Mapping[str, Any], rings: list[NDArray[np.float64]], where: str
) -> int | None:
    plane = geometry.get("plane")
    value = properties.get("z", plane.get("z") if isinstance(plane, dict) else None)
    if value is None and all(ring.shape[1] == 3 for ring in rings):
        planes = np.unique(np.concatenate([ring[:, 2] for ring in rings]))
        if len(planes) > 1:
            raise StrokesError(f"{where}: found a shape across several planes, expected one")
        value = float(planes[0])
    if value is None:
        return None
    number = _number(value, where, "z")
    if not number.is_integer():
        raise StrokesError(f"{where}: found z {number:g}, expected the number of a plane from 0")
    return int(number)


def _number(value: Any, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31:
        raise StrokesError(f"{where}: found {name} {printable(repr(value), 40)}, expected a number from 0")
    return float(value)


def _class(properties: Mapping[str, Any], where: str) -> tuple[str | None, tuple[int, int, int] | None]:
    found: Any = properties.get("class", properties.get("classification"))
    colour = properties.get("color")
    if isinstance(found, dict):
        found, colour = found.get("name"), found.get("color", colour)
    if found is not None and (isinstance(found, bool) or not isinstance(found, str | int | float)):
        raise StrokesError(f"{where}: found class {printable(repr(found), 40)}, expected a name or a number")
    text = None if found is None or not str(found).strip() else str(found).strip()
    levels = colour if isinstance(colour, list) else []
    if len(levels) == 3 and all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
        return text, (levels[0], levels[1], levels[2])
    return text, None
