"""Open DICOM files (pydicom): the slices of one series in a folder, one slice, or one file of many frames.

Slices are ordered by their position, else by their number. Values are those that are stored: rescaling is not
applied. A slice, or a frame, is decoded as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import plane_array
from hrvol.volume.importers.numbering import check_gaps
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, voxel_size

FILES = 2**16
"""Most slices of a series."""

_UNEVEN = 0.02  # of the distance of slices: rounded positions differ by less

_KIND = "a DICOM file"

# What is read of a header: private elements may be large, and a series has thousands of headers.
_TAGS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "PixelRepresentation",
    "NumberOfFrames",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "RescaleSlope",
    "RescaleIntercept",
)

# What the values of all slices have in common.
_SCALE = ("RescaleSlope", "RescaleIntercept", "ImageOrientationPatient")


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_file(request: Request) -> StoredImage:
    """Open one DICOM file: an image, or a stack of frames."""
    header = _header(request.path, request.source)
    count = int(header.get("NumberOfFrames") or 1)
    shape, dtype = _layout(header, request.source)
    array = plane_array(partial(_frame, request.path, _reader(request.source)), count, shape, dtype)
    return StoredImage(array, _axes(shape, count), _size(header, None), (request.path,))


def open_series(request: Request, files: Sequence[Path]) -> StoredImage:
    """Open the slices of a series.

    Raises
    ------
    InputError
        There are several series, slices of another size, type, scale or direction, or slices are missing.
    """
    source = request.source
    if len(files) > FILES:
        raise InputError(f"{source}: found {len(files):,} files, expected at most {FILES:,}")
    headers = [(path, _header(path, source)) for path in files]
    series = {str(header.get("SeriesInstanceUID", "")): path for path, header in headers}
    if len(series) > 1:
        names = ", ".join(printable(path.name, 60) for path in list(series.values())[:4])
        raise InputError(
            f"{source}: found {len(series)} series (with {names}), expected one: name it by a pattern"
        )
    first = headers[0][1]
    layout = _layout(first, source)
    for path, header in headers:
        if _layout(header, source) != layout or int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{source}: found {printable(path.name, 100)} of {_shown(header, source)}, expected"
                f" {_shown(first, source)} as in {printable(headers[0][0].name, 100)}"
            )
        for name in _SCALE:
            if not _alike(header.get(name), first.get(name)):
                raise InputError(
                    f"{source}: found {name} {printable(str(header.get(name)), 60)} in"
                    f" {printable(path.name, 100)}, expected {printable(str(first.get(name)), 60)} as in"
                    f" {printable(headers[0][0].name, 100)}"
                )
    ordered, distance = _in_order(headers, source)
    reader = _reader(source)
    array = plane_array(lambda n: _frame(ordered[n], reader, 0), len(ordered), *layout)
    array.files = tuple(map(str, ordered))
    return StoredImage(array, _axes(layout[0], len(ordered)), _size(first, distance), tuple(ordered))


def _reader(source: str) -> Callable[..., NDArray[Any]]:
    read: Callable[..., NDArray[Any]] = require("pydicom.pixels", source, _KIND).pixel_array
    return read


def _frame(path: Path, read: Callable[..., NDArray[Any]], number: int) -> NDArray[Any]:
    return read(path, index=number, raw=True)


def _header(path: Path, source: str) -> Any:
    pydicom = require("pydicom", source, _KIND)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except pydicom.errors.InvalidDicomError:
        raise InputError(f"{path}: cannot be read as a DICOM file") from None
    if not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{path}: found a DICOM file without an image, expected one")
    return header


def _layout(header: Any, source: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    samples, bits = int(header.get("SamplesPerPixel") or 1), int(header.get("BitsAllocated") or 0)
    if bits not in (8, 16, 32) or not 1 <= samples <= 4:
        raise InputError(
            f"{source}: found {samples} samples of {bits} bits per pixel, expected 1 of 8, 16 or 32"
        )
    kind = "i" if header.get("PixelRepresentation") else "u"
    shape = (int(header.Rows), int(header.Columns), *([samples] if samples > 1 else []))
    return shape, np.dtype(f"{kind}{bits // 8}")


def _shown(header: Any, source: str) -> str:
    shape, dtype = _layout(header, source)
    frames = f" and {header.NumberOfFrames} frames" if header.get("NumberOfFrames") else ""
    return f"{'x'.join(map(str, shape))} pixels of type {dtype}{frames}"


def _alike(one: Any, other: Any) -> bool:
    """Return whether numbers of two headers are the same but for rounding."""
    if one is None or other is None:
        return one is other
    first, second = (np.array(value, np.float64) for value in (one, other))
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-6, atol=1e-4))


def _axes(shape: tuple[int, ...], count: int) -> tuple[str, ...]:
    return ("z" if count > 1 else "frame", "y", "x", "s")[: len(shape) + 1]


def _in_order(headers: Sequence[tuple[Path, Any]], source: str) -> tuple[list[Path], float | None]:
    """Return the files in the order of their slices, and the distance of these in mm."""
    positions = [_position(header) for _, header in headers]
    if None in positions:
        numbers = [int(header.get("InstanceNumber") or 0) for _, header in headers]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"{source}: found slices without positions or numbers, expected one of both")
        check_gaps(source, [numbers], "slices")
        return [path for _, path in sorted(zip(numbers, (p for p, _ in headers), strict=True))], None
    order = sorted(range(len(headers)), key=lambda i: (positions[i], headers[i][0].name))
    along = np.array([positions[i] for i in order], np.float64)
    steps = np.diff(along)
    if len(steps) and steps.min() <= 0:
        raise InputError(f"{source}: found two slices at one position, expected each position once")
    middle = float(np.quantile(steps, 0.5, method="lower")) if len(steps) else 0.0
    if len(steps) and (np.abs(steps - middle) > _UNEVEN * middle + 1e-4).any():
        worst = int(np.argmax(np.abs(steps - middle)))
        names = [printable(headers[order[i]][0].name, 60) for i in (worst, worst + 1)]
        raise InputError(
            f"{source}: found {steps[worst]:.4g} mm between {names[0]} and {names[1]}, expected {middle:.4g}"
            " as between the others: slices are missing"
        )
    return [headers[i][0] for i in order], middle or None


def _position(header: Any) -> float | None:
    """Return the position of a slice along the normal of its plane, in mm."""
    position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return None
    directions = np.array([float(value) for value in orientation])
    return float(np.cross(directions[:3], directions[3:]) @ np.array([float(value) for value in position]))


def _size(header: Any, distance: float | None) -> VoxelSize:
    """Return the voxel size from spacing of pixels and distance of slices, of one file also of its frames."""
    spacing = header.get("PixelSpacing") or _of_frames(header, "PixelSpacing")
    if spacing is None or len(spacing) != 2:
        return VoxelSize()
    z = distance
    if z is None:
        z = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
        z = z or _of_frames(header, "SpacingBetweenSlices") or _of_frames(header, "SliceThickness")
    numbers = [None if value is None else re.sub(r"[^0-9.eE+-]", "", str(value)) for value in (z, *spacing)]
    return voxel_size(numbers, "millimeter", "DICOM header")


def _of_frames(header: Any, name: str) -> Any:
    """Return a measure that the frames of an enhanced file share."""
    try:
        return header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].get(name)
    except (AttributeError, IndexError):
        return None
