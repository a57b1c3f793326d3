"""Build the architecture of a network by its name, with timm."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from hrvol.features.weights.known import WeightsInfo

if TYPE_CHECKING:
    from torch import nn

PERIODS = "rope.periods"
"""Name of rotary periods in a file of weights: only where they are not those of the architecture."""

_BIAS = "blocks.0.attn.q_bias"


def create(info: WeightsInfo, names: Container[str] = ()) -> nn.Module:
    """Return a network with random weights.

    Parameters
    ----------
    info
        The network.
    names
        Names of the parameters that it will be given. DINOv3 has biases of queries and values, which are zero
        in the published networks: those are computed without, as in timm, and others with them.
    """
    import timm

    options: dict[str, Any] = {"pos_embed": "none"} if info.positions in ("alibi", "none") else {}
    model = info.model.replace("_dinov3.", "_dinov3_qkvb.") if with_biases(info, names) else info.model
    net: nn.Module = timm.create_model(
        model, pretrained=False, num_classes=0, dynamic_img_size=True, **options
    )
    return net


def with_biases(info: WeightsInfo, names: Container[str]) -> bool:
    """Return whether parameters of these names have biases of queries and values apart from their weights."""
    return info.positions == "rotary" and _BIAS in names
