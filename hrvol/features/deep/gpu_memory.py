"""Choose the batch size of the network on a GPU, and forecast the GPU memory that a tile needs.

The CPU needs neither: there a pass always has one image (:mod:`hrvol.features.deep.upsample`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hrvol.features.deep.backbone import Backbone
from hrvol.features.deep.image_tokens import grid_size
from hrvol.features.deep.layout import layout_of, view_layouts
from hrvol.features.filters import bank as classical
from hrvol.features.weights.architecture import create
from hrvol.features.weights.registry import weights_info
from hrvol.recipe.specs import BATCH, DeepSpec, FeatureSpec

MOST = 32
"""Largest batch: it keeps a GPU busy, and more images would only need more memory."""

SHARE = 0.5
"""Share of the free memory for a batch; the rest is for tokens, features, filters and the classifier."""

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

_FLOAT = 4

_LAYER_VALUES = 11
"""Largest number of values per token and channel in use at once in a layer: the tokens twice, their norm, and
input and output of the perceptron's activation, each four times as wide. Fused attention needs less."""

_FILTER_PLANES = 100
"""Largest number of float32 planes that the filter bank needs besides its channels, mostly for `membrane`."""

_WORKSPACE = 32 * 2**20
"""Bytes that torch keeps for matrix products (cuBLAS): this much on Hopper, a quarter on other GPUs."""

_CHECKED = 1.75
"""Memory of the check for NaN relative to the features of a stripe: their absolute values and three masks."""


@dataclass(frozen=True)
class Network:
    """The sizes that determine the memory of a network.

    Attributes
    ----------
    patch
        Side of a patch in pixels.
    channels
        Channels of the tokens of one layer.
    parameters
        Number of parameters.
    alibi
        Its layers are given a bias for all pairs of tokens.
    """

    patch: int
    channels: int
    parameters: int
    alibi: bool = False


@dataclass(frozen=True)
class DeviceNeed:
    """Bytes of GPU memory for the features of one tile, by purpose.

    Attributes
    ----------
    weights
        Parameters of the network, throughout.
    workspace
        Matrix products, and the bias of ALiBi, throughout.
    batch
        Images in the network.
    tokens
        Tokens of all views until they are upsampled, or the features of all pixels if these are smaller.
    filters
        Classical channels of the tile and their computation: memory of CuPy, all other is torch's.
    features
        Features of the pixels that are classified at once, and their check.
    """

    weights: int
    workspace: int
    batch: int
    tokens: int
    filters: int
    features: int

    @property
    def torch(self) -> int:
        """Peak of torch: first the network runs, then pixels get their features.

        In between, views are added up on a joint grid, which needs less: it holds no more than the tokens.
        """
        return self.weights + self.workspace + self.tokens + max(self.batch, self.features)

    @property
    def total(self) -> int:
        """Peak of torch and CuPy together: neither releases cached memory to the other."""
        return self.torch + self.filters


def image_bytes(tokens: int, channels: int, pixels: int, precision: str, *, blocks: int = 1) -> int:
    """Return the bytes of one image in the network, including the image and its result.

    Parameters
    ----------
    tokens
        Tokens of the image, including the class token.
    channels
        Channels of a token.
    pixels
        Pixels of the image.
    precision
        ``fp32``, ``bf16`` or ``fp16``.
    blocks
        Number of layers whose tokens are returned.
    """
    size, values = _BYTES[precision], tokens * channels
    entering = 3 * pixels * 2 * _FLOAT  # three channels, before and after normalisation
    inside = values * (_LAYER_VALUES * size + (blocks - 1) * _FLOAT)
    leaving = values * (2 * size + 2 * blocks * _FLOAT)  # results are float32 and are concatenated
    return pixels * _FLOAT + max(entering, inside, leaving)


def fitting_batch(
    free: int, *, tokens: int, channels: int, pixels: int, precision: str, blocks: int = 1
) -> int:
    """Return the number of images per batch on a GPU.

    It is a power of two of at most :data:`MOST`, so that GPUs of one kind use the same: features of another
    batch size may differ in their last bits.

    Parameters
    ----------
    free
        Free memory in bytes, see :func:`free_bytes`.
    tokens, channels, pixels, precision, blocks
        As for :func:`image_bytes`.

    Returns
    -------
    int
        At least 1, even if the memory does not suffice for one image.
    """
    fit = int(SHARE * free) // image_bytes(tokens, channels, pixels, precision, blocks=blocks)
    return min(MOST, 1 << max(1, fit).bit_length() - 1)


def free_bytes(device: torch.device) -> int:
    """Return the bytes of GPU memory that torch can still allocate, including those in its cache."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def batch_for(backbone: Backbone, spec: DeepSpec, shape: tuple[int, int]) -> int:
    """Return the batch size of a network on its device for tiles of a shape.

    Call it once per run, while nothing else uses the memory of the GPU.

    Parameters
    ----------
    backbone
        The network.
    spec
        The features.
    shape
        ``(Y, X)`` of a tile with its context, in pixels.

    Returns
    -------
    int
        Images per pass; :data:`hrvol.recipe.specs.BATCH` on the CPU.
    """
    if backbone.device.type == "cpu":
        return BATCH
    network = Network(backbone.patch, backbone.channels, 0, backbone.alibi)
    return batch_in(free_bytes(backbone.device), network, spec, shape)


def batch_in(free: int, network: Network, spec: DeepSpec, shape: tuple[int, int]) -> int:
    """Return the batch size of a network on a GPU for tiles of a shape.

    Parameters
    ----------
    free
        Bytes of GPU memory that are free after the weights are loaded.
    network, spec, shape
        As for :func:`device_need`.
    """
    tokens, pixels = _pass(network.patch, spec, shape)
    return fitting_batch(
        free - _bias_bytes(network, tokens),
        tokens=tokens,
        channels=network.channels,
        pixels=pixels,
        precision=spec.precision,
        blocks=_layer_count(spec),
    )


def network_of(name: str) -> Network:
    """Return the sizes of a network by name, without its weights."""
    info = weights_info(name)
    with torch.device("meta"):
        net: Any = create(info)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    alibi = info.positions == "alibi"
    return Network(int(net.patch_embed.patch_size[0]), int(net.num_features), parameters, alibi)


def device_need(
    spec: FeatureSpec, shape: tuple[int, int], network: Network | None, *, batch: int, rows: int
) -> DeviceNeed:
    """Forecast the GPU memory of the features of one tile.

    The memory of CUDA libraries (about half a gigabyte per process), of the classifier and of allocators'
    caches between tiles is not included. Tokens of all views are added to a full batch although they rarely
    coincide: torch used 0.85 to 0.95 of its forecast on an H100.

    Parameters
    ----------
    spec
        The features.
    shape
        ``(Y, X)`` of a tile with its context, in pixels.
    network
        Sizes of the network, see :func:`network_of`; ``None`` without a network.
    batch
        Largest number of images per pass; a tile has no more than passes times views.
    rows
        Rows of the tile that are classified at once.
    """
    pixels, channels = shape[0] * shape[1], 0
    weights = workspace = inside = kept = filters = 0
    colour = spec.of_colour
    names = classical.channel_names(spec.classical, colour=colour) if spec.uses_classical else ()
    if network is not None and spec.uses_deep:
        deep = spec.deep
        layers, precision = _layer_count(deep), deep.precision
        tokens, pass_pixels = _pass(network.patch, deep, shape)
        channels = layers * network.channels
        weights = network.parameters * _BYTES[precision]
        workspace = _WORKSPACE + _bias_bytes(network, tokens)
        layouts = [layout for _, layout in view_layouts(network.patch, deep, shape)]
        grid, views, passes = grid_size(network.patch, deep, shape), len(layouts), len(layouts[0].starts)
        at_once = min(batch, passes * views)
        inside = at_once * image_bytes(tokens, network.channels, pass_pixels, precision, blocks=layers)
        held = views
        if grid > pixels:  # the features of all pixels need less, and are kept instead
            # Mirror images and rotations that share their columns are upsampled together.
            together = (2 if deep.flips else 1) * (2 if deep.rotations else 1)
            kept = pixels * (channels + len(names)) * _FLOAT
            held = min(views, max(together, -(-at_once // passes)))
        kept += (held + 1) * (grid // views) * channels * _FLOAT  # and one more view while its grid is built
    if spec.uses_classical:
        filters = (len(names) + _FILTER_PLANES) * pixels * _FLOAT
        channels += len(names)
    features = round((1 + _CHECKED) * min(rows, shape[0]) * shape[1] * channels * _FLOAT)
    return DeviceNeed(weights, workspace, inside, kept, filters, features)


def _bias_bytes(network: Network, tokens: int) -> int:
    """Return the bytes of the bias of all pairs of tokens, and of the copy that building it makes."""
    return 2 * tokens**2 * _FLOAT if network.alibi else 0


def _layer_count(spec: DeepSpec) -> int:
    """Return the number of layers whose tokens are features."""
    return len(spec.block) if isinstance(spec.block, tuple) else 1


def _pass(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the tokens of one pass, including the class token, and its pixels."""
    height, width = layout_of(patch, spec, shape).pass_shape
    stride = patch if spec.stride == "native" else spec.stride
    rows, columns = (1 + (side - patch) // stride for side in (height, width))
    return rows * columns + 1, height * width
