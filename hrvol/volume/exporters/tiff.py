"""Write TIFF: one stack that ImageJ opens with voxel size and colours, or a folder of planes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import NUMBERS, Content, Format, PlaneWriter, Writing, class_lines

_CLASSIC = 2**32 - 2**25
"""Bytes of values up to which a classic TIFF is written: ImageJ itself opens no BigTIFF."""

_IMAGEJ_UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}

_PLANE = re.compile(r".+_[0-9]{4,}\.tif")

_SOFTWARE = 305  # tag with the software


_PAGE = 2**12
"""Bytes of a page besides its values, at most: its directory and its colours."""


class _Stack:
    """The pages of one file."""

    def __init__(self, file: tifffile.TiffWriter, content: Content, writing: Writing) -> None:
        self._file, self._content, self._writing = file, content, writing
        self._begun = False

    def write(self, planes: NDArray[Any]) -> None:
        for plane in planes:
            self._file.write(plane, **_page(self._content, self._writing, first=not self._begun))
            self._begun = True


class _Folder:
    """A file per plane, written by threads."""

    def __init__(self, folder: Path, content: Content, writing: Writing, pool: ThreadPoolExecutor) -> None:
        self._folder, self._pool = folder, pool
        self._content = replace(content, shape=(1, *content.shape[1:]))
        self._writing = replace(writing, threads=1)
        self._digits = max(4, len(str(content.shape[0] - 1)))
        self._next = 0

    def write(self, planes: NDArray[Any]) -> None:
        numbers = range(self._next, self._next + len(planes))
        for _ in self._pool.map(self._write_plane, numbers, planes):
            pass
        self._next += len(planes)

    def _write_plane(self, number: int, plane: NDArray[Any]) -> None:
        file = self._folder / f"{self._folder.name}_{number:0{self._digits}d}.tif"
        with tifffile.TiffWriter(file, bigtiff=self._content.nbytes > _CLASSIC) as stream:
            stream.write(plane, **_page(self._content, self._writing, first=True))


@contextmanager
def open_stack(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write a stack: a classic TIFF below 4 GiB of values, else a BigTIFF."""
    size = content.nbytes + content.shape[0] * _PAGE
    with tifffile.TiffWriter(path, bigtiff=size > _CLASSIC) as file:
        yield _Stack(file, content, writing)


@contextmanager
def open_folder(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write a folder of planes: ``NAME/NAME_0000.tif``, ``NAME/NAME_0001.tif``, ..."""
    path.mkdir()
    with ThreadPoolExecutor(writing.threads, "hrvol-export") as pool:
        try:
            yield _Folder(path, content, writing, pool)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _page(content: Content, writing: Writing, *, first: bool) -> dict[str, Any]:
    """Return how tifffile writes a page; only the first one of a file describes it."""
    options: dict[str, Any] = {"metadata": None, "photometric": "minisblack", "contiguous": False}
    if writing.compress:
        options |= {"compression": "zlib", "maxworkers": writing.threads}
    if content.coloured:
        # TIFF has 16 bits a colour; 257 makes 255 the brightest of them.
        options |= {"photometric": "palette", "colormap": content.palette().T.astype(np.uint16) * 257}
    if first:
        options |= {"description": _description(content), "software": SOFTWARE}
        options |= {"resolution": tuple(1 / size for size in content.voxel_size[:0:-1]), "resolutionunit": 1}
        info = "\n".join(["hrvol", f"{content.kind} of {content.source}", *class_lines(content.classes)])
        options["extratags"] = tifffile.tifffile.imagej_metadata_tag({"Info": info}, "<")
        options["extratags"] = [(*tag[:4], True) for tag in options["extratags"]]
    return options


def _description(content: Content) -> str:
    """Return ImageJ's description of a stack."""
    depth = content.shape[0]
    unit = "pixel" if content.unit is None else _IMAGEJ_UNITS.get(content.unit, content.unit)
    lines = ["ImageJ=1.54f", f"images={depth}", *([f"slices={depth}"] if depth > 1 else [])]
    lines += [f"unit={unit}", f"spacing={content.voxel_size[0]!r}", "loop=false"]
    if any(content.translation):  # ImageJ's origin: the pixel at which the position is 0
        origin = (-t / s for t, s in zip(content.translation, content.voxel_size, strict=True))
        lines += [f"{axis}origin={number!r}" for axis, number in zip("zyx", origin, strict=True)]
    if content.kind == "labels" and not content.coloured:
        lines += ["min=0.0", f"max={float(max((c.value for c in content.classes), default=255))}"]
    return "\n".join((*lines, ""))


def _ours(path: Path) -> bool:
    """Whether a TIFF names hrvol as its software."""
    try:
        with tifffile.TiffFile(path) as file:
            return str(file.pages[0].tags.valueof(_SOFTWARE) or "").startswith("hrvol ")
    except Exception:  # of a file that is no TIFF, or damaged
        return False


def _our_folder(path: Path) -> bool:
    """Whether a folder holds planes that hrvol wrote, and nothing else."""
    if not path.is_dir() or path.is_symlink():
        return False
    files = sorted(path.iterdir())
    return all(_PLANE.fullmatch(file.name) for file in files) and all(map(_ours, (*files[:1], *files[-1:])))


_TYPES = (*NUMBERS, "float16")

STACK = Format("tiff", "a TIFF stack", (".tif", ".tiff"), open_stack, _ours, _TYPES)

FOLDER = Format(
    "tiff-folder", "a folder of TIFF planes", ("",), open_folder, _our_folder, _TYPES, folder=True
)
