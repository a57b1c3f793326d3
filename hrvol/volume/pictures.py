"""Find what a path holds for a viewer: images, labels, probabilities, with all their resolution levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import zarr

from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.registry import find
from hrvol.volume.importers.remote_files import find_remote
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.label_documents import PROBABILITIES, UNCERTAINTY
from hrvol.volume.ome.nodes import attributes_of, member, open_zarr
from hrvol.volume.ome.schema import LEVELS
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume

Kind = Literal["image", "labels", "probability", "uncertainty"]


@dataclass(frozen=True, eq=False)
class Picture:
    """One thing to show.

    Attributes
    ----------
    kind
        What its values mean: grey values; classes; the probability of a class, or the uncertainty, as 0..255.
    name
        Name for people.
    levels
        The volume at all its resolutions, finest first.
    classes
        Of labels all classes, of a probability its own.
    settled
        Whether nothing writes to it any more, as far as the metadata tell.
    """

    kind: Kind
    name: str
    levels: tuple[Volume, ...]
    classes: tuple[ClassInfo, ...] = ()
    settled: bool = True

    @property
    def finest(self) -> Volume:
        """The volume itself."""
        return self.levels[0]


def open_pictures(
    source: str | Path | Location, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[Picture, ...]:
    """Open everything that a path holds, from its metadata.

    Parameters
    ----------
    source
        A volume of any format, with the labels inside of it; labels; or an output of a run, complete or not,
        with its probabilities and uncertainty.
    storage_options
        Keywords of the fsspec file system of a URL.

    Returns
    -------
    tuple of Picture
        In the order in which they are drawn on each other.

    Raises
    ------
    InputError
        The path does not exist, or holds something else.
    """
    location = Location.of(source, storage_options)
    name = Path(location.url.rstrip("/")).name
    found = find_remote(location) if location.path is None else find(location)
    if found is not None:
        first = open_volume(location)
        return (Picture("image", first.name, _coarser(location, first, None if found.levels else 1)),)
    try:
        node = open_zarr(location)
    except InputError:
        open_volume(location)  # its message names what a file is
        raise
    if not isinstance(node, zarr.Group):
        return (Picture("image", name, (open_volume(location),)),)
    attributes = attributes_of(node, location.url)
    inner = ome.ome_attributes(attributes)
    made = attributes.get("hrvol")
    if isinstance(made, Mapping) and "recipe" in made:
        return _of_run(location, node, made, name)
    if "image-label" in inner or ome.label_names(attributes, location.url):
        return tuple(_labels(location, name, label) for label in _names(node, location.url) or ("",))
    shares = _of_channels(location, inner, name)
    if shares:
        return shares
    first = open_volume(location)
    image = Picture("image", first.name, _coarser(location, first, _count(attributes, location.url)))
    return (image, *(_labels(location, name, label) for label in _names(node, location.url)))


def _of_run(location: Location, node: zarr.Group, made: Mapping[str, Any], name: str) -> tuple[Picture, ...]:
    """Return the labels of an output, and what stands beside them."""
    settled = made.get("complete") is True
    shown: list[Picture] = []
    for part in (UNCERTAINTY, PROBABILITIES):
        group = member(node, part, location.url)
        if not isinstance(group, zarr.Group):
            continue
        place = replace(location, url=f"{location.url.rstrip('/')}/{part}")
        attributes = attributes_of(group, place.url)
        if part == PROBABILITIES:
            shown += _of_channels(place, ome.ome_attributes(attributes), name, settled)
            continue
        levels = _coarser(place, open_volume(place), _count(attributes, place.url))
        shown.append(Picture("uncertainty", f"{name}: uncertainty", levels, (), settled))
    names = _names(node, location.url)
    if not names and "image-label" in ome.ome_attributes(node.attrs.asdict()):
        names = ("",)  # of a run into an image the group of the labels is the output
    labels = [_labels(location, name, label, settled) for label in names]
    return (*shown, *labels)


def _labels(location: Location, name: str, label: str, settled: bool = True) -> Picture:
    """Return labels of a name (empty: the only ones) with all levels."""
    chosen = label or None
    first = open_labels(location, name=chosen)
    classes = class_info(location, name=chosen) or ()
    levels = [first]
    while len(levels) < LEVELS:
        try:
            levels.append(open_labels(location, name=chosen, level=len(levels)))
        except InputError:
            break
    title = name if not label or label == ome.DEFAULT_LABELS else f"{name}: {label}"
    return Picture("labels", title, tuple(levels), classes, settled)


def _names(node: zarr.Group, source: str) -> tuple[str, ...]:
    """Return the names of the labels in an image, or in a group of labels."""
    names = ome.label_names(attributes_of(node, source), source)
    if names:
        return names
    labels = member(node, "labels", source)
    return ome.label_names(attributes_of(labels, source), source) if isinstance(labels, zarr.Group) else ()


def _of_channels(
    location: Location, inner: Mapping[str, Any], name: str, settled: bool = True
) -> tuple[Picture, ...]:
    """Return the channels of probabilities, one picture each; none of any other image."""
    if Path(location.url.rstrip("/")).name != PROBABILITIES:
        return ()
    rendering = inner.get("omero")
    channels = rendering.get("channels") if isinstance(rendering, Mapping) else None
    count = _count({"ome": inner}, location.url) or 1
    shown = []
    for number, channel in enumerate(channels if isinstance(channels, list) else ()):
        info = _class_of(number, channel)
        levels = tuple(open_volume(location, level=level, channel=number) for level in range(count))
        shown.append(Picture("probability", f"{name}: {info.name}", levels, (info,), settled))
    return tuple(shown)


def _class_of(number: int, channel: Any) -> ClassInfo:
    values = channel if isinstance(channel, Mapping) else {}
    label, colour = values.get("label"), values.get("color")
    try:
        red, green, blue = bytes.fromhex(str(colour))[:3]
    except ValueError:
        red = green = blue = 255
    return ClassInfo(
        number + 1, printable(str(label), 200)[:200] if label else f"class {number + 1}", (red, green, blue)
    )


def _count(attributes: Mapping[str, Any], source: str) -> int | None:
    """Return the number of levels that metadata name; ``None`` if they name none."""
    multiscale = ome.read_multiscale(attributes, source)
    return None if multiscale is None else len(multiscale.levels)


def _coarser(location: Location, first: Volume, count: int | None) -> tuple[Volume, ...]:
    """Return a volume and its coarser levels; ``count`` is their number, ``None`` as many as there are."""
    levels = [first]
    while len(levels) < (LEVELS if count is None else count):
        try:
            levels.append(open_volume(location, level=len(levels)))
        except InputError:
            if count is not None:
                raise
            break
    return tuple(levels)
