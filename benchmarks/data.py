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
from PIL import Image

from hrvol.errors import InputError
from hrvol.phantom import make_phantom

DENSE = ("super1", "ebc2", "vnc")
"""Data sets with a class for every pixel."""

FURTHER = ("xct_lowcontrast", "xct_sandstone", "xct_fibres", "fibsem_medulla", "phantom")
"""More of them. The last three are volumes with cubic voxels, strokes in one half and truth in the other."""

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
        ``(Z, Y, X)`` grey values, uint8 or uint16, and classes 1..K, uint8.
    train, test
        Planes to draw strokes on, and planes to compare with the truth.
    classes
        Names of classes 1..K.
    voxel_size
        (z, y, x) in any unit; ``None`` if planes are no neighbours.
    """

    name: str
    images: NDArray[Any]
    truth: NDArray[np.uint8]
    train: tuple[int, ...]
    test: tuple[int, ...]
    classes: tuple[str, ...]
    voxel_size: tuple[float, float, float] | None = None


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
    """Return a data set of :data:`DENSE` or :data:`FURTHER` by name.

    ``super1`` and ``ebc2`` have train and test images in one stack.
    """
    if name in FURTHER:
        return _further(name)
    folder = data_dir() / name
    if name == "vnc":
        truth = _read(folder / "stack1_z00-11_labels.tif")
        truth[np.isin(truth, _VNC_MERGED)] = 1
        images = _read(folder / "stack1_z00-11_images.tif")
        names = ("cytoplasm", "membrane", "mitochondrion")
        return Dense(name, images, truth, tuple(_VNC_TRAIN), tuple(_VNC_TEST), names, (48, 4.6, 4.6))
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


def _further(name: str) -> Dense:
    cubic = (1.0, 1.0, 1.0)
    if name == "phantom":
        phantom = make_phantom((96, 256, 256), seed=3)
        train, test = tuple(range(6, 48, 12)), tuple(range(48, 96))
        return Dense(name, phantom.image, phantom.labels, train, test, phantom.class_names, cubic)
    folder = data_dir() / name
    if name in ("xct_lowcontrast", "xct_sandstone"):
        masks = sorted(folder.glob("*_labels.png"))
        images = np.stack([_read(mask.with_name(mask.name.replace("_labels.png", ".tif"))) for mask in masks])
        truth = np.stack([np.asarray(Image.open(mask)) for mask in masks]).astype(np.uint8)
        names = {
            "xct_lowcontrast": ("rest", "inclusion"),
            "xct_sandstone": ("pore", "clay", "quartz", "heavy mineral"),
        }[name]
        return Dense(name, images, truth, (0, 2), (1, 3, 4), names)
    images, truth = _read(folder / "volume.tif"), _read(folder / "labels.tif").astype(np.uint8)
    half = len(images) // 2
    train = tuple(range(half // 8, half, half // 4))
    names = ("matrix", "fibre") if name == "xct_fibres" else ("interior", "cell boundary")
    return Dense(name, images, truth, train, tuple(range(half, len(images))), names, cubic)


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
