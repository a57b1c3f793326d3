"""Open N5 datasets (TensorStore); blocks are read as they are needed.

N5 lists the fastest axis first: x, y, z, and channels last. Voxel sizes are those of ``resolution`` and
``units``, or of ``pixelResolution``, of the dataset or of the group around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.reading.bounded import JSON_BYTES, parse_mapping, read_file
from hrvol.text import listed, printable
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import Selection, SlicedArray
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, voxel_size
from hrvol.volume.storage.bounded_array import check_chunks, check_shape

ATTRIBUTES = "attributes.json"

_FOLDERS = 1000  # that are looked at

_CHANNELS = 4

_DATASET = ("dimensions", "dataType", "blockSize")


def is_n5(folder: Path) -> bool:
    """Return whether a folder is a dataset or a group of N5."""
    if not (folder / ATTRIBUTES).is_file():
        return False
    with suppress(InputError):
        values = _attributes(folder)
        return "n5" in values or set(_DATASET) <= values.keys() or bool(_datasets(folder, 2))
    return False


def open_n5(request: Request) -> StoredImage:
    """Open a dataset, the finest level of a multiscale group, or the only dataset of a group."""
    source = request.source
    folder = request.path / request.inside.strip("/") if request.inside else request.path
    if not set(_DATASET) <= _attributes(folder).keys():
        folder = _dataset_in(folder, request.level, source)
    elif request.level:
        raise InputError(f"{source}: found 1 level, expected one numbered {request.level}")
    values = _attributes(folder)
    dimensions, block = values["dimensions"], values["blockSize"]
    if not all(isinstance(side, int) and side > 0 for side in (*dimensions, *block)) or len(block) != len(
        dimensions
    ):
        raise InputError(
            f"{source}: found dimensions {dimensions} and blocks {block}, expected numbers above 0"
        )
    dtype = np.dtype(printable(str(values["dataType"]), 60))
    if dtype.kind not in "iuf":
        raise InputError(f"{source}: found type {dtype}, expected integers or floating-point numbers")
    check_shape(source, dimensions, dtype)
    chunks = tuple(min(side, length) for side, length in zip(block, dimensions, strict=True))
    check_chunks(source, dimensions, block, dtype)
    tensorstore = require("tensorstore", source, "an N5 dataset")
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"}}
    store = tensorstore.open(spec, read=True, open=True).result()

    def read(selection: Selection) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(store[selection].read().result())
        return values

    axes = _axes(dimensions)
    array = SlicedArray(read, dimensions, dtype, chunks)
    return StoredImage(array, axes, _size(folder, values, axes), (folder / ATTRIBUTES,))


def _attributes(folder: Path) -> Mapping[str, Any]:
    path = folder / ATTRIBUTES
    if not path.is_file():
        return {}
    return parse_mapping(read_file(path, JSON_BYTES, "attributes of N5"), str(path))


def _dataset_in(folder: Path, level: int, source: str) -> Path:
    """Return the level of a multiscale group, or the only dataset below a group."""
    finest = folder / f"s{level}"
    if (folder / "s0").is_dir():
        if not set(_DATASET) <= _attributes(finest).keys():
            raise InputError(f"{source}: found no level s{level}, expected one")
        return finest
    found = _datasets(folder, 4)
    if len(found) != 1 or level:
        names = [f"/{path.relative_to(folder)}" for path in found]
        raise InputError(
            f"{source}: found {len(found)} datasets of N5 ({listed(names, 5)}), expected one or FOLDER::/PATH"
        )
    return found[0]


def _datasets(folder: Path, depth: int) -> list[Path]:
    """Return the datasets in a folder, those of a multiscale group as one."""
    found: list[Path] = []
    queue = [(folder, depth)]
    for _ in range(_FOLDERS):
        if not queue:
            break
        here, left = queue.pop(0)
        if set(_DATASET) <= _attributes(here).keys():
            found.append(here)
        elif left:
            inner = sorted(path for path in here.iterdir() if path.is_dir())
            queue += [(path, left - 1) for path in inner]
    return found


def _factors(folder: Path, group: Mapping[str, Any]) -> Any:
    """Return the factors of a level from the list of its group."""
    scales, level = group.get("scales"), folder.name.removeprefix("s")
    return (
        scales[int(level)]
        if isinstance(scales, list) and level.isdecimal() and int(level) < len(scales)
        else None
    )


def _axes(dimensions: Sequence[int]) -> tuple[str, ...]:
    """Name the axes: of four, channels are last, or first if these are few."""
    if len(dimensions) == 4 and dimensions[0] <= _CHANNELS < min(dimensions[1:]):
        return ("c", "x", "y", "z")
    return ("x", "y", "z", "c", *(f"axis {i}" for i in range(4, len(dimensions))))[: len(dimensions)]


def _size(folder: Path, values: Mapping[str, Any], axes: tuple[str, ...]) -> VoxelSize:
    parent = _attributes(folder.parent) if not {"resolution", "pixelResolution"} & values.keys() else {}
    for owner in (values, parent):
        resolution, units = owner.get("resolution"), owner.get("units")
        pixel = owner.get("pixelResolution")
        if isinstance(pixel, Mapping):
            resolution, units = pixel.get("dimensions"), [pixel.get("unit")] * len(axes)
        if not isinstance(resolution, list) or len(resolution) < 2:
            continue
        factors = None if owner is values else values.get("downsamplingFactors") or _factors(folder, owner)
        steps = dict(zip(axes, resolution, strict=False))
        if isinstance(factors, list) and len(factors) == len(resolution):
            steps = {a: s * f for (a, s), f in zip(steps.items(), factors, strict=False)}
        names = dict(zip(axes, units if isinstance(units, list) else [units] * len(axes), strict=False))
        return voxel_size(
            [steps.get(axis) for axis in "zyx"],
            [None if names.get(axis) is None else str(names[axis]) for axis in "zyx"],
            "attributes of N5",
        )
    return VoxelSize()
