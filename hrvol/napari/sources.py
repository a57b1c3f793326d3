"""Find the file behind a layer; layers without one are saved to the user's cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from hrvol.errors import HrvolError, InputError
from hrvol.napari.folders import plugin_folder
from hrvol.napari.layers import source_of, volume_of
from hrvol.progress import format_size
from hrvol.volume.volume import Volume, open_volume

MOST_BYTES = 8 * 2**30
"""Most bytes of a layer that are saved."""

KEPT_BYTES = 32 * 2**30
"""Bytes of saved layers above which those that were not used for longest are deleted."""

_PARTIAL = ".partial.ome.zarr"

_DAY = 86_400.0  # seconds for which a saved layer is kept anyway: a run may read it


def stored_volume(layer: Any) -> str | None:
    """Return the path of a volume that is what a layer shows; ``None`` without one."""
    source = source_of(layer)
    if source is None:
        return None
    finest = layer.data[0] if layer.multiscale else layer.data
    try:
        volume = open_volume(source)
    except HrvolError:
        return None
    same = tuple(finest.shape) == volume.shape[-volume.ndim :] and np.dtype(finest.dtype) == volume.dtype
    return source if same else None


def saved_volume(layer: Any) -> str:
    """Return the path of a volume that is what a layer shows; a layer without a file is saved.

    It is named by its content, so that the same layer is saved once.

    Raises
    ------
    InputError
        The layer has more axes than z, y and x, or is too large.
    """
    source = stored_volume(layer)
    if source is not None:
        return source
    data, about, _ = layer.as_layer_data_tuple()
    volume = volume_of(data, about)
    size = int(np.prod(volume.shape, dtype=np.int64)) * volume.dtype.itemsize
    if size > MOST_BYTES:
        raise InputError(
            f"{layer.name}: found a layer of {format_size(size)} without a file, expected at most"
            f" {format_size(MOST_BYTES)}: save it as OME-Zarr or TIFF first"
        )
    return str(_save(volume, str(layer.name)))


def _save(volume: Volume, name: str) -> Path:
    from hrvol.volume.write_image import write_image

    values = volume.read()
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((volume.shape, volume.dtype.str, volume.voxel_size, volume.unit)).encode())
    digest.update(repr(volume.translation).encode())
    digest.update(values)  # type: ignore[arg-type]
    readable = re.sub(r"[^\w-]+", "-", name)[:40].strip("-") or "layer"
    folder = plugin_folder("layers")
    path = folder / f"{readable}-{digest.hexdigest()}.ome.zarr"
    if not path.exists():
        partial = folder / f"{uuid4().hex}{_PARTIAL}"
        try:
            write_image(partial, volume)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    os.utime(path)  # used now
    tidy_layers(folder, path, time.time())
    return path


def tidy_layers(folder: Path, used: Path, now: float, most: int = KEPT_BYTES) -> None:
    """Delete what killed saves left, and saved layers beyond a size, least recently used first.

    Parameters
    ----------
    folder
        Where layers are saved.
    used
        The layer in use, which stays.
    now
        Seconds since 1970; what was used in the day before stays.
    most
        Bytes that may stay.
    """
    ages: list[tuple[float, Path]] = []
    for path in folder.glob("*.ome.zarr"):
        with suppress(OSError):
            ages.append((now - path.stat().st_mtime, path))
    total = 0
    for age, path in sorted(ages):
        if path.name.endswith(_PARTIAL):
            gone = age > _DAY
        else:
            total += _bytes_of(path)
            gone = total > most and age > _DAY and path != used
        if gone:
            shutil.rmtree(path, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total
