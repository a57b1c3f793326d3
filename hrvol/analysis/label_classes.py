"""Find the classes of labels: by their metadata, or by the values that occur."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrvol.arrays import Shape3
from hrvol.classes import MAX_VALUE, ClassInfo, default_classes
from hrvol.errors import InputError
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
