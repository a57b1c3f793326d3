"""Open files of electron microscopes (RosettaSciIO): DM3 and DM4, EMD, SER and HSPY.

RosettaSciIO is under the GPL, and an extra of its own: ``pip install 'hrvol[em]'``. Of a file with several
images one is chosen as ``FILE::/NUMBER``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.text import listed, printable
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import Selection, SlicedArray
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, grey_axes, voxel_size
from hrvol.volume.units import METRES, normal_unit

READERS = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".ser": "tia",
    ".emi": "tia",
    ".hspy": "hspy",
}
"""Module of RosettaSciIO by the ending of a name."""


def open_rosetta(request: Request) -> StoredImage:
    """Open an image of a microscope's file.

    Raises
    ------
    InputError
        There is no image, or there are several.
    """
    source, suffix = request.source, request.path.suffix.lower()
    kind = f"a file of type {suffix}"
    reader = require(f"rsciio.{READERS[suffix]}", source, kind, "em")
    signals: Sequence[Mapping[str, Any]] = reader.file_reader(str(request.path), lazy=True)
    signal = _chosen(signals, request)
    data = signal["data"]
    shape = tuple(int(side) for side in data.shape)
    chunks = getattr(data, "chunks", None)
    sides = shape if chunks is None else tuple(max(parts) for parts in chunks)
    compressed = suffix in (".emd", ".hspy")  # they are HDF5
    array = SlicedArray(partial(_read, data), shape, data.dtype, sides, decodes=compressed)
    axes = grey_axes(shape)
    names = axes or ("z", "y", "x")[-len(shape) :]
    return StoredImage(array, axes, _size(signal["axes"], names, suffix), _files(request.path))


def _read(data: Any, selection: Selection) -> NDArray[Any]:
    values = data[selection]
    # In this thread: the engine limits the number of blocks in progress.
    return np.asarray(values.compute(scheduler="synchronous") if hasattr(values, "compute") else values)


def _chosen(signals: Sequence[Mapping[str, Any]], request: Request) -> Mapping[str, Any]:
    usable = {
        number: signal
        for number, signal in enumerate(signals)
        if np.dtype(signal["data"].dtype).kind in "biuf"
        and len(signal["data"].shape) >= 2
        and sum(side > 1 for side in signal["data"].shape) in (2, 3)
    }
    wanted = request.inside.strip("/")
    if wanted and wanted.isdecimal() and int(wanted) in usable:
        return usable[int(wanted)]
    if len(usable) == 1 and not wanted:
        return next(iter(usable.values()))
    names = [_name(number, signal) for number, signal in (usable or dict(enumerate(signals))).items()]
    expected = "one image or FILE::/NUMBER" if usable else "an image or a volume of one value per voxel"
    raise InputError(f"{request.source}: found {listed(names, 6) or 'nothing'}, expected {expected}")


def _name(number: int, signal: Mapping[str, Any]) -> str:
    title = signal.get("metadata", {}).get("General", {}).get("title") or ""
    shape = " x ".join(map(str, signal["data"].shape))
    return f"/{number} {printable(str(title), 40)} ({shape} {signal['data'].dtype})".replace("  ", " ")


def _size(entries: Sequence[Mapping[str, Any]], axes: Sequence[str], suffix: str) -> VoxelSize:
    """Return the voxel size from the axes of a signal; steps in time, energy or angle are none."""
    sizes: dict[str, Any] = {}
    units: dict[str, str] = {}
    ordered = sorted(entries, key=lambda entry: entry.get("index_in_array", 0))
    for axis, entry in zip(axes, ordered, strict=False):
        unit = str(entry.get("units") or "")
        if normal_unit(unit) in METRES and entry.get("scale") is not None:
            sizes[axis], units[axis] = abs(float(entry["scale"])), unit
    if not sizes:
        return VoxelSize()
    origin = f"axes of the {suffix.removeprefix('.').upper()} file"
    return voxel_size([sizes.get(axis) for axis in "zyx"], [units.get(axis) for axis in "zyx"], origin)


def _files(path: Path) -> tuple[Path, ...]:
    return (path,) if path.is_file() else ()
