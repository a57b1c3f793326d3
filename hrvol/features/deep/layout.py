"""Compute which regions of an image the passes of the network see, and the positions of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrvol.errors import InputError
from hrvol.features.deep.placement import interleaved_offsets, stretched_centres, token_centres
from hrvol.features.deep.views import View, transposes, views_of
from hrvol.recipe.specs import DeepSpec


@dataclass(frozen=True)
class Layout:
    """Geometry of one image size. The canvas is the resized image with reflected borders.

    Attributes
    ----------
    scaled
        Shape to which the image is resized.
    pad
        Pixels of reflection before and after the image, for both axes.
    pass_shape
        Shape of the crop of the canvas that one pass sees.
    starts
        Position ``(y, x)`` of the crop of each pass on the canvas.
    per_axis
        Interleaved offsets per axis.
    centres
        Centres of the interleaved tokens on the canvas, for both axes.
    pixels
        Centres of the pixels of the image on the canvas, for both axes.
    """

    scaled: tuple[int, int]
    pad: tuple[tuple[int, int], tuple[int, int]]
    pass_shape: tuple[int, int]
    starts: tuple[tuple[int, int], ...]
    per_axis: int
    centres: tuple[np.ndarray, np.ndarray]
    pixels: tuple[np.ndarray, np.ndarray]

    @property
    def canvas(self) -> tuple[int, int]:
        """Shape of the canvas."""
        height, width = (side + sum(pad) for side, pad in zip(self.scaled, self.pad, strict=True))
        return height, width

    def pixels_of(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Return where a view has the rows and columns of the image's pixels.

        They are positions along the axes of :attr:`centres`: the tokens of a view that exchanges rows and
        columns are transposed to the orientation of the image.
        """
        y, x = view.where(*self.pixels, self.canvas)
        return (x, y) if transposes(view) else (y, x)

    def at_offset(self, number: int) -> Layout:
        """Return the layout of the one pass at the same offset along both axes, by its number."""
        y, x = (axis[number :: self.per_axis] for axis in self.centres)
        start = self.starts[number * (self.per_axis + 1)]
        return replace(self, starts=(start,), per_axis=1, centres=(y, x))

    @property
    def transposed(self) -> Layout:
        """The layout of the transposed image."""
        tops = [top for top, _ in self.starts[:: self.per_axis]]
        lefts = [left for _, left in self.starts[: self.per_axis]]
        return Layout(
            scaled=self.scaled[::-1],
            pad=self.pad[::-1],
            pass_shape=self.pass_shape[::-1],
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
        The image is smaller than one patch, with ``placement: stretch``.
    """
    stride = patch if spec.stride == "native" else spec.stride
    offsets = interleaved_offsets(patch, spec.offsets)
    # Shifts wrap around: a reflected margin keeps pixels from entering at the opposite border.
    margin = max(spec.shifts, default=0)
    axes = []
    for original in shape:
        side = max(1, round(original * spec.input_scale))
        if spec.placement == "stretch":
            if side < patch:
                raise InputError(f"placement: stretch needs at least {patch} px a side, found {side}")
            count = 1 + (side - patch) // stride
            pad, crop, starts = (0, 0), side, [0]
            centres = stretched_centres(count, side)
        else:
            # Overlapping patches start half a patch outside, so that the first centre is at the border.
            # Patches without overlap stay inside: this is the grid that the network was trained on.
            rim = 0 if stride == patch else patch // 2
            count = 1 + max(0, -(-(side + 2 * rim - patch) // stride))
            crop = patch + (count - 1) * stride
            before = (crop - side) // 2
            # Equal on both sides, so that the mirrored canvas is the canvas of the mirrored image.
            each = margin + max(before - offsets[0], crop - side - before + offsets[-1])
            pad = (each, each)
            starts = [each - before + offset for offset in offsets]
            centres = np.sort(np.concatenate([token_centres(count, patch, stride, s) for s in starts]))
        pixels = pad[0] + (np.arange(original) + 0.5) * (side / original)
        axes.append((side, pad, crop, starts, centres, pixels))
    (y_side, y_pad, y_crop, y_starts, *y), (x_side, x_pad, x_crop, x_starts, *x) = axes
    return Layout(
        scaled=(y_side, x_side),
        pad=(y_pad, x_pad),
        pass_shape=(y_crop, x_crop),
        starts=tuple((top, left) for top in y_starts for left in x_starts),
        per_axis=len(offsets),
        centres=(y[0], x[0]),
        pixels=(y[1], x[1]),
    )


def view_layouts(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> tuple[tuple[View, Layout], ...]:
    """Return the views of images of one shape, each with the layout of its passes.

    Views that are woven have one pass each: turned ones at another offset than the others, and again at the
    offset of these for ``weave: 2``.
    """
    layout, views = layout_of(patch, spec, shape), views_of(spec)
    if not spec.weave:
        return tuple((view, layout) for view in views)
    return tuple(
        (view, layout.at_offset((first + transposes(view)) % layout.per_axis))
        for first in range(spec.weave)
        for view in views
    )


def canvas_of(image: Tensor, layout: Layout) -> Tensor:
    """Return an image ``(Y, X)``, or ``(3, Y, X)``, resized and reflected at its borders for the network."""
    if tuple(image.shape[-2:]) != layout.scaled:
        one = image.reshape(1, -1, *image.shape[-2:])
        scaled = F.interpolate(one, layout.scaled, mode="bilinear", antialias=True)
        image = scaled.reshape(*image.shape[:-2], *layout.scaled).clamp(0, 1)
    if not any(sum(layout.pad, ())):
        return image
    # NumPy reflects repeatedly, torch only once: an image may be smaller than its padding.
    rows, cols = (
        torch.from_numpy(np.pad(np.arange(side), pad, "reflect")).to(image.device)
        for side, pad in zip(layout.scaled, layout.pad, strict=True)
    )
    return image[..., rows, :][..., cols]
