"""Read regions of interest of ImageJ: ``*.roi`` and ``RoiSet.zip``, through roifile.

Coordinates of outlines are those of ImageJ: the edges of a pixel are at whole numbers.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hrvol.errors import MissingExtraError, StrokesError, first_line
from hrvol.text import printable
from hrvol.volume.strokes.drawing import Shape
from hrvol.volume.strokes.raster import Pixels, ellipse, path, polygon

_MOST_ROIS = 1_000_000

_ROI_BYTES = 2**28

_AUTOMATIC = re.compile(r"\d{2,}(-\d{2,})+|L?\d{4,}|")
"""Names that ImageJ makes from positions: they are no classes."""


def read_rois(data: bytes, source: str) -> Iterator[Shape]:
    """Yield the shapes of an ImageJ ROI, or of a zip archive of them.

    The class is the ROI's group (1..255) or, without one, its name up to a number at its end (``pore-3`` is
    of the class ``pore``); the plane is its position in the stack.

    Parameters
    ----------
    data
        Bytes of the file.
    source
        Name for messages.

    Raises
    ------
    StrokesError
        The file is damaged, or a ROI is of a type without pixels.
    MissingExtraError
        roifile is not installed.
    """
    try:
        from roifile import ImagejRoi
    except ImportError:
        raise MissingExtraError(f"{source}: ImageJ ROIs need roifile (pip install 'hrvol[io]')") from None
    for name, content in _members(data, source):
        where = f"{source}: {name}" if name else source
        try:
            shapes = list(_shapes(ImagejRoi.frombytes(content), where, name))
        except (StrokesError, MemoryError):
            raise
        except Exception as error:  # of damaged ROIs: roifile raises many types
            raise StrokesError(f"{where}: found {first_line(error)}, expected an ImageJ ROI") from None
        yield from shapes


def _members(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    if not data.startswith(b"PK"):
        yield "", data
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
            if not 0 < len(entries) <= _MOST_ROIS or sum(entry.file_size for entry in entries) > _ROI_BYTES:
                raise StrokesError(
                    f"{source}: found {len(entries):,} ROIs, expected 1 to {_MOST_ROIS:,} and at most"
                    f" {_ROI_BYTES:,} bytes"
                )
            for entry in entries:
                with archive.open(entry) as stream:
                    yield printable(entry.filename, 100), stream.read(entry.file_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise StrokesError(f"{source}: found {first_line(error)}, expected a zip archive of ROIs") from None


def _shapes(roi: Any, where: str, member: str) -> Iterator[Shape]:
    """Yield a ROI, or the points of one for each plane: those of a stack may have planes of their own."""
    name = roi.name or member.rpartition("/")[2].removesuffix(".roi")
    kind = str(roi.group) if roi.group else _kind(name)
    colour = roi.hexcolor(roi.stroke_color) if any(roi.stroke_color) else None
    rgb = None if colour is None else (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
    position = int(roi.z_position) or int(roi.position)
    plane = position - 1 if position else None
    if roi.roitype.name != "POINT":
        yield Shape(plane, kind, _pixels(roi, where), rgb)
        return
    points = np.floor(np.asarray(roi.coordinates(), np.float64)[:, ::-1]).astype(np.int64)
    own = roi.counter_positions
    planes = np.zeros(len(points), np.int64) if own is None or len(own) != len(points) else np.asarray(own)
    for number in np.unique(planes):
        chosen = points[planes == number]
        z = int(number) - 1 if number else plane
        yield Shape(z, kind, partial(np.copy, chosen), rgb, anchors=len(chosen))


def _kind(name: str) -> str | None:
    """Return the class in the name of a ROI, ``None`` for a name that ImageJ made."""
    text = name.strip()
    if _AUTOMATIC.fullmatch(text):
        return None
    return re.sub(r"[-_ .#]*\d+$", "", text) or text


def _pixels(roi: Any, where: str) -> Callable[[], Pixels]:
    """Return what draws an outline or a line."""
    kind = roi.roitype.name
    width = max(1.0, float(roi.float_stroke_width or roi.stroke_width or 1))
    if kind == "OVAL":
        top, left, bottom, right = (float(side) for side in (roi.top, roi.left, roi.bottom, roi.right))
        return partial(ellipse, (top - 0.5, left - 0.5, bottom - 0.5, right - 0.5), where)
    parts = [np.asarray(part, np.float64)[:, ::-1] for part in roi.coordinates(multi=True)]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise StrokesError(f"{where}: found a ROI of type {kind} without coordinates, expected a shape")
    if kind in ("LINE", "FREELINE", "POLYLINE", "ANGLE"):
        # Lines are drawn between the centres of pixels unless they have parts of pixels.
        shift = 0.5 if roi.subpixelresolution else 0.0
        return partial(path, parts[0] - shift, width, where)
    return partial(polygon, [part - 0.5 for part in parts], where)
