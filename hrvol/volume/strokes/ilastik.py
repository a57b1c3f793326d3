"""Read the labels of ilastik projects (``*.ilp``, HDF5).

``/PixelClassification/LabelSets/labels000/block0000`` holds a box of labels of the first lane, with its place
in the attribute ``blockSlice`` (``[0:1,2:3,4:5]``), and since version 1.4 its axes in ``axistags``; blocks of
older projects have the axes of the lane (``/Input Data/infos/lane0000/Raw Data``), those of one workflow of
version 1.3.3 the order t, x, y, z, c. Names and colours of all lanes are in ``LabelNames`` and
``LabelColors``. Source: ilastik's ``SerialBlockSlot``
(ilastik/applets/base/appletSerializer/slotSerializer.py) and ``BackwardsCompatibleLabelSerialBlockSlot``
(ilastik/applets/pixelClassification/pixelClassificationSerializer.py).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_colour
from hrvol.errors import HrvolError, MissingExtraError, StrokesError, first_line
from hrvol.reading.bounded import parse_json
from hrvol.text import is_name, listed, printable
from hrvol.volume.storage.location import Location
from hrvol.volume.strokes.painted import MOST_PAINTED, Painted
from hrvol.volume.strokes.source import read_drawing

_BLOCK = 2**30
"""Most voxels of a block."""

_APPLETS = ("PixelClassification", "pixelClassification")

_CANONICAL = "txyzc"

_CANONICAL_IN = ("Object Classification (from pixel classification)", ("1.3.3", "1.3.3post1"))
"""Workflow and versions whose blocks have the canonical order, whatever the axes of the lane are."""


def read_project(location: Location, lane: str | int | None) -> tuple[Painted, tuple[ClassInfo, ...]]:
    """Return the labels of a lane of a project, and its classes.

    Parameters
    ----------
    location
        The project.
    lane
        Nickname, name of the file, or number (from 0) of a lane; ``None``: the only one with labels.

    Raises
    ------
    StrokesError
        The file is no project, damaged, has no labels, or several lanes have and none is named.
    MissingExtraError
        h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(f"{location}: ilastik projects need h5py (pip install 'hrvol[io]')") from None
    path = location.path
    stream = io.BytesIO(read_drawing(location, "an ilastik project")) if path is None else path
    try:
        with h5py.File(stream, "r") as project:
            applet = _applet(project, str(location))
            classes = _classes(applet, str(location))
            sets = _group(applet, "LabelSets", str(location))
            number = _lane(project, sets, lane, str(location))
            return _labels(project, sets, number, str(location)), classes
    except (HrvolError, MemoryError):
        raise
    except Exception as error:  # of damaged files: h5py raises many types
        raise StrokesError(f"{location}: found {first_line(error)}, expected an ilastik project") from None


def _applet(project: Any, source: str) -> Any:
    """Return the group of the first applet with labels; that of the first stage of an autocontext."""
    names = [name for name in project if isinstance(name, str)]
    ordered = [name for name in _APPLETS if name in names] + sorted(names)
    for name in ordered:
        group = _hard(project, name)
        if group is not None and hasattr(group, "keys") and "LabelSets" in group:
            return group
    raise StrokesError(f"{source}: found no labels, expected an ilastik project of pixel classification")


def _hard(group: Any, name: str) -> Any:
    """Return a member of a group; ``None`` for links, which may lead to other files."""
    import h5py

    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _group(parent: Any, name: str, source: str) -> Any:
    group = _hard(parent, name)
    if group is None or not hasattr(group, "keys"):
        raise StrokesError(f"{source}: {name}: found no group, expected an ilastik project")
    return group


def _classes(applet: Any, source: str) -> tuple[ClassInfo, ...]:
    names = _values(applet, "LabelNames", source)
    colours = _values(applet, "LabelColors", source)
    infos = []
    for value, entry in enumerate(names, start=1):
        text = entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry)
        name = text if 0 < len(text) <= 200 and is_name(text) else f"class {value}"
        colour = default_colour(value)
        if len(colours) >= value and np.size(colours[value - 1]) >= 3:
            red, green, blue = (min(255, max(0, int(level))) for level in np.ravel(colours[value - 1])[:3])
            colour = (red, green, blue)
        infos.append(ClassInfo(value, name, colour))
    return tuple(infos)


def _values(applet: Any, name: str, source: str) -> list[Any]:
    dataset = _hard(applet, name) if name in applet else None
    if dataset is None or not hasattr(dataset, "shape") or bool(dataset.attrs.get("isEmpty", False)):
        return []
    if not dataset.shape or math.prod(dataset.shape) > 4 * 65_536 or dataset.external or dataset.is_virtual:
        raise StrokesError(f"{source}: {name}: found shape {dataset.shape}, expected a list of classes")
    return list(dataset[()])


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found and len(found.group()) < 10 else 0


def _lane(project: Any, sets: Any, lane: str | int | None, source: str) -> str:
    """Return the name of the group of labels of a lane."""
    groups: list[str] = sorted(sets, key=_number)
    names = {group: _nicknames(project, _number(group)) for group in groups}
    if lane is not None:
        text = str(lane)
        chosen = [group for group in groups if text in names[group]]
        if not chosen and text.isdecimal():
            chosen = [group for group in groups if _number(group) == int(text)]
        if len(chosen) == 1:
            return chosen[0]
        found = f"{len(chosen)} lanes" if chosen else "no lane"
        raise StrokesError(
            f"{source}: found {found} {printable(text, 100)!r}, expected one of {_shown(names)}"
        )
    drawn = [group for group in groups if len(_group(sets, group, source))]
    if len(drawn) == 1:
        return drawn[0]
    if not drawn:
        raise StrokesError(f"{source}: found no labels in {len(groups)} lanes, expected drawn labels")
    raise StrokesError(
        f"{source}: found labels in {len(drawn)} lanes, expected one of them as {source}::LANE:"
        f" {_shown({group: names[group] for group in drawn})}"
    )


def _shown(names: dict[str, list[str]]) -> str:
    return listed(
        (f"{_number(group)} ({of[0]})" if of else str(_number(group)) for group, of in names.items()), 10
    )


def _info(project: Any, number: int) -> Any:
    """Return the group that describes the raw data of a lane, or ``None``."""
    group = project.get("Input Data/infos")
    lane = None if group is None else group.get(f"lane{number:04d}")
    return None if lane is None else lane.get("Raw Data")


def _text(group: Any, name: str) -> str:
    dataset = None if group is None else group.get(name)
    if dataset is None or getattr(dataset, "shape", None) != ():
        return ""
    value = dataset[()]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _nicknames(project: Any, number: int) -> list[str]:
    """Return the names by which a lane may be called: nickname, path of its file, name of its file."""
    info = _info(project, number)
    path = _text(info, "filePath")
    file = re.split(r"[\\/]", path)[-1]
    return [name for name in (_text(info, "nickname"), path, file) if name]


def _labels(project: Any, sets: Any, group_name: str, source: str) -> Painted:
    group = _group(sets, group_name, source)
    lane = _info(project, _number(group_name))
    workflow, versions = _CANONICAL_IN
    forced = _text(project, "workflowName") == workflow and _text(project, "ilastikVersion") in versions
    of_lane = _keys(_text(lane, "axistags"), source) or _text(lane, "axisorder")
    fallback = (_CANONICAL,) if forced else (of_lane, _CANONICAL)
    places, values, count = [], [], 0
    for name in sorted(group):
        where = f"{source}: {group_name}/{printable(name, 40)}"
        block = _hard(group, name)
        if block is None:
            raise StrokesError(f"{where}: found a link, expected a block of labels")
        attributes = block.attrs
        dataset = _hard(block, "data") if hasattr(block, "keys") else block  # a masked array is a group
        for place, drawn in _drawn(dataset, attributes, fallback, where):
            count += len(drawn)
            if count > MOST_PAINTED:
                raise StrokesError(f"{source}: found more than {MOST_PAINTED:,} drawn pixels, expected fewer")
            places.append(place)
            values.append(drawn)
    if not places:
        return Painted.of(np.empty((0, 3)), np.empty(0))
    return Painted.of(np.concatenate(places), np.concatenate(values))


def _drawn(
    dataset: Any, attributes: Any, fallback: Sequence[str], where: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Yield the drawn voxels of a block: places ``(n, 3)`` and class values ``(n,)``."""
    spans = _spans(attributes.get("blockSlice"), where)
    shape = tuple(stop - start for start, stop in spans)
    if dataset is None or dataset.external or dataset.is_virtual or dataset.dtype.kind not in "iu":
        raise StrokesError(f"{where}: found no labels, expected whole numbers in this file")
    if dataset.shape != shape or math.prod(shape) > _BLOCK:
        raise StrokesError(f"{where}: found shape {dataset.shape}, expected {shape} of its blockSlice")
    axes = _order(attributes.get("axistags"), fallback, len(shape), where)
    for axis, (start, stop) in zip(axes, spans, strict=True):
        if axis not in "zyx" and (start, stop) != (0, 1):
            name = {"t": "times", "c": "channels"}.get(axis, f"axis {axis}")
            raise StrokesError(
                f"{where}: found labels at {start}:{stop} of {name}, expected the first one only"
            )
    labels = dataset[()]
    inside = np.nonzero(labels)
    place = np.zeros((len(inside[0]), 3), np.int64)
    for axis, (start, _), found in zip(axes, spans, inside, strict=True):
        if axis in "zyx":
            place[:, "zyx".index(axis)] = found + start
    drawn = labels[inside]
    if len(drawn) and not 0 < int(drawn.min()) <= int(drawn.max()) <= 65_535:
        raise StrokesError(f"{where}: found labels {drawn.min()} to {drawn.max()}, expected 1 to 65535")
    yield place, drawn


def _spans(text: Any, where: str) -> list[tuple[int, int]]:
    plain = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    if not re.fullmatch(r"\[\d{1,10}:\d{1,10}(,\d{1,10}:\d{1,10}){1,5}\]", plain):
        raise StrokesError(f"{where}: found blockSlice {printable(plain, 60)}, expected [0:1,2:3,...]")
    return [(int(a), int(b)) for a, b in (part.split(":") for part in plain[1:-1].split(","))]


def _order(tags: Any, fallback: Sequence[str], count: int, where: str) -> str:
    """Return the axes of a block; a stack that was opened as a series of times is one of planes."""
    text = tags.decode(errors="replace") if isinstance(tags, bytes) else str(tags or "")
    for axes in (_keys(text, where), *fallback):
        if len(axes) == count and {"y", "x"} <= set(axes):
            return axes if "z" in axes else axes.replace("t", "z")
    raise StrokesError(f"{where}: found {count} axes without names, expected axistags")


def _keys(text: str, source: str) -> str:
    """Return the letters of axes in the JSON of vigra's axis tags; empty if there are none."""
    if not text:
        return ""
    tags = parse_json(text, source, StrokesError)
    axes: Sequence[Any] = tags.get("axes", ()) if isinstance(tags, dict) else ()
    keys = [str(axis.get("key", "")) for axis in axes if isinstance(axis, dict)]
    return "".join(keys) if all(len(key) == 1 for key in keys) and len(set(keys)) == len(keys) else ""
