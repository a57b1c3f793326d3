"""Floating-point operations of the network, ViT-S/14, counted from the tokens that a recipe shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.peers import CHANNELS, DEPTH, HEADS, PATCH
from hrvol.features.deep.backbone import Tokens
from hrvol.features.deep.upsample import upsample
from hrvol.recipe.specs import DeepSpec

HALF = 2
"""Bytes of a number in half precision."""

_TOKEN_VALUES = 34
"""Values that a layer reads and writes per token, in units of the channels, only attention fused: two norms
2 + 2, qkv 4, attention 4, projection with its residual 3, first layer 5, GELU 8, second layer 6."""


@dataclass(frozen=True)
class Work:
    """Work of the network for one image.

    Attributes
    ----------
    tokens
        Of each pass, class token included.
    blocks
        Layers of the network that a pass runs through.
    pixels
        Of the image.
    """

    tokens: tuple[int, ...]
    blocks: int
    pixels: int

    @property
    def passes(self) -> int:
        """Number of images shown to the network."""
        return len(self.tokens)

    @property
    def flop(self) -> float:
        """Floating-point operations of all passes."""
        return sum(network_flop(count, self.blocks) for count in self.tokens)

    @property
    def moved(self) -> float:
        """Bytes that the passes read and write in half precision, whatever the batch."""
        return HALF * _TOKEN_VALUES * CHANNELS * self.blocks * float(sum(self.tokens))


class _Counter:
    """A network that only counts the tokens of its images."""

    patch = PATCH

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.counts: list[int] = []

    def block_numbers(self, block: Any) -> tuple[int, ...]:
        if block == "last":
            return (DEPTH,)
        return (block,) if isinstance(block, int) else tuple(block)

    def tokens(self, images: Tensor, *, stride: int | None, **_: Any) -> Tokens:
        height, width = (1 + (side - PATCH) // (stride or PATCH) for side in images.shape[2:])
        self.counts += [height * width + 1] * len(images)
        return Tokens(torch.zeros(len(images), 1, height, width), None, None)


def work_of(spec: DeepSpec, shape: tuple[int, ...]) -> Work:
    """Count the work of a recipe for an image of a shape ``(Y, X)``.

    The package computes features as always, with a network that counts instead of computing: padding, views
    and offsets are those of the program, not of a formula beside it.
    """
    counter = _Counter()
    height, width = shape
    upsample(counter, torch.zeros(height, width), spec)
    return Work(tuple(counter.counts), max(counter.block_numbers(spec.block)), height * width)


def block_products(tokens: int) -> tuple[tuple[str, int, tuple[int, int, int]], ...]:
    """Return the matrix products of one layer: name, how many at once, ``(m, k, n)`` of each."""
    width = CHANNELS // HEADS
    return (
        ("qkv", 1, (tokens, CHANNELS, 3 * CHANNELS)),
        ("scores", HEADS, (tokens, width, tokens)),
        ("values", HEADS, (tokens, tokens, width)),
        ("projection", 1, (tokens, CHANNELS, CHANNELS)),
        ("first layer", 1, (tokens, CHANNELS, 4 * CHANNELS)),
        ("second layer", 1, (tokens, 4 * CHANNELS, CHANNELS)),
    )


def network_flop(tokens: int, blocks: int) -> float:
    """Return the operations of one pass: patch embedding and matrix products of the layers.

    Norms, GELU and softmax, some 2 %, are left out, as is the custom.

    Parameters
    ----------
    tokens
        Of the pass, class token included.
    blocks
        Layers that it runs through.
    """
    embedding = 2 * (tokens - 1) * 3 * PATCH**2 * CHANNELS
    layer = sum(2 * count * m * k * n for _, count, (m, k, n) in block_products(tokens))
    return float(embedding + blocks * layer)
