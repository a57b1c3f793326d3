"""Draw slices of volumes as small pictures for pages: grey values, classes above them, scale bars."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from hrvol.classes import ClassInfo

SIDE = 512
"""Pixels of the longer side of a slice."""

_LEAST = 8  # pixels of the shorter side

_QUALITY = 72

_BAR_SHARE = 0.3  # of the width of a picture, the longest scale bar

_METRIC = ((1.0, "m"), (1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-12, "pm"))

MOST_PALETTE = 255
"""Most classes of a picture of classes."""


def picture_size(height: float, width: float, side: int = SIDE) -> tuple[int, int]:
    """Return the pixels (Y, X) of a slice whose sides have these lengths."""
    longest = max(height, width)
    y, x = (max(_LEAST, round(side * length / longest)) for length in (height, width))
    return y, x


def resized(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return a plane (Y, X, ...) at another size by the nearest pixels; grey values stay what they are."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.intp), old - 1)
        for new, old in zip(size, plane.shape[:2], strict=True)
    )
    picture: NDArray[Any] = plane[rows][:, columns]
    return picture


def grey_picture(plane: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a plane (Y, X) of grey values as uint8, the window from black to white."""
    low, high = window
    unit = (plane.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-12))
    picture: NDArray[np.uint8] = np.rint(255 * np.clip(np.nan_to_num(unit), 0, 1)).astype(np.uint8)
    return picture


def heat_picture(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a plane (Y, X) of values in 0..255 in the colours of heat, uint8 (Y, X, 3)."""
    colours = np.asarray(colormaps["magma"](plane.astype(np.uint8)))[..., :3]
    picture: NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
    return picture


def over(
    grey: NDArray[np.uint8], labels: NDArray[np.integer[Any]], classes: Sequence[ClassInfo], opacity: float
) -> NDArray[np.uint8]:
    """Return a grey picture (Y, X) with the colours of classes above it, uint8 (Y, X, 3)."""
    numbers = _numbers(labels, classes)
    colours = np.array([(0, 0, 0), *(info.colour for info in classes)], np.float32)
    weight = np.where(numbers > 0, np.float32(opacity), np.float32(0))[..., None]
    picture: NDArray[np.uint8] = np.rint((1 - weight) * grey[..., None] + weight * colours[numbers]).astype(
        np.uint8
    )
    return picture


def bar_of(width: float, unit_metres: float | None) -> tuple[float, str]:
    """Choose the scale bar of a picture.

    Parameters
    ----------
    width
        Of the picture, in units of length (in voxels without a unit).
    unit_metres
        Length of the unit in metres; ``None``: unknown, the bar is in voxels.

    Returns
    -------
    tuple
        Share of the width that the bar takes, in 0..1, and its length in words: ``20 µm``, ``50 voxels``.
    """
    if unit_metres is None:
        length = _round_length(max(width * _BAR_SHARE, 1.0))
        return min(length / width, 1.0), f"{length:g} voxel{'' if length == 1 else 's'}"
    metres = width * unit_metres
    length = _round_length(metres * _BAR_SHARE)
    factor, symbol = next(
        ((size, name) for size, name in _METRIC if length >= size * (1 - 1e-9)), _METRIC[-1]
    )
    return length / metres, f"{length / factor:.6g} {symbol}"


def _round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)) * power


def with_bar(
    picture: NDArray[np.uint8], share: float, text: str
) -> tuple[NDArray[np.uint8], tuple[slice, slice]]:
    """Draw a scale bar on black into the lower left corner of a picture.

    Pictures that are too low for it get it below.

    Parameters
    ----------
    picture
        ``(Y, X)`` or ``(Y, X, 3)``.
    share
        Share of the width that the bar takes, in 0..1.
    text
        Its length in words.

    Returns
    -------
    tuple
        The picture, and the pixels (y, x) of its corner with the bar.
    """
    image = Image.fromarray(picture)
    file = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Pillow's own has no µ
    font = ImageFont.truetype(file, max(12, round(0.034 * max(image.size))))
    margin, thick = max(4, image.width // 50), max(3, image.width // 140)
    _, _, wide, high = (round(side) for side in font.getbbox(text))
    needed = high + thick + 3 * margin
    if image.height < 3 * needed:
        taller = Image.new(image.mode, (image.width, image.height + needed))
        taller.paste(image, (0, 0))
        image = taller
    length = max(1, min(round(share * image.width), image.width - margin))
    white, black = ((255,) * 3, (0,) * 3) if image.mode == "RGB" else (255, 0)
    top, right = image.height - needed, min(max(length, wide) + 2 * margin, image.width)
    bottom = image.height - margin
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, top, right - 1, image.height), fill=black)
    draw.rectangle((margin, bottom - thick, margin + length - 1, bottom - 1), fill=white)
    draw.text((margin, top + margin), text, fill=white, font=font, anchor="lt")
    return np.asarray(image), (slice(top, image.height), slice(0, right))


def montage(pictures: Sequence[NDArray[np.uint8]], columns: int, gap: int = 4) -> NDArray[np.uint8]:
    """Return pictures (Y, X, 3) of one size in rows, on white."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def encoded(picture: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Return the media type and the bytes of a small file: WebP, or JPEG where Pillow has no WebP."""
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    if features.check("webp"):
        image.save(stream, "WEBP", quality=_QUALITY, method=2)
        return "image/webp", stream.getvalue()
    image.save(stream, "JPEG", quality=_QUALITY)
    return "image/jpeg", stream.getvalue()


def class_layer(labels: NDArray[np.integer[Any]], classes: Sequence[ClassInfo]) -> tuple[str, bytes]:
    """Return a picture of classes (Y, X) to be laid over another: PNG, transparent where no class is.

    Of more than :data:`MOST_PALETTE` classes the first are drawn.
    """
    shown = list(classes)[:MOST_PALETTE]
    palette = [level for info in shown for level in info.colour]
    image = Image.fromarray(_numbers(labels, shown).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, *palette])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)
    return "image/png", stream.getvalue()


def _numbers(labels: NDArray[np.integer[Any]], classes: Sequence[ClassInfo]) -> NDArray[np.intp]:
    """Return the number of each pixel's class from 1, and 0 for values without a class."""
    most = max((info.value for info in classes), default=0)
    table = np.zeros(most + 2, np.intp)
    table[[info.value for info in classes]] = np.arange(1, len(classes) + 1)
    numbers: NDArray[np.intp] = table[np.clip(labels, 0, most + 1)]
    return numbers
