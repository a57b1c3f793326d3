"""Schemas of the JSON values of a model file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from hrvol.classes import MAX_VALUE, ClassInfo
from hrvol.errors import ModelError
from hrvol.reading.schema import Name, Schema, validated
from hrvol.segment.model.doubt import CalibrationEntry, DriftEntry
from hrvol.segment.positions import MAX_DEGREE
from hrvol.segment.student.spec import StudentSpec

_CHANNELS = 50_000


class MemberEntry(Schema):
    """An estimator and its columns, first and last + 1."""

    name: Name
    columns: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class PositionEntry(Schema):
    """Degree and columns of a position field."""

    degree: Annotated[int, Field(ge=1, le=MAX_DEGREE)]
    columns: Annotated[int, Field(ge=1, le=_CHANNELS)]


class ClusterEntry(Schema):
    """The values of a cluster classifier that are no arrays."""

    position: PositionEntry | None
    count: Annotated[int, Field(ge=1, le=4095)]
    attention: bool
    temperature: Annotated[float, Field(gt=0)]
    semantic_distance: float | None


class StudentEntry(Schema):
    """The values of a student that are no arrays, but for what it was taught."""

    spec: StudentSpec
    temperature: Annotated[float, Field(ge=0.01, le=100)]


class _TaughtVolume(Schema):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class _TaughtGrey(Schema):
    mean: Annotated[float, Field(ge=0, le=1)]
    std: Annotated[float, Field(ge=0, le=1)]


class TaughtEntry(Schema):
    """Those values of what a student was taught that are used."""

    volume: _TaughtVolume | None = None
    grey: _TaughtGrey | None = None


class ModelInfo(Schema):
    """``info.json`` but for the format, ``trained_on`` and ``student``."""

    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    channels: Annotated[tuple[Name, ...], Field(min_length=1, max_length=_CHANNELS)]
    versions: Annotated[dict[Name, Name], Field(max_length=100)]
    backend: Literal["torch", "openvino", "openvino-bf16"] = "torch"
    members: Annotated[tuple[MemberEntry, ...], Field(max_length=3)] = ()
    clusters: ClusterEntry | None = None
    drift: DriftEntry | None = None
    calibration: CalibrationEntry | None = None


def read_info(values: Mapping[str, Any], source: str) -> tuple[ModelInfo, tuple[Mapping[str, Any], ...]]:
    """Return the values of ``info.json``, and what the model was trained on.

    The latter may be anything: names of files need not be Unicode.

    Parameters
    ----------
    values
        JSON values, whose format is checked.
    source
        Name of the file, for messages.

    Raises
    ------
    ModelError
        A value is damaged.
    """
    trained_on = values.get("trained_on")
    if not isinstance(trained_on, list) or not all(isinstance(entry, dict) for entry in trained_on):
        raise ModelError(f"{source}: trained_on: found damaged entries, expected a list of mappings")
    others = {key: value for key, value in values.items() if key not in ("trained_on", "student")}
    return validated(ModelInfo, others, source, ModelError), tuple(trained_on)


_Level = Annotated[int, Field(ge=0, le=255)]


class _ClassEntry(Schema):
    value: Annotated[int, Field(ge=1, le=MAX_VALUE)]
    name: Name
    colour: tuple[_Level, _Level, _Level]


class _ClassTable(Schema):
    classes: Annotated[tuple[_ClassEntry, ...], Field(min_length=1, max_length=MAX_VALUE)]


def read_class_table(entries: Any, source: str) -> tuple[ClassInfo, ...]:
    """Return the classes of ``classes.json``.

    Parameters
    ----------
    entries
        JSON values.
    source
        Name of the file, for messages.

    Raises
    ------
    ModelError
        An entry is damaged, or values do not increase.
    """
    table = validated(_ClassTable, {"classes": entries}, source, ModelError).classes
    if any(one.value >= following.value for one, following in pairwise(table)):
        raise ModelError(f"{source}: found values out of order, expected increasing ones")
    return tuple(ClassInfo(entry.value, entry.name, entry.colour) for entry in table)
