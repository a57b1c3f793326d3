"""Writing a mask as a TIFF image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


def write_mask(path: str | Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write a mask as an uncompressed grey TIFF, which every viewer opens.

    Parameters
    ----------
    path
        File to write; one that exists is replaced.
    mask
        ``(Y, X)``; becomes uint8, 255 where it holds and 0 elsewhere.
    """
    values: npt.NDArray[Any] = np.where(mask, np.uint8(255), np.uint8(0))
    tifffile.imwrite(path, values, photometric="minisblack")
