"""Open single PNG and JPEG images (Pillow); an image is decoded as a whole."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.importers.lazy_arrays import WHOLE_BYTES

# Pillow's modes: type, samples.
_MODES = {
    "1": ("u1", 1),
    "L": ("u1", 1),
    "I;16": ("<u2", 1),
    "I;16L": ("<u2", 1),
    "I;16B": (">u2", 1),
    "I": ("i4", 1),
    "F": ("f4", 1),
    "LA": ("u1", 2),
    "RGB": ("u1", 3),
    "RGBA": ("u1", 4),
    "CMYK": ("u1", 4),
    "P": ("u1", 3),
}

_LIMIT = threading.Lock()  # Pillow's limit of pixels is one variable


def raster_shape(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an image: ``(y, x)``, or ``(y, x, samples)`` for colours.

    Raises
    ------
    InputError
        It is no image of a known type, or too large.
    """
    with _LIMIT, _opened(path) as image:
        name, samples = _MODES.get(image.mode, ("", 0))
        width, height = image.size
        mode, several = image.mode, int(getattr(image, "n_frames", 1)) > 1
    if not samples or (samples > 1 and _deep_png(path)):
        found = "16 bits per colour" if samples else f"the type {printable(mode, 20)}"
        raise InputError(f"{path}: found an image of {found}, expected a grey image of 8 or 16 bits")
    if several:
        raise InputError(f"{path}: found an image of several frames, expected one image")
    shape = (height, width) if samples == 1 else (height, width, samples)
    if np.prod(shape, dtype=np.float64) * np.dtype(name).itemsize > WHOLE_BYTES:
        raise InputError(f"{path}: found an image of {width} x {height} pixels, expected a smaller one")
    return shape, np.dtype(name)


def read_raster(path: Path) -> NDArray[Any]:
    """Decode an image whose shape was checked by :func:`raster_shape`."""
    with _LIMIT, _opened(path) as image:
        if image.mode in ("P", "1"):
            image = image.convert("RGB" if image.mode == "P" else "L")
        values: NDArray[Any] = np.asarray(image)
    return values


def _opened(path: Path) -> Any:
    from PIL import Image  # comes with scikit-image

    kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # checked here, against larger sizes
    try:
        return Image.open(path, formats=("PNG", "JPEG"))
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def _deep_png(path: Path) -> bool:
    """Return whether a file is a PNG of 16 bits per sample, which Pillow would cut to 8."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and len(head) == 26 and struct.unpack(">B", head[24:25])[0] == 16
