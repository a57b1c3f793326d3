"""Compute pixel-level features with a patch-level network, without training (paper, algorithm 1).

Tokens are made denser in one of two ways: *strided* (a smaller stride of the patch embedding, as published)
or *interleaved* (the native stride at k x k sub-patch offsets, whose tokens form one finer grid). Both can be
averaged over views. Everything after the network is linear, so a linear map (PCA, class logits, k-means
scores) can be applied to tokens before upsampling: the result is exact, with K channels instead of 384.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hrvol.errors import InputError
from hrvol.features.deep.backbone import HeadMap, Tokens
from hrvol.features.deep.embedding import Positions
from hrvol.features.deep.image_tokens import ImageTokens, grouped, joint_grid_of, view_groups
from hrvol.features.deep.joint_grid import WHOLE, JointGrid, JointTokens
from hrvol.features.deep.layout import Layout, canvas_of, layout_of, view_layouts
from hrvol.features.deep.placement import interleave
from hrvol.features.deep.token_grids import ViewGroup
from hrvol.features.deep.views import View, transposes, views_of
from hrvol.recipe.specs import BATCH, DeepSpec


class TokenSource(Protocol):
    """Interface that upsampling needs of a network; :class:`hrvol.features.deep.backbone.Backbone` has it."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        ...

    device: torch.device

    def block_numbers(self, block: Any) -> tuple[int, ...]:
        """Return the layer numbers of a recipe's ``block`` field."""
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
        """Return the tokens of ``(B, 1, Y, X)`` images, or ``(B, 3, Y, X)`` of colour."""
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
        ``(C, Y, X)`` float32, channels innermost in memory.
    attention
        ``(heads, Y, X)`` float32 in units of uniform attention, or ``None``.
    head_map
        ``(heads, Y, X)`` float32, or ``None``.
    """

    features: Tensor
    attention: Tensor | None
    head_map: Tensor | None


def upsample(
    backbone: TokenSource,
    image: Tensor,
    spec: DeepSpec,
    *,
    linear: Linear | None = None,
    unit: bool = False,
    batch_size: int = BATCH,
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
        ``(Y, X)`` float32 in [0, 1], or ``(3, Y, X)`` of colour, see :func:`image_tensor`.
    spec
        Stride or offsets, views, placement, interpolation.
    linear
        Map applied to tokens before upsampling; the result then has its K channels.
    unit
        Scale each token to length 1, before ``linear``; similarity depends on directions only.
    batch_size
        Images per pass of the network; fewer need less memory. On the CPU a pass always has one image, and
        the result has the same bits on any number of threads. On a GPU results of different batch sizes may
        differ by rounding.
    attention, head_map
        Also return the CLS attention of the last layer, or a per-head map.
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
    layout = _checked_layout(backbone, image, spec)
    results: dict[str, Tensor] = {} if out is None else {"features": out}
    maps = {"attention": attention, "head_map": head_map}
    grids = _grids(backbone, image, spec, linear, unit, batch_size, **maps)
    joint = joint_grid_of(backbone.patch, spec, _shape(image), backbone.device)
    if joint is None:
        _put_by_view(grids, spec, layout, results)
    else:
        of_views = list(grids)
        for name in list(of_views[0]):
            tokens = _added_up(joint, [grids_of.pop(name) for grids_of in of_views])
            if name not in results:
                size = (*_shape(image), tokens.grid.shape[-1])
                results[name] = torch.empty(size, device=tokens.grid.device)
            tokens.spread(WHOLE, WHOLE, results[name])
            del tokens  # release its values before those of the next map are added up
    by_channel = {name: values.permute(2, 0, 1) for name, values in results.items()}
    return Upsampled(by_channel["features"], by_channel.get("attention"), by_channel.get("head_map"))


def token_grids(
    backbone: TokenSource,
    image: Tensor,
    spec: DeepSpec,
    *,
    batch_size: int = BATCH,
    rows: slice = WHOLE,
    columns: slice = WHOLE,
) -> ImageTokens:
    """Run the network on one image, without upsampling.

    :meth:`ImageTokens.spread` upsamples the tokens with the same bits as :func:`upsample`.

    Parameters
    ----------
    backbone, image, spec, batch_size
        As for :func:`upsample`.
    rows, columns
        Region of pixels that will be upsampled, as slices without a step: others may be refused.

    Raises
    ------
    InputError
        As :func:`upsample`.
    """
    layout = _checked_layout(backbone, image, spec)
    grids = _grids(backbone, image, spec, None, False, batch_size)
    features = (grids_of["features"] for grids_of in grids)
    joint = joint_grid_of(backbone.patch, spec, _shape(image), backbone.device)
    if joint is None:
        return grouped(features, spec, layout)
    return _added_up(joint, list(features), rows, columns)


def _added_up(
    joint: JointGrid, grids: list[Tensor], rows: slice = WHOLE, columns: slice = WHOLE
) -> JointTokens:
    """Return the mean of views at the knots, with the same bits on any number of cores."""
    add_up = partial(joint.add_up, grids, rows, columns)
    tokens: JointTokens = _in_pool(add_up) if grids[0].device.type == "cpu" else add_up()
    return tokens


def _put_by_view(
    grids: Iterator[dict[str, Tensor]], spec: DeepSpec, layout: Layout, results: dict[str, Tensor]
) -> None:
    """Interpolate views at the pixels as they are computed, and write their mean to results, or new ones."""
    views = len(views_of(spec))
    for number, (rows, columns) in enumerate(view_groups(layout, spec)):
        per_view = list(islice(grids, len(rows)))
        for name in list(per_view[0]):
            group = ViewGroup(tuple(grids_of.pop(name) for grids_of in per_view), rows, columns)
            if name not in results:
                channels, device = group.grids[0].shape[-1], group.grids[0].device
                height, width = (len(pixels) for pixels in layout.pixels)
                results[name] = torch.empty((height, width, channels), device=device)
            group.put(results[name], first=number == 0, share=1 / views)
            del group  # release its grids before the next ones are computed


def project(features: Tensor, linear: Linear) -> Tensor:
    """Return a linear map ``(K, Y, X)`` of features ``(C, Y, X)``, channels innermost in memory.

    It is computed row by row, with the same bits on any number of cores.
    """

    def rows() -> Tensor:
        weight, bias = linear.weight.to(features), linear.bias.to(features)
        mapped = torch.empty((*features.shape[1:], len(weight)), device=features.device)
        for row in range(features.shape[1]):
            mapped[row] = F.linear(features[:, row].T, weight, bias)
        return mapped.permute(2, 0, 1)

    mapped: Tensor = _in_pool(rows)
    return mapped


@lru_cache(maxsize=1)
def _threads() -> int:
    """Return the number of threads of the pool: torch's in the thread that asks first.

    Torch's number is one of each thread: those that ask later may compute on one core themselves.
    """
    return torch.get_num_threads()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return a pool of threads that compute on one core each.

    Passes run in parallel on one core each, instead of one after the other on all cores: a pass then has the
    same bits on any number of cores or workers, and small passes use the machine better.
    """
    return ThreadPoolExecutor(_threads(), "hrvol-forward", initializer=torch.set_num_threads, initargs=(1,))


def _in_pool(function: Any, *arguments: Any) -> Any:
    return _pool().submit(function, *arguments).result()


def _run(
    backbone: TokenSource, crops: Sequence[Tensor], spec: DeepSpec, batch_size: int, **maps: Any
) -> Iterator[Tokens]:
    """Run crops of the canvas through the network, and yield the tokens of each, ``(1, C, h, w)``.

    On the CPU a pass has one image and runs on one thread, so that its bits depend on nothing else. All
    threads are used with the default ``batch_size``, half of them with half of it.
    """

    def run(batch: Tensor) -> Tokens:
        return backbone.tokens(
            batch,
            stride=None if spec.stride == "native" else spec.stride,
            blocks=backbone.block_numbers(spec.block),
            positions="published" if spec.placement == "stretch" else "exact",
            **maps,
        )

    if backbone.device.type == "cpu":
        at_once = len(crops) if batch_size >= BATCH else max(1, _threads() * batch_size // BATCH)
        for start in range(0, len(crops), at_once):
            yield from _pool().map(
                run, [_with_channels(crop[None]) for crop in crops[start : start + at_once]]
            )
    else:
        for _, alike in groupby(crops, key=lambda crop: crop.shape):
            while batch := list(islice(alike, batch_size)):
                yield from _one_by_one(run(_with_channels(torch.stack(batch))))


def _with_channels(images: Tensor) -> Tensor:
    """Return images ``(B, Y, X)`` as ``(B, 1, Y, X)``; those of colour, ``(B, 3, Y, X)``, as they are."""
    return images if images.ndim == 4 else images[:, None]


def _one_by_one(tokens: Tokens) -> Iterator[Tokens]:
    """Yield the tokens of each image of a batch."""
    fields = (tokens.features, tokens.attention, tokens.head_map)
    for i in range(len(tokens.features)):
        yield Tokens(*(None if values is None else values[i : i + 1] for values in fields))  # type: ignore[arg-type]


def _checked_layout(backbone: TokenSource, image: Tensor, spec: DeepSpec) -> Layout:
    of_colour = image.ndim == 3 and image.shape[0] == 3
    if not (image.ndim == 2 or of_colour) or 0 in image.shape:
        raise InputError(f"expected an image (Y, X) or (3, Y, X), found shape {tuple(image.shape)}")
    return layout_of(backbone.patch, spec, _shape(image))


def image_tensor(image: NDArray[np.float32]) -> Tensor:
    """Return an image ``(Y, X)``, or ``(Y, X, 3)`` of colour as ``(3, Y, X)``, for :func:`upsample`."""
    return torch.from_numpy(image if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0)))


def _shape(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


def _grids(
    backbone: TokenSource,
    image: Tensor,
    spec: DeepSpec,
    linear: Linear | None,
    unit: bool,
    batch_size: int,
    **maps: Any,
) -> Iterator[dict[str, Tensor]]:
    """Yield the tokens and maps of each view as grids ``(h, w, C)`` in the orientation of the image."""
    views = view_layouts(backbone.patch, spec, _shape(image))
    canvas = canvas_of(image.to(backbone.device), views[0][1])
    maps = {"attention": False, "head_map": None} | maps
    per_view = len(views[0][1].starts)
    # Views with few passes run together, so that all threads, or a whole batch, are used.
    at_once = _threads() if backbone.device.type == "cpu" else batch_size
    together = -(-at_once // per_view)
    for first in range(0, len(views), together):
        some = views[first : first + together]
        crops = [crop for view, layout in some for crop in _crops(canvas, view, layout)]
        done = _run(backbone, crops, spec, batch_size, **maps)
        for view, layout in some:
            grids = _view_grids(list(islice(done, per_view)), layout, linear, unit)
            if transposes(view):
                grids = {name: grid.transpose(0, 1).contiguous() for name, grid in grids.items()}
            yield grids


def _crops(canvas: Tensor, view: View, layout: Layout) -> Iterator[Tensor]:
    """Yield what each pass of a view sees."""
    image, own = view.apply(canvas), layout.transposed if transposes(view) else layout
    for y, x in own.starts:
        yield image[..., y : y + own.pass_shape[0], x : x + own.pass_shape[1]]


def _view_grids(
    passes: Sequence[Tokens], layout: Layout, linear: Linear | None, unit: bool
) -> dict[str, Tensor]:
    """Return the tokens and maps of the passes of one view, each as a grid ``(h, w, C)``."""
    grids = {
        name: interleave(torch.cat([getattr(tokens, name) for tokens in passes]), layout.per_axis)
        for name in ("features", "attention", "head_map")
        if getattr(passes[0], name) is not None
    }
    if unit:
        grids["features"] = _in_pool(F.normalize, grids["features"], 2.0, -1)
    if linear is not None:
        weight, bias = linear.weight.to(grids["features"]), linear.bias.to(grids["features"])
        grids["features"] = _in_pool(F.linear, grids["features"], weight, bias)
    return grids
