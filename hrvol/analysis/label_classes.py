"""Find the classes of labels: by their metadata, or by the values that occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hrvol.arrays import Shape3
from hrvol.classes import MAX_VALUE, ClassInfo, default_classes
from hrvol.errors import InputError, UsageError
from hrvol.text import printable
from hrvol.volume.grid.tiling import grid
from hrvol.volume.volume import Volume, class_info


def classes_of(labels: Volume, source: Any, block: Shape3, name: str | None = None) -> tuple[ClassInfo, ...]:
    """Return the classes of labels in order of value: those in the metadata, or those that occur.

    Parameters
    ----------
    labels
        The labels; read block by block if the metadata name no classes.
    source, name
        What was opened, see :func:`hrvol.volume.volume.class_info`.
    block
        Voxels (z, y, x) of a block.

    Raises
    ------
    InputError
        A value is negative or above 65,535, or no value is above 0.
    """
    infos = class_info(source, name=name)
    if infos:
        return tuple(sorted(infos, key=lambda info: info.value))
    found: set[int] = set()
    for piece in grid(labels.shape, block):
        values = labels.read(piece.core)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MAX_VALUE:
            raise InputError(
                f"{printable(labels.source, 500)}: found label {low if low < 0 else high},"
                f" expected classes from 0 to {MAX_VALUE}"
            )
        found |= set(np.flatnonzero(np.bincount(values.ravel())).tolist())
    if not found - {0}:
        raise InputError(f"{labels.source}: found no labels above 0, expected some")
    return default_classes(sorted(found - {0}))


def class_values(text: str, classes: Sequence[ClassInfo], where: str) -> tuple[int, ...]:
    """Return the values of classes that a user names.

    Parameters
    ----------
    text
        Names or numbers separated by commas, or ``all``.
    classes
        Of the labels.
    where
        What names them, for messages.

    Raises
    ------
    UsageError
        There is no such class, or it is named twice.
    """
    if text.lower() == "all" and not any(info.name == text for info in classes):
        return tuple(info.value for info in classes)
    names = [info.name for info in classes]
    parts = [text] if text in names else [part.strip() for part in text.split(",")]
    values = tuple(class_value(part, classes, where) for part in parts)
    if len(set(values)) < len(values):
        raise UsageError(f"{where}: found a class twice, expected each once")
    return values


def class_value(text: str, classes: Sequence[ClassInfo], where: str, *, zero: bool = False) -> int:
    """Return the value of one class, also 0 with ``zero``; see :func:`class_values`."""
    for info in classes:
        if info.name == text:
            return info.value
    known = {info.value for info in classes} | ({0} if zero else set())
    if text.isdecimal() and len(text) < 9 and int(text) in known:
        return int(text)
    names = ", ".join(f"{info.value} {info.name}" for info in classes[:8])
    raise UsageError(f"{where}: found class '{printable(text, 50)}', expected one of: {names}")
