"""Find the grey volume and the model of an output: those given, or those recorded if they are the same.

What an output records may come from anybody: only files on this machine are tried, and they count only if
their checksums are those recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hrvol.errors import HrvolError, InputError
from hrvol.report.facts import Facts
from hrvol.run.job import MODEL_FILE
from hrvol.segment.model.model import Model, read_model, read_model_bytes
from hrvol.text import printable
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.pictures import open_pictures
from hrvol.volume.read_options import ReadOptions
from hrvol.volume.storage.location import Location, is_url, located, split_inside
from hrvol.volume.volume import Volume, open_volume


def find_grey(
    facts: Facts, given: Any, storage_options: Mapping[str, Any] | None
) -> tuple[tuple[Volume, ...] | None, str]:
    """Return the grey volume of an output with its coarser levels, and why it is missing.

    Parameters
    ----------
    facts
        Of the output.
    given
        Path, URL or array of the volume; ``None``: the one that the output records.
    storage_options
        Of URLs.

    Raises
    ------
    InputError
        The volume given cannot be read, or is of another shape than the labels.
    """
    shape = facts.labels.finest.shape
    if given is not None:
        levels = _levels(located(given, storage_options))
        found = _from_shape(levels, shape)
        if found is None:
            raise InputError(
                f"{levels[0].source}: found shape {levels[0].shape}, expected {shape} as {facts.location}"
            )
        return _as_grey(found), ""
    if facts.steps:
        return None, "the input of a cleaning are labels; give the grey volume with --volume"
    recorded = facts.attributes.get("input")
    source = recorded.get("source") if isinstance(recorded, Mapping) else None
    if recorded is None or not isinstance(source, str) or is_url(source):
        return None, "the input is no file on this machine; give it with --volume"
    try:
        if not Path(split_inside(source)[0]).exists():
            return None, "the recorded input is not there; give it with --volume"
        found = _from_shape(_levels(_recorded(source, recorded.get("channel"))), shape)
        same = found is not None and found[0].identity()["sha256"] == recorded.get("sha256")
    except (HrvolError, OSError, ValueError):
        return None, "the recorded input cannot be read; give it with --volume"
    return (
        (_as_grey(found), "")
        if same and found is not None
        else (None, "the recorded input has changed; give it with --volume")
    )


def find_model(facts: Facts, given: str | Path | None) -> Model | None:
    """Return the model of an output: the file given, the one recorded, or the copy in the output.

    Raises
    ------
    ModelError
        The file given is no model.
    InputError
        It is another one than the output records.
    """
    recorded = facts.attributes.get("model")
    source = recorded.get("source") if isinstance(recorded, Mapping) else None
    digest = recorded.get("sha256") if isinstance(recorded, Mapping) else None
    if given is not None:
        data = read_model_bytes(given)
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(
                f"{given}: found another model, expected that of {facts.location}, with SHA-256"
                f" {printable(str(digest), 64)}"
            )
        return read_model(data, str(given))
    try:
        if isinstance(source, str) and not is_url(source) and Path(source).is_file():
            data = read_model_bytes(source)
            if hashlib.sha256(data).hexdigest() == digest:
                return read_model(data, source)
        copy = LabelStore(facts.location).read_file(MODEL_FILE)
        if copy is not None and hashlib.sha256(copy).hexdigest() == digest:
            return read_model(copy, f"{facts.location}: model")
    except (HrvolError, OSError, ValueError):
        return None
    return None


def _recorded(source: str, channel: Any) -> Location:
    """Return the place of a recorded input, of which one channel may have been read."""
    location = Location.of(source)
    chosen = isinstance(channel, int) or channel == "mean"
    return replace(location, reading=ReadOptions(channel=channel)) if chosen else location


def _as_grey(levels: tuple[Volume, ...]) -> tuple[Volume, ...]:
    """Return volumes whose pictures are grey: the means of channels of colour ones."""
    return tuple(volume.as_grey() for volume in levels)


def _levels(source: Any) -> tuple[Volume, ...]:
    """Open a volume with all levels; what the user states of it applies to the finest one only."""
    if not isinstance(source, str | Path | Location):
        return (open_volume(source),)
    first = open_volume(source)
    reading = source.reading if isinstance(source, Location) else None
    if reading is not None:
        return (first,)
    location = Location.of(source)
    image = next((picture for picture in open_pictures(location) if picture.kind == "image"), None)
    return (first,) if image is None else tuple(image.levels)


def _from_shape(levels: tuple[Volume, ...], shape: tuple[int, int, int]) -> tuple[Volume, ...] | None:
    """Return the levels from that of a shape on; ``None`` if no level has it."""
    for number, volume in enumerate(levels):
        if volume.shape == shape:
            return levels[number:]
    return None
