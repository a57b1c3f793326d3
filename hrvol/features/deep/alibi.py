"""Compute the attention bias of dino-saw: tokens far from each other attend to each other less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def distance_bias(grid: tuple[int, int], prefix: int, device: torch.device) -> Tensor:
    """Return what is added to the attention scores of every head, ``(N, N)`` float32, before the softmax.

    It is the negative distance between tokens, divided by the largest one on the grid. The grid is a torus,
    as in the reference code: the first row is the neighbour of the last. Distances are counted in tokens,
    whatever the stride; the division makes them those of the same places on a coarser grid.

    Parameters
    ----------
    grid
        Rows and columns of tokens.
    prefix
        Class and register tokens before them, whose bias is 0.
    device
        Device of the result.
    """
    rows, columns = (_squares(length, device) for length in grid)
    squares = rows[:, None, :, None] + columns[None, :, None, :]
    tokens = grid[0] * grid[1]
    distance = squares.reshape(tokens, tokens).sqrt_()
    farthest = distance.max().clamp(min=1)  # a single token has no neighbour
    return F.pad(distance.div_(farthest).neg_(), (prefix, 0, prefix, 0))


def _squares(length: int, device: torch.device) -> Tensor:
    """Return the squared distances ``(length, length)`` of places on a circle."""
    place = torch.arange(length, dtype=torch.float32, device=device)
    distance = (place[:, None] - place[None, :]).abs()
    return torch.minimum(distance, length - distance).square()
