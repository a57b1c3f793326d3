"""Validate what a ledger holds: heads of lanes, and entries of blocks and of parts of coarser levels.

What does not fit counts as damaged: an entry as if it were not there, so that its block is computed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hrvol.errors import UsageError
from hrvol.reading.schema import Name, Schema

Entry = dict[str, Any]

MAIN = "main"
"""Lane of a run that does all blocks."""

PENDING, DONE, FAILED = 0, 1, 2
"""States of a block."""

MOST_ENTRIES = 4096
"""Most entries of a record; hrvol writes 512."""

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Time = Annotated[float, Field(ge=0, le=1e11)]
_Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{1,16}$")]
_Number = Annotated[float, Field(ge=0)]
_Seams = Annotated[list[_Number], Field(min_length=3, max_length=3)]
_Counts = Annotated[dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], _Count], Field(max_length=100_000)]
_Objects = Annotated[list[Annotated[str, Field(pattern=r"^([0-9a-f]{16}|-)$")]], Field(max_length=10_000)]
_Inputs = Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]], Field(max_length=2)]
"""Place and state of the input; version 0.1.0 recorded neither."""

_Text = Annotated[str, Field(max_length=10_000)]
_LANE = re.compile(r"main|part-[1-9][0-9]{0,8}-of-[1-9][0-9]{0,8}")


class _Head(Schema):
    """The driver of a lane."""

    owner: Annotated[str, Field(min_length=1, max_length=100)]
    host: Name
    pid: Annotated[int, Field(ge=1, le=2**31)]
    born: _Time
    began: _Time
    at: _Time
    pulse: _Count
    state: Literal["running", "ended", "stopped"]
    engine: Annotated[str, Field(max_length=10_000)] | None = None
    workers: _Count | None = None


class _Entry(Schema):
    """What all entries have."""

    at: _Time


class _Part(_Entry):
    part: Annotated[str, Field(min_length=1, max_length=500)]
    of: Annotated[str, Field(max_length=64)]
    stamp: Annotated[str, Field(pattern=r"^[0-9a-f]{0,16}$")]


class _Pending(_Entry):
    block: _Count
    state: Literal[0]


class _Failed(_Entry):
    block: _Count
    state: Literal[2]
    reason: _Text


class _Done(_Entry):
    block: _Count
    state: Literal[1]
    stamp: _Checksum
    objects: _Objects = Field(default_factory=list)
    voxels: _Count = 0
    seconds: _Number = 0.0
    counts: _Counts = Field(default_factory=dict)
    seams: _Seams = Field(default_factory=lambda: [0, 0, 0.0])
    read: _Count = 0
    peak: _Count = 0
    inputs: _Inputs = Field(default_factory=list)


_DEFAULTS = {
    name: field.get_default(call_default_factory=True)
    for name, field in _Done.model_fields.items()
    if not field.is_required()
}

_ENTRIES: TypeAdapter[Any] = TypeAdapter(_Part | _Done | _Failed | _Pending)


def valid_head(values: Mapping[str, Any] | None) -> Entry | None:
    """Return the head of a lane; ``None`` if it is missing or damaged."""
    try:
        return None if values is None else {**values, **_Head.model_validate(values).model_dump()}
    except ValidationError:
        return None


def valid_entries(record: Mapping[str, Any] | None) -> Iterator[Entry]:
    """Yield the undamaged entries of a record, with defaults for what they lack."""
    values = (record or {}).get("entries")
    if not isinstance(values, list) or len(values) > MOST_ENTRIES:
        return
    for entry in values:
        try:
            model = _ENTRIES.validate_python(entry)
        except ValidationError:
            continue
        yield {**_DEFAULTS, **entry} if isinstance(model, _Done) else entry


def check_part(part: tuple[int, int] | None) -> None:
    """Raise :class:`UsageError` unless a run is the k-th of n parts, ``(k, n)``, or does all blocks."""
    if part is not None and not 1 <= part[0] <= part[1]:
        raise UsageError(f"part: found {part[0]}/{part[1]}, expected k/n with k from 1 to n")


def lane_of(part: tuple[int, int] | None) -> str:
    """Return the name of the lane of a part, or of a run that does all blocks."""
    return MAIN if part is None else f"part-{part[0]}-of-{part[1]}"


def is_lane(name: str) -> bool:
    """Whether a name is that of a lane: ``main``, or a part such as ``part-2-of-8``."""
    return _LANE.fullmatch(name) is not None
