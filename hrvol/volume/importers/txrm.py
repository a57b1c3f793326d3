"""Open TXRM and XRM files of Zeiss X-ray microscopes (txrm2tiff); an image is decoded as a whole.

Images are as they are stored: references are not applied, and mosaics are not stitched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.lazy_arrays import plane_array
from hrvol.volume.importers.stored import Request, StoredImage, VoxelSize, voxel_size

_SUFFIXES = (".txrm", ".xrm", ".txm")

_PLANES = 2**20


def is_txrm(name: str) -> bool:
    """Return whether a name is that of a file of an X-ray microscope."""
    return name.endswith(_SUFFIXES)


def open_txrm(request: Request) -> StoredImage:
    """Open a ``.txrm``, ``.xrm`` or ``.txm`` file."""
    file = _File(request.path, request.source)
    info = file.info
    count, shape, dtype = int(info["ImagesTaken"][0]), file.shape, file.dtype
    if not 0 < count <= _PLANES or min(shape, default=0) < 1 or len(shape) != 2:
        raise InputError(f"{request.source}: found {count} images of shape {shape}, expected 1 or more")
    file.check(count)
    array = plane_array(file.read, count, shape, dtype)
    return StoredImage(array, ("z" if count > 1 else "image", "y", "x"), _size(info), (request.path,))


class _File:
    """An open file; one thread reads at a time."""

    def __init__(self, path: Path, source: str) -> None:
        module = require("txrm2tiff.txrm", source, "a file of an X-ray microscope")
        self._source = source
        self._lock = threading.Lock()
        with _quiet_root():
            self._file: Any = module.open_txrm(path, load_images=False, load_reference=False, strict=True)
            self.info: dict[str, Any] = self._file.image_info
            kind = self._file.image_dtype
            self.shape = (int(self.info["ImageHeight"][0]), int(self.info["ImageWidth"][0]))
        if kind is None or np.dtype(kind.value).kind not in "iuf":
            raise InputError(f"{source}: found images of an unknown type, expected integers or floats")
        self.dtype = np.dtype(kind.value)

    def check(self, count: int) -> None:
        """Check that all images are there."""
        needed = self.shape[0] * self.shape[1] * self.dtype.itemsize
        for number in range(1, count + 1):
            key = f"ImageData{-(-number // 100)}/Image{number}"
            found = self._file.ole.get_size(key) if self._file.ole.exists(key) else 0
            if found != needed:
                raise InputError(
                    f"{self._source}: found {found:,} bytes of image {number} of {count}, expected {needed:,}"
                )

    def read(self, number: int) -> NDArray[Any]:
        """Return an image, numbered from 0."""
        with self._lock, _quiet_root():
            images = self._file.extract_images(number + 1, number + 1)
        return np.asarray(images).reshape(self.shape)


def _size(info: dict[str, Any]) -> VoxelSize:
    sizes = info.get("PixelSize")
    if not sizes:
        return VoxelSize()
    return voxel_size([sizes[0]] * 3, "micrometer", "PixelSize of the microscope's file")


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Keep messages to the root logger off the screen, and no handler of them after it."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # without any, logging would add one for good
    try:
        yield
    finally:
        root.removeHandler(handler)
