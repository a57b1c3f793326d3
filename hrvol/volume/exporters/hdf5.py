"""Write HDF5 with NeXus' NXdata, which silx, h5web, DAWN and napari's readers display with axes and units."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import NUMBERS, Content, Format, PlaneWriter, Writing, library

_CHUNK = (32, 128, 128)

_LEVEL = 4

_FEW_CLASSES = 1000


class _Dataset:
    """A chunked dataset whose chunks are compressed by threads: HDF5 itself uses one."""

    def __init__(self, dataset: Any, writing: Writing, pool: ThreadPoolExecutor) -> None:
        self._dataset, self._compress, self._pool = dataset, writing.compress, pool
        self._next = 0

    def write(self, planes: NDArray[Any]) -> None:
        chunk = self._dataset.chunks
        flat = 3 - len(chunk)
        depth, *sides = (1,) * flat + chunk
        starts = list(product(*(range(0, n, c) for n, c in zip(planes.shape, (depth, *sides), strict=True))))

        def encoded(start: tuple[int, ...]) -> bytes:
            part = planes[tuple(slice(s, s + c) for s, c in zip(start, (depth, *sides), strict=True))]
            whole = np.zeros((depth, *sides), planes.dtype)
            whole[tuple(slice(n) for n in part.shape)] = part
            return zlib.compress(whole.data, _LEVEL) if self._compress else whole.tobytes()

        for start, data in zip(starts, self._pool.map(encoded, starts), strict=True):
            position = (self._next + start[0], *start[1:])[flat:]
            self._dataset.id.write_direct_chunk(position, data)
        self._next += len(planes)


@contextmanager
def open_hdf5(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write ``/entry/data``, an NXdata group with the signal ``labels`` (or ``image``, ...) and its axes."""
    h5py = library("h5py", path)
    n = content.ndim
    # Up to HDF5 1.6 a dataset has no room for the attributes of thousands of classes.
    libver = ("v108", "latest") if len(content.classes) > _FEW_CLASSES else None
    with h5py.File(path, "w", libver=libver) as file, ThreadPoolExecutor(writing.threads) as pool:
        file.attrs.update({"NX_class": "NXroot", "creator": SOFTWARE, "default": "entry"})
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        data = entry.create_group("data")
        axes = list("zyx"[-n:])
        data.attrs.update({"NX_class": "NXdata", "signal": content.kind, "axes": axes})
        chunks = (_divisor(writing.planes), *_CHUNK[1:])
        signal = data.create_dataset(
            content.kind,
            shape=content.shape[-n:],
            dtype=content.dtype,
            chunks=tuple(min(c, s) for c, s in zip(chunks[-n:], content.shape[-n:], strict=True)),
            compression="gzip" if writing.compress else None,
            compression_opts=_LEVEL if writing.compress else None,
            fillvalue=0,
        )
        signal.attrs["voxel_size"] = np.array(content.voxel_size[-n:])
        signal.attrs["unit"] = content.unit or "pixel"
        signal.attrs["source"] = content.source
        if content.classes:
            signal.attrs["class_values"] = np.array([info.value for info in content.classes])
            signal.attrs["class_names"] = [info.name for info in content.classes]
            signal.attrs["class_colours"] = np.array([info.colour for info in content.classes], np.uint8)
        for axis, side, step, first in zip(
            "zyx", content.shape, content.voxel_size, content.translation, strict=True
        ):
            if axis in axes:
                positions = data.create_dataset(axis, data=first + step * np.arange(side, dtype=np.float64))
                positions.attrs["units"] = _UNITS.get(content.unit or "", content.unit or "pixel")
        yield _Dataset(signal, writing, pool)


_UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}
"""Units as NeXus (UDUNITS) spells them."""


def _divisor(planes: int) -> int:
    """Return the largest depth of a chunk that divides the planes passed on at once: each is written once."""
    return max(depth for depth in range(1, _CHUNK[0] + 1) if planes % depth == 0)


def _ours(path: Path) -> bool:
    try:
        with library("h5py", path).File(path, "r") as file:
            return str(file.attrs.get("creator", "")).startswith("hrvol ")
    except OSError:  # no HDF5
        return False


HDF5 = Format("hdf5", "HDF5", (".h5", ".hdf5", ".nxs"), open_hdf5, _ours, (*NUMBERS, "float16"))
