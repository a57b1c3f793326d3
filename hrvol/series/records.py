"""Records beside outputs: what a step was made of, so that it is done again only if that has changed.

The record of ``results/model.hrvol`` is ``results/.hrvol-run/model.hrvol.json``. It holds digests, no paths,
so that a folder with its outputs may be moved.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hrvol.errors import HrvolError
from hrvol.files import atomic_write
from hrvol.reading.bounded import read_file
from hrvol.reading.schema import Schema, validated
from hrvol.text import printable

FOLDER = ".hrvol-run"
"""Name of the folder of records, in that of the outputs."""

_BYTES = 2**24

_SHOWN = 3

SETTLED = 2.0
"""Seconds after which a file that changes has another time of change, on every file system."""


_FileName = Annotated[str, Field(pattern=r"^[^/]{1,255}$")]


class Record(Schema):
    """How an output was made.

    Attributes
    ----------
    step
        Name of the step.
    request
        What determines the output: settings, and digests of inputs.
    states
        State of the files of inputs whose digests take long: if it is the same, so is the digest.
    files
        Size in bytes of each file or folder of the output, by its name.
    sha256
        Digests of small outputs, by name.
    seconds
        Time that the step took, all runs together.
    results
        Figures for the table.
    at
        Time of the record, in seconds since the epoch.
    """

    step: Annotated[str, Field(max_length=100)]
    request: dict[str, Any] = Field(default_factory=dict)
    states: dict[str, str] = Field(default_factory=dict)
    files: dict[_FileName, int] = Field(default_factory=dict)
    sha256: dict[_FileName, str] = Field(default_factory=dict)
    seconds: Annotated[float, Field(ge=0)] = 0.0
    results: dict[str, Any] = Field(default_factory=dict)
    at: Annotated[float, Field(ge=0)] = 0.0


def record_path(output: str, out: Path) -> Path:
    """Return the file of the record of an output.

    Parameters
    ----------
    output
        Path or URL.
    out
        Folder of the workflow's outputs, which has the records of URLs.
    """
    if "://" in output:
        name = output.rstrip("/").rpartition("/")[2]
        digest = hashlib.sha256(output.encode()).hexdigest()[:8]
        return out / FOLDER / f"{name}.{digest}.json"
    path = Path(output)
    return path.parent / FOLDER / f"{path.name}.json"


def read_record(output: str, out: Path) -> Record | None:
    """Return the record of an output; ``None`` without one, or if it is damaged."""
    path = record_path(output, out)
    if not path.exists():
        return None
    try:
        values = json.loads(read_file(path, _BYTES, "a record of hrvol run"))
        return validated(Record, values, str(path))
    except (HrvolError, ValueError, RecursionError):
        return None


def write_record(output: str, out: Path, record: Record) -> None:
    """Write the record of an output atomically."""
    path = record_path(output, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = record.model_dump() | {"at": time.time()}
    with atomic_write(path, durable=True) as partial:
        partial.write_text(json.dumps(values, indent=1), encoding="utf-8")


def size_of(path: str | Path) -> int | None:
    """Return the bytes of a file, or of all files in a folder; ``None`` if there is nothing."""
    if not os.path.lexists(path):
        return None
    if not os.path.isdir(path):
        return os.stat(path).st_size
    return sum(os.stat(Path(folder) / name).st_size for folder, _, names in os.walk(path) for name in names)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def changed_output(record: Record, output: str) -> str | None:
    """Return what of an output is not as it was recorded, as text; ``None`` if nothing is."""
    folder = Path(output).parent
    for name, size in record.files.items():
        now = size_of(folder / name)
        if now is None:
            return f"{name} is missing"
        if now != size:
            return f"{name} was changed since"
    for name, digest in record.sha256.items():
        if not os.path.isfile(folder / name) or sha256_of(folder / name) != digest:
            return f"{name} was changed since"
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the names of what differs between two requests, as text; empty if nothing does."""
    names = list(_different(before, json.loads(json.dumps(now))))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name, 100) for name in names[:_SHOWN]) + more


def _different(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name in (*now, *(name for name in before if name not in now)):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _different(one, other, f"{above}{name}.")
        elif one != other:
            yield f"{above}{name}"
