"""How many images a GPU is shown at once, and what memory a tile takes there: arithmetic, and one question.

On the CPU nothing here matters: a pass sees one image, whatever the batch (:mod:`hrvol.features.upsample`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hrvol.features import classical
from hrvol.features.backbone import Backbone
from hrvol.features.layout import layout_of
from hrvol.features.upsample import grid_size, views_of
from hrvol.features.weights import weights_info
from hrvol.recipe import DeepSpec, FeatureSpec
from hrvol.specs import BATCH

MOST = 32
"""Images that a GPU is shown at once at most: their tokens keep it busy, more would only take memory."""

SHARE = 0.5
"""Share of the free memory that a batch may take: tokens, features, filters and classifier need theirs."""

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_FLOAT = 4
_BLOCK_VALUES = 11
"""Values per token and channel that live at once in a block, at most: the tokens twice, their norm, and both
sides of the activation of the perceptron, each four times as wide; attention is fused and takes less."""

_FILTER_PLANES = 120
"""Planes of float32 that the filter bank takes beside its channels, at most: mostly those of `membrane`."""


@dataclass(frozen=True)
class Network:
    """What the memory that a network takes depends on.

    Attributes
    ----------
    patch
        Side of a patch in pixels.
    channels
        Of one block's tokens.
    parameters
        Numbers it consists of.
    """

    patch: int
    channels: int
    parameters: int


@dataclass(frozen=True)
class DeviceNeed:
    """Bytes of GPU memory that features of one tile take, by what takes them.

    Attributes
    ----------
    weights
        The network's own, all the time.
    batch
        Images in the network.
    tokens
        Of all views, until they are spread.
    filters
        The classical channels of the tile, and what computing them takes.
    features
        Of the pixels that are classified at once.
    """

    weights: int
    batch: int
    tokens: int
    filters: int
    features: int

    @property
    def total(self) -> int:
        """The most that is held at once: the network runs, then pixels get their features."""
        return self.weights + self.tokens + max(self.batch, self.filters + self.features)


def image_bytes(tokens: int, channels: int, pixels: int, precision: str, *, blocks: int = 1) -> int:
    """Return the bytes that one image takes in the network, its result included.

    Parameters
    ----------
    tokens
        Of the image, class token included.
    channels
        Of a token.
    pixels
        Of the image.
    precision
        ``fp32``, ``bf16`` or ``fp16``.
    blocks
        How many blocks' tokens are wanted.
    """
    size, values = _BYTES[precision], tokens * channels
    entering = 3 * pixels * 2 * _FLOAT  # three channels, before and after they are normalised
    inside = values * (_BLOCK_VALUES * size + (blocks - 1) * _FLOAT)
    leaving = values * (2 * size + 2 * blocks * _FLOAT)  # results are float32, and put side by side
    return max(entering, inside, leaving)


def fitting_batch(
    free: int, *, tokens: int, channels: int, pixels: int, precision: str, blocks: int = 1
) -> int:
    """Return how many images a GPU should be shown at once.

    A power of two, and no more than :data:`MOST`, so that GPUs of one kind all take the same: with another
    batch the last bits of features may differ.

    Parameters
    ----------
    free
        Bytes of memory that are free, :func:`free_bytes`.
    tokens, channels, pixels, precision, blocks
        As for :func:`image_bytes`.

    Returns
    -------
    int
        1 at least, whether or not there is room for one.
    """
    fit = int(SHARE * free) // image_bytes(tokens, channels, pixels, precision, blocks=blocks)
    return min(MOST, 1 << max(1, fit).bit_length() - 1)


def free_bytes(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that torch may still take, with those it keeps for later."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def batch_for(backbone: Backbone, spec: DeepSpec, shape: tuple[int, int]) -> int:
    """Return how many images a network should see at once on its device, for tiles of a shape.

    Parameters
    ----------
    backbone
        The network.
    spec
        What is asked of it.
    shape
        ``(Y, X)`` of a tile with its context, pixels.

    Returns
    -------
    int
        :data:`hrvol.specs.BATCH` on the CPU. Ask once for a run, when nothing else fills the GPU.
    """
    if backbone.device.type == "cpu":
        return BATCH
    tokens, pixels = _pass(backbone.patch, spec, shape)
    return fitting_batch(
        free_bytes(backbone.device),
        tokens=tokens,
        channels=backbone.channels,
        pixels=pixels,
        precision=spec.precision,
        blocks=len(backbone.block_numbers(spec.block)),
    )


def network_of(name: str) -> Network:
    """Return the measures of a network by name; its weights need not be there."""
    import timm

    with torch.device("meta"):
        net = timm.create_model(weights_info(name).model, pretrained=False, num_classes=0)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Network(int(net.patch_embed.patch_size[0]), int(net.num_features), parameters)


def device_need(
    spec: FeatureSpec, shape: tuple[int, int], network: Network | None, *, batch: int, rows: int
) -> DeviceNeed:
    """Forecast the GPU memory of one tile's features.

    Not counted are the CUDA libraries' own (half a gigabyte or so for a process), the classifier, and what
    allocators keep between tiles.

    Parameters
    ----------
    spec
        Which features.
    shape
        ``(Y, X)`` of a tile with its context, pixels.
    network
        Of :func:`network_of`; ``None`` where none is needed.
    batch
        Images at once.
    rows
        Rows of the tile that are classified at once.
    """
    pixels, channels = shape[0] * shape[1], 0
    weights = inside = kept = filters = 0
    stripe = min(rows, shape[0]) * shape[1]
    if network is not None and spec.uses_deep:
        deep = spec.deep
        blocks = len(deep.block) if isinstance(deep.block, tuple) else 1
        tokens, seen = _pass(network.patch, deep, shape)
        channels = blocks * network.channels
        weights = network.parameters * _BYTES[deep.precision]
        inside = batch * image_bytes(tokens, network.channels, seen, deep.precision, blocks=blocks)
        grid, views = grid_size(network.patch, deep, shape), len(views_of(deep))
        passes = len(layout_of(network.patch, deep, shape).starts)
        held = views
        if grid > pixels:  # then the features of all pixels take less, and are kept instead
            stripe, held = pixels, min(views, -(-batch // passes))
        kept = (held + 1) * (grid // views) * channels * _FLOAT  # one view more while it is woven
    if spec.uses_classical:
        names = len(classical.channel_names(spec.classical))
        filters = (names + _FILTER_PLANES) * pixels * _FLOAT
        channels += names
    return DeviceNeed(weights, inside, kept, filters, stripe * channels * _FLOAT)


def _pass(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the tokens, class token included, and the pixels of what one pass sees."""
    height, width = layout_of(patch, spec, shape).window
    stride = patch if spec.stride == "native" else spec.stride
    rows, columns = (1 + (side - patch) // stride for side in (height, width))
    return rows * columns + 1, height * width
