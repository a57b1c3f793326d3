"""Open TIFF images and stacks lazily."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile
import zarr

from hrvol.errors import HrvolError, InputError, one_line
from hrvol.volume.importers.extras import read_quietly
from hrvol.volume.importers.lazy_arrays import PlainArray
from hrvol.volume.importers.ome_tiff import check_ome, is_ome, parse_ome
from hrvol.volume.importers.stored import Request, StoredImage
from hrvol.volume.importers.tiff_codecs import bound_decoders, check_decoders
from hrvol.volume.importers.tiff_directory import (
    Directories,
    Page,
    check_stack,
    end_of,
    read_directories,
)
from hrvol.volume.importers.tiff_lost import find_page
from hrvol.volume.importers.tiff_size import tiff_size
from hrvol.volume.storage.bounded_array import check_chunks

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

# tifffile's letters for pages without metadata, and time: ImageJ saves a stack as a time series unless its
# user declares slices.
_STACKING = ("Q", "I", "R", "T")

_PADDING = 16  # bytes

# ImageJ shows at most this many channels: more are slices of a stack that was not declared as one.
_MOST_CHANNELS = 7


def open_tiff(path: Path, level: int) -> StoredImage:
    """Open the first image series of a TIFF file.

    Parameters
    ----------
    path
        Path of the file.
    level
        Resolution level; 0 is the finest.

    Raises
    ------
    InputError
        The file is not a TIFF file, is damaged, has several images, or has no such level.
    """
    directories = read_directories(path)
    root = parse_ome(path, directories.description) if is_ome(directories.description) else None
    if root is None:
        planes = check_stack(path, directories.pages)
        declared = _check_declared(path, directories, planes)
    else:
        planes, declared = check_ome(path, directories, root), None
    with read_quietly():
        try:
            with tifffile.TiffFile(path) as file:
                series = _only_series(path, file.series)
                if not 0 <= level < len(series.levels):
                    raise InputError(
                        f"{path}: found {len(series.levels)} levels, expected one numbered {level}"
                    )
                _check_planes(path, series, directories, max(declared or 0, planes), declared is not None)
                chosen = series.levels[level]
                axes = _axes(chosen.axes, chosen.shape, bool(file.is_shaped))
                size = tiff_size(file, root)
                mappable = chosen.dataoffset is not None and level == 0
                plain = f"{file.byteorder}{chosen.dtype.char}" if mappable else ""
                files = _files_of(path, chosen)
                if not mappable:
                    keyframes = [page.keyframe for page in chosen.pages if page is not None]
                    check_decoders(path, keyframes)
                    bound_decoders(keyframes)
                    store = series.aszarr(level=level)
            if mappable:
                # Uncompressed and contiguous: the operating system reads only what is accessed. It has no
                # chunks: they decide the order of blocks, and so the parts of outputs that were begun.
                array: Any = PlainArray(path, plain, chosen.shape, chosen.dataoffset)
            else:
                array = zarr.open_array(store, mode="r")
                check_chunks(str(path), array.shape, array.chunks, array.dtype)
        except (HrvolError, MemoryError):
            raise
        except Exception as error:  # tifffile's parsers of private metadata may raise anything
            raise InputError(f"{path}: cannot be read as a TIFF image ({one_line(error)})") from None
    return StoredImage(array, axes, size, files)


def _only_series(path: Path, series: Sequence[Any]) -> Any:
    """Return the first series; others have to be smaller images of it, or unlike it."""
    if not series:
        raise InputError(f"{path}: found no image in a TIFF file, expected one")
    first = series[0]
    alike = [one for one in series[1:] if one.shape[-2:] == first.shape[-2:] and one.dtype == first.dtype]
    if alike:
        shapes = ", ".join("x".join(map(str, one.shape)) for one in [first, *alike][:3])
        raise InputError(
            f"{path}: found {1 + len(alike):,} images ({shapes}{', ...' if len(alike) > 2 else ''}) in one"
            " file, expected one image or stack: write it as one stack"
        )
    return first


def _check_declared(path: Path, directories: Directories, planes: int) -> int | None:
    """Return the planes that a description declares, if it does; all of them have to be there."""
    page = _first(directories)
    declared = _declared_planes(directories.description, page)
    if declared is not None and declared > planes:
        # ImageJ and tifffile write one directory for all planes if they are not compressed.
        end = end_of(page, declared)
        if planes > 1 or end is None or end > directories.size:
            raise InputError(f"{path}: found {planes:,} planes, expected {declared:,} as in its description")
        if directories.size - end > _PADDING:  # directories of pages would be taken for pixels
            _check_lost(path, directories)
    return declared


def _check_lost(path: Path, directories: Directories) -> None:
    """Raise an :class:`InputError` if the file has a page that is not in the list of pages."""
    place = find_page(path, directories)
    if place is not None:
        raise InputError(
            f"{path}: found a page at {place:,} that belongs to none of its {len(directories.pages):,} pages,"
            " expected none: the list of pages ends too early"
        )


def _check_planes(path: Path, series: Any, directories: Directories, planes: int, declared: bool) -> None:
    """Check that a series has all planes that there are."""
    page = _first(directories)
    found = math.prod(series.shape) // (page.width * page.length * page.samples)
    several = not declared and series.kind not in ("uniform", "generic")  # planes in one directory
    if found != planes and not (several and found > planes):
        raise InputError(f"{path}: found {found:,} planes, expected {planes:,}")
    if not several and not declared and not directories.nested:
        _check_lost(path, directories)
    if any(part is None for part in series.pages):
        raise InputError(f"{path}: found no pixels of some of its {planes:,} planes, expected all")


def _first(directories: Directories) -> Page:
    pages = directories.pages
    return next((page for page in pages if not page.reduced), pages[0])


def _declared_planes(description: str, page: Page) -> int | None:
    """Return the planes that ImageJ or tifffile declare; ``None`` if the file does not say."""
    if description.startswith("ImageJ="):
        images = re.search(r"^images=([0-9]{1,100})\s*$", description, re.MULTILINE)
        return int(images[1]) if images else None
    if description.startswith('{"shape":'):
        try:
            shape = json.loads(description)["shape"]
            return max(math.prod(map(int, shape)) // (page.width * page.length * page.samples), 1)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
    return None


def _files_of(path: Path, series: Any) -> tuple[Path, ...]:
    """Return the files of a series."""
    names = {page.parent.filehandle.path for page in series.pages if page is not None}
    return tuple(sorted({path, *map(Path, names)}))


def _axes(letters: str, shape: tuple[int, ...], shaped: bool) -> tuple[str, ...]:
    """Name the axes of a series, and find the one along which pages are stacked.

    Earlier versions of tifffile marked a stack of three or four grey images as planar RGB(A): if the file
    records a shape of its own, a leading axis of samples is treated as a stack.
    """
    names = list(letters)
    if shaped and names[0] == "S" and shape[0] > 1:
        names[0] = "Q"
    if "Z" not in names:
        stacked = [
            i
            for i, name in enumerate(names)
            if (name in _STACKING and shape[i] > 1) or (name == "C" and shape[i] > _MOST_CHANNELS)
        ]
        if len(stacked) == 1:
            names[stacked[0]] = "Z"
    return tuple(name.lower() for name in names)


def open_request(request: Request) -> StoredImage:
    """Open a TIFF file as an importer; the compression JPEG and some others need the package imagecodecs."""
    return open_tiff(request.path, request.level)
