"""Where the passes of the network look at an image, and where their tokens lie: geometry alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrvol.errors import InputError
from hrvol.features.deep.placement import interleaved_offsets, stretched_centres, token_centres
from hrvol.recipe.specs import DeepSpec


@dataclass(frozen=True)
class Layout:
    """Geometry of one image size. The canvas is the image as the network sees it, with what is reflected.

    Attributes
    ----------
    scaled
        Shape to which the image is resized.
    pad
        Pixels that are reflected before and after, of both axes.
    window
        Shape of what one pass sees of the canvas.
    starts
        Where the passes' windows begin on the canvas.
    per_axis
        Interleaved offsets per axis.
    centres
        Of the interleaved tokens on the canvas, of both axes.
    pixels
        Centres of the image's own pixels on the canvas, of both axes.
    """

    scaled: tuple[int, int]
    pad: tuple[tuple[int, int], tuple[int, int]]
    window: tuple[int, int]
    starts: tuple[tuple[int, int], ...]
    per_axis: int
    centres: tuple[np.ndarray, np.ndarray]
    pixels: tuple[np.ndarray, np.ndarray]

    @property
    def canvas(self) -> tuple[int, int]:
        """Shape of the canvas."""
        height, width = (side + sum(pad) for side, pad in zip(self.scaled, self.pad, strict=True))
        return height, width

    @property
    def transposed(self) -> Layout:
        """The layout of the transposed image."""
        tops = [top for top, _ in self.starts[:: self.per_axis]]
        lefts = [left for _, left in self.starts[: self.per_axis]]
        return Layout(
            scaled=self.scaled[::-1],
            pad=self.pad[::-1],
            window=self.window[::-1],
            starts=tuple((left, top) for left in lefts for top in tops),
            per_axis=self.per_axis,
            centres=self.centres[::-1],
            pixels=self.pixels[::-1],
        )


@lru_cache(maxsize=32)
def layout_of(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> Layout:
    """Return the layout for images of one shape.

    Raises
    ------
    InputError
        ``placement: stretch``, and the image is smaller than one patch.
    """
    stride = patch if spec.stride == "native" else spec.stride
    offsets = interleaved_offsets(patch, spec.offsets)
    # Shifts wrap around: a reflected margin takes what would otherwise come in from the far border.
    margin = max(spec.shifts, default=0)
    axes = []
    for original in shape:
        side = max(1, round(original * spec.input_scale))
        if spec.placement == "stretch":
            if side < patch:
                raise InputError(f"placement: stretch needs at least {patch} px a side, found {side}")
            count = 1 + (side - patch) // stride
            pad, window, starts = (0, 0), side, [0]
            centres = stretched_centres(count, side)
        else:
            # Overlapping patches begin half a patch outside, so that the first centre is at the border;
            # whole patches stay as many as the image needs: the grid the network was trained on.
            rim = 0 if stride == patch else patch // 2
            count = 1 + max(0, -(-(side + 2 * rim - patch) // stride))
            window = patch + (count - 1) * stride
            before = (window - side) // 2
            # the same on both sides: a mirrored canvas is then the canvas of the mirrored image
            each = margin + max(before - offsets[0], window - side - before + offsets[-1])
            pad = (each, each)
            starts = [each - before + offset for offset in offsets]
            centres = np.sort(np.concatenate([token_centres(count, patch, stride, s) for s in starts]))
        pixels = pad[0] + (np.arange(original) + 0.5) * (side / original)
        axes.append((side, pad, window, starts, centres, pixels))
    (y_side, y_pad, y_window, y_starts, *y), (x_side, x_pad, x_window, x_starts, *x) = axes
    return Layout(
        scaled=(y_side, x_side),
        pad=(y_pad, x_pad),
        window=(y_window, x_window),
        starts=tuple((top, left) for top in y_starts for left in x_starts),
        per_axis=len(offsets),
        centres=(y[0], x[0]),
        pixels=(y[1], x[1]),
    )


def canvas_of(image: Tensor, layout: Layout) -> Tensor:
    """Return an image ``(Y, X)`` as the network sees it: resized, and reflected around its borders."""
    if tuple(image.shape) != layout.scaled:
        scaled = F.interpolate(image[None, None], layout.scaled, mode="bilinear", antialias=True)[0, 0]
        image = scaled.clamp(0, 1)
    if not any(sum(layout.pad, ())):
        return image
    # numpy reflects any number of times, torch only once: an image may be smaller than its padding
    rows, cols = (
        torch.from_numpy(np.pad(np.arange(side), pad, "reflect")).to(image.device)
        for side, pad in zip(layout.scaled, layout.pad, strict=True)
    )
    return image[rows][:, cols]
