"""Compute the digest of the weights of a network, whatever the format of their file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    StateDict = dict[str, Tensor]


def content_sha256(state: StateDict) -> str:
    """Return the SHA-256 of names, shapes and float32 values, which is independent of the file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        values = state[key].detach().float().contiguous().cpu().numpy()
        digest.update(f"{key}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
