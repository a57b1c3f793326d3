"""How many images a GPU is shown at once, and what memory a tile takes there: arithmetic, and one question.

On the CPU nothing here matters: a pass sees one image, whatever the batch
(:mod:`hrvol.features.deep.upsample`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hrvol.features.deep.backbone import Backbone
from hrvol.features.deep.layout import layout_of
from hrvol.features.deep.upsample import grid_size, views_of
from hrvol.features.filters import bank as classical
from hrvol.features.weights.registry import weights_info
from hrvol.recipe.specs import BATCH, DeepSpec, FeatureSpec

MOST = 32
"""Images that a GPU is shown at once at most: their tokens keep it busy, more would only take memory."""

SHARE = 0.5
"""Share of the free memory that a batch may take: tokens, features, filters and classifier need theirs."""

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

_FLOAT = 4

_BLOCK_VALUES = 11
"""Values per token and channel that live at once in a block, at most: the tokens twice, their norm, and both
sides of the activation of the perceptron, each four times as wide; attention is fused and takes less."""

_FILTER_PLANES = 100
"""Planes of float32 that the filter bank takes beside its channels, at most: mostly those of `membrane`."""

_WORKSPACE = 32 * 2**20
"""What torch takes for products of matrices (cuBLAS) and keeps, at most: on Hopper; a quarter elsewhere."""

_CHECKED = 1.75
"""Times the features of a stripe that looking for NaN in them takes beside them: |x|, and three masks."""


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
    workspace
        For products of matrices, all the time.
    batch
        Images in the network.
    tokens
        Of all views, until they are spread; or the features of all pixels, where these are fewer.
    filters
        The classical channels of the tile, and what computing them takes: CuPy's, all else is torch's.
    features
        Of the pixels that are classified at once, and what checking them takes.
    """

    weights: int
    workspace: int
    batch: int
    tokens: int
    filters: int
    features: int

    @property
    def torch(self) -> int:
        """The most that torch holds at once: the network runs, then pixels get their features."""
        return self.weights + self.workspace + self.tokens + max(self.batch, self.features)

    @property
    def total(self) -> int:
        """What torch and CuPy take: neither gives back to the other what it does not need just now."""
        return self.torch + self.filters


def image_bytes(tokens: int, channels: int, pixels: int, precision: str, *, blocks: int = 1) -> int:
    """Return the bytes that one image takes in the network, itself and its result included.

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
    return pixels * _FLOAT + max(entering, inside, leaving)


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
        :data:`hrvol.recipe.specs.BATCH` on the CPU. Ask once for a run, when nothing else fills the GPU.
    """
    if backbone.device.type == "cpu":
        return BATCH
    network = Network(backbone.patch, backbone.channels, 0)
    return batch_in(free_bytes(backbone.device), network, spec, shape)


def batch_in(free: int, network: Network, spec: DeepSpec, shape: tuple[int, int]) -> int:
    """Return how many images a network should see at once on a GPU, for tiles of a shape.

    Parameters
    ----------
    free
        Bytes of its memory that are free once the weights are there.
    network, spec, shape
        As for :func:`device_need`.
    """
    tokens, pixels = _pass(network.patch, spec, shape)
    return fitting_batch(
        free,
        tokens=tokens,
        channels=network.channels,
        pixels=pixels,
        precision=spec.precision,
        blocks=_blocks(spec),
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
    allocators keep between tiles. Tokens of all views are counted beside a full batch, though they are seldom
    there together: on an H100 torch took 0.85 to 0.95 of what is forecast of it (a test has the figures).

    Parameters
    ----------
    spec
        Which features.
    shape
        ``(Y, X)`` of a tile with its context, pixels.
    network
        Of :func:`network_of`; ``None`` where none is needed.
    batch
        Images at once, at most: a tile has no more than passes times views.
    rows
        Rows of the tile that are classified at once.
    """
    pixels, channels = shape[0] * shape[1], 0
    weights = workspace = inside = kept = filters = 0
    names = classical.channel_names(spec.classical) if spec.uses_classical else ()
    if network is not None and spec.uses_deep:
        deep = spec.deep
        blocks, precision = _blocks(deep), deep.precision
        tokens, seen = _pass(network.patch, deep, shape)
        channels = blocks * network.channels
        weights, workspace = network.parameters * _BYTES[precision], _WORKSPACE
        grid, views = grid_size(network.patch, deep, shape), len(views_of(deep))
        passes = len(layout_of(network.patch, deep, shape).starts)
        at_once = min(batch, passes * views)
        inside = at_once * image_bytes(tokens, network.channels, seen, precision, blocks=blocks)
        held = views
        if grid > pixels:  # then the features of all pixels take less, and are kept instead
            # mirror images and turned ones that share their columns
            together = (2 if deep.flips else 1) * (2 if deep.rotations else 1)
            kept = pixels * (channels + len(names)) * _FLOAT
            held = min(views, max(together, -(-at_once // passes)))
        kept += (held + 1) * (grid // views) * channels * _FLOAT  # one view more while it is woven
    if spec.uses_classical:
        filters = (len(names) + _FILTER_PLANES) * pixels * _FLOAT
        channels += len(names)
    features = round((1 + _CHECKED) * min(rows, shape[0]) * shape[1] * channels * _FLOAT)
    return DeviceNeed(weights, workspace, inside, kept, filters, features)


def _blocks(spec: DeepSpec) -> int:
    """Return how many blocks' tokens are wanted."""
    return len(spec.block) if isinstance(spec.block, tuple) else 1


def _pass(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the tokens, class token included, and the pixels of what one pass sees."""
    height, width = layout_of(patch, spec, shape).window
    stride = patch if spec.stride == "native" else spec.stride
    rows, columns = (1 + (side - patch) // stride for side in (height, width))
    return rows * columns + 1, height * width
