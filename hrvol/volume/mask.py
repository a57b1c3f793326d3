"""Write masks as TIFF images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from hrvol.files import SOFTWARE


def write_mask(path: str | Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write a mask as an uncompressed grey TIFF.

    Parameters
    ----------
    path
        File to write; an existing file is replaced.
    mask
        Boolean ``(Y, X)``, stored as uint8: 255 where true, else 0.
    """
    values: npt.NDArray[Any] = np.where(mask, np.uint8(255), np.uint8(0))
    tifffile.imwrite(path, values, photometric="minisblack", software=SOFTWARE)
