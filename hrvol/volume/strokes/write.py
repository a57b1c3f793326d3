"""Write strokes: sparse OME-Zarr labels, a TIFF stack, or a CSV table of points."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from hrvol.arrays import Spacing3
from hrvol.errors import StrokesError, UsageError
from hrvol.files import SOFTWARE, FileKind, atomic_write, check_file, check_picture
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.documents import check_scale
from hrvol.volume.ome.output import check_overwrite, clear_output
from hrvol.volume.storage.location import Location
from hrvol.volume.strokes.merge import count_strokes, painted_of
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.volume import Volume

CHUNK = (1, 256, 256)
"""Voxels (z, y, x) of a chunk: a stroke touches few."""

_HEADER = ("z", "y", "x", "class", "name")

_CSV = FileKind("table of strokes", (",".join(_HEADER).encode(),))

_TIFF_VOXELS = 2**36
"""Most voxels of a TIFF stack, which holds the voxels that are not drawn, too."""

_SUFFIXES = (".zarr", ".tif", ".csv")


def check_target(path: str | Path | Location, overwrite: bool) -> None:
    """Check, before the work, that strokes can be written to a path.

    Raises
    ------
    UsageError
        The suffix is not ``.zarr``, ``.tif`` or ``.csv``.
    OutputExistsError
        It exists and must not be replaced.
    """
    suffix = _suffix(path)
    if suffix == ".csv":
        check_file(str(path), _CSV, overwrite)
    elif suffix == ".tif":
        check_picture(str(path), overwrite)
    else:
        check_overwrite(Location.of(path), overwrite)


def write_strokes(
    strokes: Strokes, path: str | Path | Location, like: Volume | None = None, *, overwrite: bool = False
) -> None:
    """Write strokes to a file or store, the format by the suffix.

    Parameters
    ----------
    strokes
        The strokes.
    path
        ``*.ome.zarr`` or ``*.zarr``: labels of the volume's shape, with names and colours, of which only
        drawn chunks are stored; ``*.tif``: a stack of the volume's shape; ``*.csv``: a row ``z, y, x, class,
        name`` per drawn voxel.
    like
        The volume whose voxel size, unit and position OME-Zarr labels get.
    overwrite
        Whether to replace an earlier file or output of hrvol.

    Raises
    ------
    UsageError
        The suffix is another one.
    OutputExistsError
        The path is occupied.
    StrokesError
        A value is no class, or the volume is too large for TIFF.
    """
    check_target(path, overwrite)
    suffix = _suffix(path)
    if suffix == ".zarr":
        _write_zarr(strokes, Location.of(path), like, overwrite)
        return
    with atomic_write(Path(str(path))) as partial:
        (_write_csv if suffix == ".csv" else _write_tiff)(strokes, partial)


def _suffix(path: str | Path | Location) -> str:
    name = str(path).rstrip("/").lower()
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        raise UsageError(f"{path}: found no known suffix, expected {', '.join(_SUFFIXES)}")
    return suffix


def _write_csv(strokes: Strokes, file: Path) -> None:
    painted = painted_of(strokes)
    names = {info.value: info.name for info in strokes.classes or ()}
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HEADER)
        for (z, y, x), value in zip(painted.places.tolist(), painted.values.tolist(), strict=True):
            writer.writerow((z, y, x, value, names.get(value, "")))


def _write_tiff(strokes: Strokes, file: Path) -> None:
    if math.prod(strokes.shape) > _TIFF_VOXELS:
        raise StrokesError(
            f"{strokes.source}: found a volume of shape {strokes.shape}, expected at most"
            f" {_TIFF_VOXELS:.1e} voxels for TIFF; write *.ome.zarr"
        )
    dtype = _dtype(strokes)
    depth, height, width = strokes.shape

    def planes() -> Iterator[NDArray[Any]]:
        for z in range(depth):
            box = (slice(z, z + 1), slice(0, height), slice(0, width))
            yield strokes.read(box)[0].astype(dtype)

    tifffile.imwrite(
        file,
        planes(),
        shape=strokes.shape if depth > 1 else strokes.shape[1:],
        dtype=dtype,
        photometric="minisblack",
        compression="zlib",
        bigtiff=math.prod(strokes.shape) * dtype.itemsize > 2**31,
        metadata={"axes": "ZYX" if depth > 1 else "YX"},
        software=SOFTWARE,
    )


def _write_zarr(strokes: Strokes, location: Location, like: Volume | None, overwrite: bool) -> None:
    n = 3 if like is None else like.ndim
    size: Spacing3 = (1.0, 1.0, 1.0) if like is None else like.voxel_size
    start: Spacing3 = (0.0, 0.0, 0.0) if like is None else like.translation
    check_scale(strokes.source, *size, *start)
    dtype = _dtype(strokes)
    clear_output(location, overwrite)
    group = zarr.create_group(
        location.store(read_only=False), zarr_format=3, attributes={"hrvol": {"complete": False}}
    )
    shape = strokes.shape[-n:]
    array = group.create_array(
        "0",
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(side, length) for side, length in zip(CHUNK[-n:], shape, strict=True)),
        fill_value=0,
        dimension_names=list("zyx"[-n:]),
    )
    for box, labels in strokes.drawn():
        drawn = labels.astype(dtype)
        if n == 2:
            drawn = drawn[0]
        inside = array[box[-n:]]  # pieces may share chunks
        array[box[-n:]] = np.where(drawn, drawn, inside)
    level = ome.Level("0", size[-n:], start[-n:])
    unit = None if like is None else like.unit
    name = Path(location.url).name.removesuffix(".zarr").removesuffix(".ome")
    entry = ome.write_multiscale(name, "zyx"[-n:], unit, [level])
    values: dict[str, Any] = {"version": ome.VERSION, "multiscales": [entry]}
    label = ome.write_image_label(count_strokes(strokes).classes)
    values["image-label"] = {key: label[key] for key in ("colors", "properties")}
    group.attrs.update({"ome": values, "hrvol": {"complete": True}})


def _dtype(strokes: Strokes) -> np.dtype[Any]:
    """Return the type that holds all classes; :class:`StrokesError` if a value is no class."""
    highest = max(count_strokes(strokes).planes, default=0)
    return np.dtype(np.uint8 if highest < 256 else np.uint16)
