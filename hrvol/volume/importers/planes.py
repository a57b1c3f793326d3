"""Open a folder or a pattern of 2D images as one stack: TIFF, PNG or JPEG, one plane per file.

Files are ordered by the numbers in their names. The header of each is read once, when the stack is opened
first; a plane is checked again when it is read. Of an uncompressed TIFF only the rows of a box are read, of
any other file all of it.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hrvol.errors import HrvolError, InputError
from hrvol.text import printable
from hrvol.volume.importers.lazy_arrays import PlainArray, Selection, SlicedArray
from hrvol.volume.importers.numbering import in_order
from hrvol.volume.importers.raster import raster_shape, read_raster
from hrvol.volume.importers.stored import UNKNOWN, Request, StoredImage, VoxelSize
from hrvol.volume.importers.tiff import SUFFIXES, open_tiff
from hrvol.volume.importers.tiff_directory import check_stack, read_directories

FILES = 2**20
"""Most files of a stack."""

KINDS = dict.fromkeys(SUFFIXES, "TIFF") | {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""Format by the ending of a name."""

_OPEN = 16  # compressed TIFF files at once

_PLAIN = 1024
"""Headers of uncompressed TIFF files that are kept: those of the planes of several blocks."""


def image_files(files: Sequence[Path]) -> list[Path]:
    """Return the files whose names are those of images; hidden ones are left out."""
    return [path for path in files if path.suffix.lower() in KINDS and not path.name.startswith(".")]


def open_planes(request: Request, files: Sequence[Path]) -> StoredImage:
    """Open images as the planes of a stack.

    Parameters
    ----------
    request
        The request; its path is the folder.
    files
        The images, in any order.

    Raises
    ------
    InputError
        They are of several formats, series, sizes or types; there are gaps in their numbers; or one of them
        is damaged or has several planes.
    """
    source = request.source
    kinds = Counter(KINDS[path.suffix.lower()] for path in files)
    if len(kinds) > 1:
        found = " and ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        raise InputError(
            f"{source}: found {found} images, expected one format: name it by a pattern, such as"
            " 'FOLDER/*.tif'"
        )
    if len(files) > FILES:
        raise InputError(f"{source}: found {len(files):,} images, expected at most {FILES:,}")
    ordered = in_order(source, files)
    first = _plane_of(ordered[0], source)
    if not request.again:
        for path in ordered[1:]:
            header = _header(path)
            if header != first.header:
                raise InputError(
                    f"{source}: found {printable(path.name, 100)} of {header}, expected"
                    f" {first.header} as in {printable(ordered[0].name, 100)}"
                )
    return StoredImage(
        _stack(ordered, first), (*("z", "y", "x", "s")[: 1 + len(first.shape)],), first.size, tuple(ordered)
    )


def open_raster(request: Request) -> StoredImage:
    """Open a PNG or JPEG file as an image."""
    path = request.path
    shape, dtype = raster_shape(path)

    def read(selection: Selection) -> NDArray[Any]:
        values: NDArray[Any] = read_raster(path)[selection]
        return values

    array = SlicedArray(read, shape, dtype, shape)
    return StoredImage(array, ("y", "x", "s")[: len(shape)], UNKNOWN, (path,))


@dataclass(frozen=True)
class _Plane:
    """The first plane: its header, shape, type, chunks, voxel size, and whether it is compressed."""

    header: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    size: VoxelSize
    decodes: bool = True


def _plane_of(path: Path, source: str) -> _Plane:
    header = _header(path)
    if path.suffix.lower() not in SUFFIXES:
        shape, dtype = raster_shape(path)
        return _Plane(header, shape, dtype, shape, UNKNOWN)
    image = open_tiff(path, 0)  # of which nothing is read
    shape, dtype = _flat(image)
    if len(shape) != 2 and image.axes is not None and image.axes[-1] != "s":
        raise InputError(
            f"{source}: found several planes or channels of shape {image.array.shape} in"
            f" {printable(path.name, 100)}, expected one plane per file"
        )
    chunks = getattr(image.array, "chunks", None)
    stored = (1, shape[1]) if chunks is None else tuple(chunks)[-len(shape) :]
    decodes = not isinstance(image.array, PlainArray)
    return _Plane(header, shape, dtype, (*stored, *shape[len(stored) :]), image.size, decodes)


def _header(path: Path) -> str:
    """Return size and type of an image, as its header has them."""
    if path.suffix.lower() not in SUFFIXES:
        shape, dtype = raster_shape(path)
        samples = f" of {shape[2]} samples" if len(shape) > 2 else ""
        return f"{shape[1]} x {shape[0]} pixels{samples} of type {dtype.newbyteorder('=')}"
    pages = read_directories(path).pages
    if check_stack(path, pages) > 1:
        raise InputError(f"{path}: found {len(pages):,} planes, expected one in each file of a folder")
    page = next((page for page in pages if not page.reduced), pages[0])
    kind = {1: "integer", 2: "signed integer", 3: "floating-point"}.get(page.sample_format, "other")
    return f"{page} ({kind})"


def _flat(image: StoredImage) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape of an image without axes of length 1, but for y and x, and its type."""
    axes = image.axes or ()
    shape = tuple(
        side for name, side in zip(axes, image.array.shape, strict=True) if side > 1 or name in "yx"
    )
    return shape, np.dtype(image.array.dtype)


class PlaneStack(SlicedArray):
    """Planes in files of their own."""

    def __init__(self, files: Sequence[Path], plane: _Plane) -> None:
        shape, chunks = (len(files), *plane.shape), (1, *plane.chunks)
        super().__init__(self._select, shape, plane.dtype, chunks, decodes=plane.decodes)
        self._paths = self.files = tuple(os.fspath(path) for path in files)
        self._plane = plane
        self._opened = _OpenFiles(_OPEN if plane.decodes else _PLAIN)

    def _select(self, selection: Selection) -> NDArray[Any]:
        first, rest = selection[0], selection[1:]
        if not isinstance(first, slice):
            return self._part_of(first, rest)
        return np.stack([self._part_of(number, rest) for number in range(len(self._paths))[first]])

    def _part_of(self, number: int, rest: Selection) -> NDArray[Any]:
        path = self._paths[number]
        try:
            with self._opened.use(path) as values:
                return self._selected(values, rest)
        except (MemoryError, HrvolError):
            raise
        except Exception as error:  # of any codec; none of them names the file
            name, reason = printable(os.path.basename(path), 100), str(error) or type(error).__name__
            raise ValueError(f"{name}: {reason}") from error

    def _selected(self, values: Any, rest: Selection) -> NDArray[Any]:
        shape, dtype = (
            tuple(side for side in values.shape if side > 1 or len(values.shape) == 2),
            values.dtype,
        )
        if values.shape != self._plane.shape and shape != self._plane.shape:
            raise ValueError(f"found shape {values.shape}, expected {self._plane.shape}")
        if np.dtype(dtype).newbyteorder("=") != self.dtype.newbyteorder("="):
            raise ValueError(f"found type {dtype}, expected {self.dtype}")
        extra = len(values.shape) - len(self._plane.shape)
        chosen: NDArray[Any] = np.asarray(values[(*[0] * extra, *rest)])
        return chosen


def _stack(files: Sequence[Path], plane: _Plane) -> PlaneStack:
    return PlaneStack(files, plane)


class _OpenFiles:
    """Keeps the files that were used last open, a few of them, and closes the others.

    Objects of tifffile refer to each other: without that their files stay open until Python looks for such
    objects, which takes long in a large process. A worker would reach the limit of open files.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._kept: dict[str, Any] = {}

    @contextmanager
    def use(self, path: str) -> Iterator[Any]:
        """Give the pixels of a file to one thread; another one opens the file again."""
        with self._lock:
            values = self._kept.pop(path, None)
        if values is None:
            values = _open_plane(path)
        unused = [values]
        try:
            yield values
            with self._lock:
                unused = [self._kept.pop(path)] if path in self._kept else []
                self._kept[path] = values
                while len(self._kept) > self._most:
                    unused.append(self._kept.pop(next(iter(self._kept))))
        finally:
            for one in unused:
                if isinstance(one, zarr.Array):
                    one.store.close()


def _open_plane(path: str) -> Any:
    """Return the pixels of a file: of a TIFF a lazy array, of others the values."""
    file = Path(path)
    return open_tiff(file, 0).array if file.suffix.lower() in SUFFIXES else _Decoded(file)


class _Decoded:
    """A PNG or JPEG, which is decoded when it is read, and not kept."""

    def __init__(self, path: Path) -> None:
        self.shape, self.dtype = raster_shape(path)
        self._path = path

    def __getitem__(self, selection: Selection) -> NDArray[Any]:
        values: NDArray[Any] = read_raster(self._path)[selection]
        return values
