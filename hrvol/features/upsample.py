"""Pixel-level features from a patch-level network, without training (paper, section 3.1, algorithm 1).

Two ways to the same density: *strided* (a smaller stride of the patch embedding, as published) and
*interleaved* (the native stride at k x k sub-patch offsets, whose tokens fill one finer grid). Either
may be averaged over views. Everything after the network is linear, so a linear map (PCA, class logits,
k-means scores) may be applied to tokens before they are spread: exact, and K channels instead of 384.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrvol.errors import InputError
from hrvol.features.backbone import HeadMap, Positions, Tokens
from hrvol.features.placement import (
    axis_weights,
    interleaved_offsets,
    spread,
    stretched_centres,
    token_centres,
)
from hrvol.features.views import View, combine, flips, shifts
from hrvol.recipe import DeepSpec


class TokenSource(Protocol):
    """What the upsampling needs of a network; :class:`hrvol.features.backbone.Backbone` is one."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        ...

    device: torch.device

    def block_numbers(self, block: Any) -> tuple[int, ...]:
        """Return block numbers for a recipe's ``block`` field."""
        ...

    def tokens(
        self,
        images: Tensor,
        *,
        stride: int | None,
        blocks: Sequence[int] | None,
        attention: bool,
        head_map: HeadMap | None,
        positions: Positions,
    ) -> Tokens:
        """Return the tokens of ``(B, 1, Y, X)`` images."""
        ...


@dataclass(frozen=True)
class Linear:
    """A linear map ``W f + b`` of features: ``weight`` is ``(K, C)``, ``bias`` ``(K,)``, float32."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Upsampled:
    """Features and attention of one image at pixel resolution.

    Attributes
    ----------
    features
        ``(C, Y, X)`` float32; stored pixel by pixel (channels innermost).
    attention
        ``(heads, Y, X)`` float32 times uniform, or ``None``.
    head_map
        ``(heads, Y, X)`` float32, or ``None``.
    """

    features: Tensor
    attention: Tensor | None
    head_map: Tensor | None


def views_of(spec: DeepSpec) -> tuple[View, ...]:
    """Return the views that a recipe averages over; always at least one."""
    sets: list[tuple[View, ...]] = []
    if spec.shifts:
        sets.append(shifts(spec.shifts, spec.neighbourhood))
    if spec.flips:
        sets.append(flips("published" if spec.flips == "published" else "group"))
    return combine(*sets)


def upsample(
    backbone: TokenSource,
    image: Tensor,
    spec: DeepSpec,
    *,
    linear: Linear | None = None,
    unit: bool = False,
    batch_size: int = 4,
    attention: bool = False,
    head_map: HeadMap | None = None,
    out: Tensor | None = None,
) -> Upsampled:
    """Return pixel-level features of one image.

    Parameters
    ----------
    backbone
        The network.
    image
        ``(Y, X)`` float32 in [0, 1].
    spec
        Stride or offsets, views, placement, interpolation.
    linear
        Map applied to tokens before they are spread; the result then has its K channels.
    unit
        Scale each token to length 1 first, before ``linear``: directions are what similarity is about.
    batch_size
        Images per pass of the network; 1 needs the least memory. Results do not depend on how many
        threads run, but may differ by rounding between batch sizes.
    attention, head_map
        Also return the last block's CLS attention, or a per-head map.
    out
        ``(Y, X, C)`` float32 buffer to write the features into.

    Returns
    -------
    Upsampled

    Raises
    ------
    InputError
        The image is empty, or (``placement: stretch``) smaller than one patch.
    """
    if image.ndim != 2 or 0 in image.shape:
        raise InputError(f"expected an image (Y, X), found shape {tuple(image.shape)}")
    plan = _plan(backbone.patch, spec, (int(image.shape[0]), int(image.shape[1])))
    canvas = _canvas(image.to(backbone.device), plan)
    views = views_of(spec)
    results: dict[str, Tensor] = {} if out is None else {"features": out}
    for number, view in enumerate(views):
        seen = view.apply(canvas)
        windows = [seen[y : y + plan.window[0], x : x + plan.window[1]] for y, x in plan.starts]
        tokens = _run(backbone, windows, spec, batch_size, attention=attention, head_map=head_map)
        grids = {"features": tokens.features, "attention": tokens.attention, "head_map": tokens.head_map}
        for name, passes in grids.items():
            if passes is None:
                continue
            grid = _interleave(passes, plan.per_axis)
            if unit and name == "features":
                grid = _in_pool(F.normalize, grid, 2.0, -1)
            if linear is not None and name == "features":
                grid = _in_pool(F.linear, grid, linear.weight.to(grid), linear.bias.to(grid))
            if name not in results:
                results[name] = torch.empty((*image.shape, grid.shape[-1]), device=grid.device)
            _add_view(results[name], grid, plan, view, spec, first=number == 0, share=1 / len(views))
    by_channel = {name: values.permute(2, 0, 1) for name, values in results.items()}
    return Upsampled(by_channel["features"], by_channel.get("attention"), by_channel.get("head_map"))


def project(features: Tensor, linear: Linear) -> Tensor:
    """Return a linear map ``(K, Y, X)`` of features ``(C, Y, X)``, row by row, channels innermost in memory.

    The same bits on any number of cores.
    """

    def rows() -> Tensor:
        weight, bias = linear.weight.to(features), linear.bias.to(features)
        mapped = torch.empty((*features.shape[1:], len(weight)), device=features.device)
        for row in range(features.shape[1]):
            mapped[row] = F.linear(features[:, row].T, weight, bias)
        return mapped.permute(2, 0, 1)

    found: Tensor = _in_pool(rows)
    return found


@dataclass(frozen=True)
class _Plan:
    """Geometry of one image size. The canvas is the image as the network sees it, with what is reflected."""

    scaled: tuple[int, int]
    pad: tuple[tuple[int, int], tuple[int, int]]
    window: tuple[int, int]  # what one pass sees of the canvas
    starts: tuple[tuple[int, int], ...]  # of the passes' windows on the canvas
    per_axis: int  # interleaved offsets per axis
    centres: tuple[np.ndarray, np.ndarray]  # of the interleaved tokens on the canvas
    pixels: tuple[np.ndarray, np.ndarray]  # centres of the image's own pixels on the canvas

    @property
    def canvas(self) -> tuple[int, int]:
        """Shape of the canvas."""
        height, width = (side + sum(pad) for side, pad in zip(self.scaled, self.pad, strict=True))
        return height, width


@lru_cache(maxsize=32)
def _plan(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> _Plan:
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
    return _Plan(
        scaled=(y_side, x_side),
        pad=(y_pad, x_pad),
        window=(y_window, x_window),
        starts=tuple((top, left) for top in y_starts for left in x_starts),
        per_axis=len(offsets),
        centres=(y[0], x[0]),
        pixels=(y[1], x[1]),
    )


def _canvas(image: Tensor, plan: _Plan) -> Tensor:
    """Resize to what the network sees and reflect around it."""
    if tuple(image.shape) != plan.scaled:
        scaled = F.interpolate(image[None, None], plan.scaled, mode="bilinear", antialias=True)[0, 0]
        image = scaled.clamp(0, 1)
    if not any(sum(plan.pad, ())):
        return image
    # numpy reflects any number of times, torch only once: an image may be smaller than its padding
    rows, cols = (np.pad(np.arange(n), pad, "reflect") for n, pad in zip(plan.scaled, plan.pad, strict=True))
    return image[torch.from_numpy(rows).to(image.device)][:, torch.from_numpy(cols).to(image.device)]


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return threads that each compute on one core.

    Passes run side by side instead of each on all cores: a pass then has the same bits whatever the
    number of cores or workers, and small passes use the machine better.
    """
    return ThreadPoolExecutor(
        torch.get_num_threads(), "hrvol-forward", initializer=torch.set_num_threads, initargs=(1,)
    )


def _in_pool(function: Any, *arguments: Any) -> Any:
    return _pool().submit(function, *arguments).result()


def _run(
    backbone: TokenSource, windows: Sequence[Tensor], spec: DeepSpec, batch_size: int, **wanted: Any
) -> Tokens:
    """Run all windows of one view through the network, ``(n, C, h, w)`` each."""

    def run(batch: Tensor) -> Tokens:
        return backbone.tokens(
            batch,
            stride=None if spec.stride == "native" else spec.stride,
            blocks=backbone.block_numbers(spec.block),
            positions="published" if spec.placement == "stretch" else "exact",
            **wanted,
        )

    batches = [
        torch.stack(list(windows[i : i + batch_size]))[:, None] for i in range(0, len(windows), batch_size)
    ]
    on_cpu = backbone.device.type == "cpu"
    done = list(_pool().map(run, batches)) if on_cpu else [run(batch) for batch in batches]

    def joined(name: str) -> Any:
        parts = [getattr(tokens, name) for tokens in done]
        return None if parts[0] is None else torch.cat(parts)

    return Tokens(joined("features"), joined("attention"), joined("head_map"))


def _interleave(passes: Tensor, per_axis: int) -> Tensor:
    """Weave ``(k*k, C, h, w)`` tokens of k x k offsets into one grid ``(h*k, w*k, C)``."""
    _, channels, height, width = passes.shape
    woven = passes.reshape(per_axis, per_axis, channels, height, width).permute(3, 0, 4, 1, 2)
    return woven.reshape(height * per_axis, width * per_axis, channels)


def _add_view(
    result: Tensor, grid: Tensor, plan: _Plan, view: View, spec: DeepSpec, *, first: bool, share: float
) -> None:
    """Spread one view's tokens where their patches lie in the image, and add its share."""
    y, x = view.where(*plan.pixels, plan.canvas)
    rows = axis_weights(plan.centres[0], y, spec.interpolation)
    cols = axis_weights(plan.centres[1], x, spec.interpolation)

    def put(start: int, stop: int, values: Tensor) -> None:
        if first:
            result[start:stop] = values if share == 1 else values * share
        else:
            result[start:stop].add_(values, alpha=share)

    spread(grid, rows, cols, put)
