"""Embed the patches of images, and resize positional embeddings to their grid."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

Positions = Literal["exact", "published"]


def embed_patches(
    images: Tensor, proj: Any, stride: int, *, convolve: bool
) -> tuple[Tensor, tuple[int, int]]:
    """Embed the patches of images.

    Parameters
    ----------
    images
        ``(B, 3, Y, X)``, normalised, in the network's precision.
    proj
        The convolution of the patch embedding.
    stride
        Pixels from patch to patch.
    convolve
        Compute a convolution instead of a matrix product. On GPUs cuDNN uses TF32 for float32
        convolutions (10 bits of mantissa instead of 23) unless a process-wide setting forbids it.

    Returns
    -------
    tuple
        Tokens ``(B, h * w, C)``, and ``(h, w)``.
    """
    if convolve:
        x = F.conv2d(images, proj.weight, proj.bias, stride=stride)
        return x.flatten(2).transpose(1, 2), (int(x.shape[2]), int(x.shape[3]))
    sides = proj.weight.shape[2:]
    height, width = (
        1 + (length - side) // stride for length, side in zip(images.shape[2:], sides, strict=True)
    )
    patches = F.unfold(images, tuple(sides), stride=stride).transpose(1, 2)
    return F.linear(patches, proj.weight.flatten(1), proj.bias), (int(height), int(width))


def resize_positions(table: Tensor, grid: tuple[int, int], how: Positions) -> Tensor:
    """Resize square positional embeddings ``(1, n*n, C)`` to ``(1, h*w, C)`` bicubically.

    Parameters
    ----------
    table
        Learned positional embeddings.
    grid
        Rows and columns of tokens.
    how
        ``exact`` to the token grid; ``published`` as in the reference code of the paper.
    """
    side = round(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    square = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if how == "exact":
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    else:
        # The reference adds a tenth of a token against rounding and samples with that scale: tokens at
        # the far end are displaced by up to 0.1 tokens.
        scale = tuple((n + 0.1) / side for n in grid)
        resized = F.interpolate(
            square, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return resized.flatten(2).transpose(1, 2)
