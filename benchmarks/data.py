"""The shared micrographs: where they are and what they hold.

They lie in ``$HRVOL_DATA``, by default ``../shared/data`` beside the repository, and are never copied into
it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from hrvol.errors import InputError

DENSE = ("super1", "ebc2", "vnc")
"""Data sets with a class for every pixel."""

REFERENCED = ("superalloy", "needle_block")
"""Images with strokes and with what the paper made of them."""

STROKED = "tcells"
"""Images with strokes only."""

_VNC_TRAIN, _VNC_TEST = range(0, 4), range(8, 12)
_VNC_MERGED = (4, 5)  # synapse, glia / extracellular: too few pixels to draw strokes on, counted as cytoplasm


@dataclass(frozen=True, eq=False)
class Dense:
    """Planes with a class for every pixel.

    Attributes
    ----------
    name
        Of the data set.
    images, truth
        ``(Z, Y, X)`` uint8 grey values, and classes 1..K.
    train, test
        Planes to draw strokes on, and planes to compare with the truth.
    classes
        Names of classes 1..K.
    """

    name: str
    images: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    train: tuple[int, ...]
    test: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Stroked:
    """Images with a person's strokes.

    Attributes
    ----------
    name
        Of the data set.
    images, strokes
        ``(Z, Y, X)`` uint8 grey values, and strokes: 0 is not drawn, classes are 1..K.
    classes
        Names of classes 1..K.
    references
        What the paper made of it, ``(Y, X)`` classes 1..K by name: ``rf_nocrf``, ``hybrid_nocrf``...
    """

    name: str
    images: NDArray[np.uint8]
    strokes: NDArray[np.uint8]
    classes: tuple[str, ...]
    references: dict[str, NDArray[np.uint8]]


def data_dir() -> Path:
    """Return the folder of the shared micrographs.

    Raises
    ------
    InputError
        There is no such folder.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HRVOL_DATA", default))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the shared micrographs, or set HRVOL_DATA")
    return folder


def load_dense(name: str) -> Dense:
    """Return ``super1``, ``ebc2`` (train and test images in one stack) or ``vnc``."""
    folder = data_dir() / name
    if name == "vnc":
        truth = _read(folder / "stack1_z00-11_labels.tif")
        truth[np.isin(truth, _VNC_MERGED)] = 1
        images = _read(folder / "stack1_z00-11_images.tif")
        names = ("cytoplasm", "membrane", "mitochondrion")
        return Dense(name, images, truth, tuple(_VNC_TRAIN), tuple(_VNC_TEST), names)
    of = {"super1": ("matrix", "tertiary", "secondary"), "ebc2": ("other", "oxide")}
    (images, truth), (more_images, more_truth) = (
        [_read(folder / f"{part}_{what}.tif") for what in ("images", "labels")] for part in ("train", "test")
    )
    first, total = len(images), len(images) + len(more_images)
    return Dense(
        name,
        np.concatenate([images, more_images]),
        np.concatenate([truth, more_truth]),
        tuple(range(first)),
        tuple(range(first, total)),
        of[name],
    )


def load_stroked(name: str) -> Stroked:
    """Return ``tcells``, ``superalloy`` or ``needle_block``."""
    folder = data_dir() / name
    names = {
        "tcells": ("nucleus", "cell", "background"),
        "superalloy": ("matrix", "secondary", "tertiary"),
        "needle_block": ("alpha blocks", "liquor", "beta needles"),
    }[name]
    images = _read(folder / ("images.tif" if name == STROKED else "image.tif"))
    strokes = _read(folder / "sparse_labels.tif")
    references = {
        file.stem.removeprefix("reference_"): _read(file) for file in sorted(folder.glob("reference_*.tif"))
    }
    return Stroked(name, _stack(images), _stack(strokes), names, references)


def _read(path: Path) -> NDArray[Any]:
    try:
        image: NDArray[Any] = tifffile.imread(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a TIFF of the shared data") from None
    return image


def _stack(image: NDArray[Any]) -> NDArray[Any]:
    return image[None] if image.ndim == 2 else image
