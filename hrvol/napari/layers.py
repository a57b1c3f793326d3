"""Turn what hrvol opens into the data of napari's layers, and layers into what hrvol reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes, default_colour
from hrvol.errors import UsageError
from hrvol.interactive.protocols import ShownVolume
from hrvol.progress import format_size
from hrvol.text import printable
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.pictures import Picture
from hrvol.volume.volume import Volume
from hrvol.volume.voxel_array import VoxelArray

LayerData = tuple[Any, dict[str, Any], str]

EDITABLE = 64 * 2**20
"""Most bytes of single-level labels that are loaded into memory, so that they can be painted on."""

_CACHE = 512 * 2**20  # bytes of decoded chunks of all volumes that are shown

_SEEN = 2048  # longest side of the part of a plane that determines the contrast

_ENTRY = "hrvol"

_FURTHER = 64  # classes that have a colour without a name


@cache
def shared_cache() -> ChunkCache:
    """Return the cache of decoded chunks of all layers."""
    return ChunkCache(_CACHE)


class LazyLabels(VoxelArray):
    """Labels that are read when they are shown, and explain why nobody can paint on them."""

    def __setitem__(self, key: Any, values: Any) -> None:
        raise UsageError(
            f"{self.volume.source}: found labels of {format_size(self.nbytes)} or still being written,"
            f" which are read-only, expected at most {format_size(EDITABLE)}:"
            " paint strokes in the panel Paint"
        )


def layer_of(picture: Picture) -> LayerData:
    """Return data, properties and type of the layer that shows a picture.

    Volumes are lazy and keep their levels, but for small labels of one level, which can be painted on.
    Probabilities and uncertainty are hidden at first.
    """
    first = picture.finest
    about = placed(first) | {"name": picture.name, "metadata": {_ENTRY: {"source": first.source}}}
    arrays = [VoxelArray(level, shared_cache() if picture.settled else None) for level in picture.levels]
    data: Any = arrays
    if len(arrays) > 1:
        about["multiscale"] = True
    else:
        data = arrays[0]
    if picture.kind == "labels":
        if len(arrays) == 1 and arrays[0].nbytes <= EDITABLE and picture.settled:
            data = np.asarray(data)
        elif len(arrays) == 1:  # napari lets nobody paint on several levels
            data = LazyLabels(first, shared_cache() if picture.settled else None)
        return data, about | look_of_classes(picture.classes), "labels"
    if picture.kind == "image":
        limits = contrast(picture.levels[-1])
        return data, about | ({} if limits is None else {"contrast_limits": limits}), "image"
    about |= {"contrast_limits": (0, 255), "visible": False, "opacity": 0.6}
    if picture.kind == "uncertainty":
        return data, about | {"colormap": "magma"}, "image"
    from napari.utils.colormaps import Colormap

    (info,) = picture.classes
    colours = [[0, 0, 0, 0], [*np.divide(info.colour, 255), 1]]
    return data, about | {"colormap": Colormap(colours, name=info.name), "blending": "additive"}, "image"


def shown_levels(name: str, levels: Sequence[ShownVolume]) -> LayerData:
    """Return data, properties and type of the layer that shows a volume of a server, level by level.

    The layer names no source, as paths on the server mean nothing here.
    """
    volumes: Any = tuple(levels)
    data, about, kind = layer_of(Picture("image", name, volumes))
    return data, about | {"metadata": {}}, kind


def placed(volume: ShownVolume) -> dict[str, Any]:
    """Return the properties of a layer that place a volume in the world."""
    n = volume.ndim
    about: dict[str, Any] = {
        "scale": volume.voxel_size[-n:],
        "translate": volume.translation[-n:],
        "axis_labels": tuple("zyx"[-n:]),
    }
    if volume.unit is not None and _is_unit(volume.unit):
        about["units"] = (volume.unit,) * n
    return about


def _is_unit(name: str) -> bool:
    import pint

    try:
        pint.get_application_registry().Unit(name)
    except Exception:  # of a parser
        return False
    return True


def look_of_classes(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Return the properties of a Labels layer that show names and colours of classes."""
    if not classes:
        return {}
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, NDArray[np.float32]] = {
        None: np.zeros(4, np.float32),
        0: np.zeros(4, np.float32),
    }
    further = {value: default_colour(value) for value in range(1, _FURTHER + 1)}  # those painted later
    for value, colour in (further | {info.value: info.colour for info in classes}).items():
        colours[value] = np.array([*np.divide(colour, 255), 1], np.float32)
    names = {"index": [0, *(c.value for c in classes)], "class": ["-", *(c.name for c in classes)]}
    return {"colormap": DirectLabelColormap(color_dict=colours), "features": names}


def contrast(volume: Volume) -> tuple[float, float] | None:
    """Return grey values of the middle plane to show as black and white; ``None`` without finite ones."""
    depth, *sides = volume.shape
    spans = [slice(max(0, (n - _SEEN) // 2), max(0, (n - _SEEN) // 2) + min(n, _SEEN)) for n in sides]
    plane = volume.read((slice(depth // 2, depth // 2 + 1), spans[0], spans[1]))
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return None
    low, high = (float(value) for value in np.percentile(finite, (0.1, 99.9)))
    if not low < high:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def plane_of(viewer: Any, layer: Any) -> int | None:
    """Return the plane of a layer that is shown, by its place in the world; ``None`` outside of the layer.

    Steps of the viewer's sliders are of the range of all layers, and are no planes of one of them.
    """
    if layer.ndim < 3:
        return 0
    finest = layer.data[0] if layer.multiscale else layer.data
    plane = round(float(layer.world_to_data(viewer.dims.point)[-3]))
    return plane if 0 <= plane < finest.shape[-3] else None


def source_of(layer: Any) -> str | None:
    """Return the path or URL that a layer shows, as far as it is known."""
    entry = layer.metadata.get(_ENTRY)
    if isinstance(entry, dict) and isinstance(entry.get("source"), str):
        return str(entry["source"])
    path = getattr(layer.source, "path", None)
    return None if path is None else str(path)


def volume_of(data: Any, about: dict[str, Any]) -> Volume:
    """Return the data of a layer, and its properties, as a volume in memory, with voxel size and unit."""
    from hrvol.volume.units import normal_unit
    from hrvol.volume.volume import open_volume

    finest = data[0] if about.get("multiscale") else data
    opened = finest.volume if isinstance(finest, VoxelArray) else open_volume(finest)
    n = opened.ndim
    scale = [float(value) for value in about.get("scale", ())][-n:] or [1.0] * n
    start = [float(value) for value in about.get("translate", ())][-n:] or [0.0] * n
    units = {normal_unit(str(unit)) for unit in about.get("units") or ()}
    unit = units.pop() if len(units) == 1 else None
    z, y, x = (1.0, *scale)[-3:]
    z0, y0, x0 = (0.0, *start)[-3:]
    name = str(about.get("name") or "layer")
    return replace(
        opened,
        source=name if opened.origin is None else opened.source,
        voxel_size=(z, y, x),
        unit=None if unit == "pixel" else unit,
        name=name,
        translation=(z0, y0, x0),
    )


def classes_of(about: dict[str, Any], values: Sequence[int]) -> tuple[ClassInfo, ...]:
    """Return names and colours of classes by the properties of a Labels layer; defaults where it has none.

    Parameters
    ----------
    about
        Properties of the layer, as napari passes them to writers.
    values
        Values of the classes, at least 1.
    """
    table = about.get("features")
    columns = {str(name): list(table[name]) for name in table} if table is not None else {}
    index = columns.get("index", [])
    texts = next((columns[name] for name in ("class", "name", "label") if name in columns), [])
    names = {int(i): str(text) for i, text in zip(index, texts, strict=False) if str(text).strip()}
    colormap = about.get("colormap")
    found = []
    for info in default_classes(sorted(values)):
        colour = info.colour
        if colormap is not None and hasattr(colormap, "map"):
            red, green, blue = (round(255 * float(level)) for level in np.ravel(colormap.map(info.value))[:3])
            colour = red, green, blue
        found.append(ClassInfo(info.value, printable(names.get(info.value, info.name), 200)[:200], colour))
    return tuple(found)
