"""Read and write the student of a model file: its weights, its architecture, and what it was taught."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hrvol.errors import ModelError, first_line
from hrvol.reading.archive import read_member
from hrvol.reading.schema import validated
from hrvol.segment.model.archive import LIMITS
from hrvol.segment.model.schemas import StudentEntry, TaughtEntry
from hrvol.segment.student.lattice import least_memory
from hrvol.segment.student.shapes import array_shapes
from hrvol.segment.student.student import MOST_CLASSES, StudentClassifier
from hrvol.text import printable

MEMBER = "student.safetensors"

_HEADER = 64 * 2**10  # bytes of names and shapes, at most

_MEMORY = 4 * 2**30  # bytes of a prediction, at most

_TAUGHT = 2**20  # bytes of JSON, at most

_DEPTH = 12  # of mappings and lists in it


def student_members(student: StudentClassifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the members of the zip, and the JSON values for its ``info.json``.

    Raises
    ------
    ModelError
        What the student was taught is no JSON, or has NaN or infinity.
    """
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in student.arrays.items()}
    try:
        taught = json.loads(json.dumps(dict(student.taught), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ModelError(f"taught: found {first_line(error)}, expected finite JSON values") from None
    entries = {"spec": student.spec.to_dict(), "temperature": float(student.temperature), "taught": taught}
    return {MEMBER: safetensors.numpy.save(arrays)}, entries


def read_student(
    archive: zipfile.ZipFile, values: Any, classes: tuple[int, ...], source: str
) -> StudentClassifier:
    """Read the members and JSON values that :func:`student_members` returned.

    Parameters
    ----------
    archive
        The model file.
    values
        JSON values.
    classes
        Class values of the model.
    source
        Name of the file, for messages.

    Raises
    ------
    ModelError
        A member or value is missing, damaged, or inconsistent with the others.
    """
    name = f"{source}: info.json: student"
    if not isinstance(values, dict):
        raise ModelError(f"{name}: found a {type(values).__name__}, expected a mapping")
    # Names of files in what it was taught need not be Unicode.
    others = {key: value for key, value in values.items() if key != "taught"}
    entry = validated(StudentEntry, others, name, ModelError)
    taught = _taught(values.get("taught"), f"{name}: taught")
    if len(classes) > MOST_CLASSES:
        raise ModelError(f"{name}: found {len(classes)} classes, expected at most {MOST_CLASSES}")
    needed = least_memory(entry.spec, len(classes))
    if needed > _MEMORY:
        raise ModelError(
            f"{name}: spec: found a network that needs {needed / 2**30:.3g} GiB for its smallest window,"
            f" expected at most {_MEMORY / 2**30:g}"
        )
    arrays = _arrays(archive, array_shapes(entry.spec, len(classes)), source)
    return StudentClassifier(entry.spec, classes, arrays, entry.temperature, taught)


def _arrays(
    archive: zipfile.ZipFile, shapes: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, NDArray[np.float32]]:
    """Return the weights, of exactly these names and shapes."""
    expected = 4 * sum(prod(shape) for shape in shapes.values())
    if expected > LIMITS[".safetensors"]:
        raise ModelError(
            f"{source}: info.json: student: spec: found a network of {expected // 4:,} weights, expected at"
            f" most {LIMITS['.safetensors'] // 4:,}"
        )
    name = f"{source}: {MEMBER}"
    data = read_member(archive, MEMBER, source, expected + _HEADER, ModelError)
    if len(data) < expected:  # before anything is parsed
        raise ModelError(f"{name}: found {len(data):,} bytes, expected more than {expected:,}")
    try:
        stored = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    except Exception as error:  # its only type of error is no public name in all versions
        raise ModelError(f"{name}: found {first_line(error)}, expected weights") from None
    if stored.keys() != shapes.keys():
        odd = sorted(stored.keys() ^ shapes.keys())[0]
        what = "found no" if odd in shapes else "found the array"
        raise ModelError(f"{name}: {what} {printable(odd, 100)}, expected the arrays of its architecture")
    arrays = {}
    for key, shape in shapes.items():
        kind, found = stored[key]["dtype"], tuple(stored[key]["shape"])
        if (kind, found) != ("F32", shape):
            raise ModelError(f"{name}: {key}: found {kind} {found}, expected F32 {shape}")
        values = np.frombuffer(stored[key]["data"], "<f4").reshape(shape).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise ModelError(f"{name}: {key}: found NaN or infinity, expected finite numbers")
        arrays[key] = values
    return arrays


def _taught(values: Any, source: str) -> dict[str, Any]:
    """Return what a student was taught; check the values that are used, and the size of all."""
    if not isinstance(values, dict):
        raise ModelError(f"{source}: found a {type(values).__name__}, expected a mapping")
    if _depth(values) > _DEPTH:
        raise ModelError(f"{source}: found values nested more than {_DEPTH} deep, expected less")
    if len(json.dumps(values)) > _TAUGHT:
        raise ModelError(f"{source}: found more than {_TAUGHT:,} bytes, expected at most that")
    used = {key: values[key] for key in ("grey", "volume") if values.get(key) is not None}
    if isinstance(used.get("volume"), dict):
        used["volume"] = {key: value for key, value in used["volume"].items() if key == "sha256"}
    validated(TaughtEntry, used, source, ModelError)
    return values


def _depth(values: Any) -> int:
    """Return how deep mappings and lists are nested, at most one more than :data:`_DEPTH`."""
    level, depth = [values], 0
    while level and depth <= _DEPTH:
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [
            value
            for container in containers
            for value in (container.values() if isinstance(container, dict) else container)
        ]
        depth += bool(containers)
    return depth
