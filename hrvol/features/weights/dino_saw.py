"""Check the checkpoints of dino-saw (tldr-group), DINOv2 networks without positional embeddings.

They are state dicts of timm's ``vit_small_patch14_reg4_dinov2``, some with the name of a wrapper before each
parameter. The distances of ALiBi are computed from the grid of tokens; no file has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrvol.errors import WeightsError

if TYPE_CHECKING:
    from hrvol.features.weights.digest import StateDict

_WRAPPERS = ("vit.", "model.")


def as_timm(state: StateDict) -> StateDict:
    """Return the parameters by timm's names.

    Raises
    ------
    WeightsError
        The file has positional embeddings that are not zero, or slopes of ALiBi that were learned: both are
        other networks.
    """
    for wrapper in _WRAPPERS:
        if f"{wrapper}cls_token" in state:
            state = {
                name.removeprefix(wrapper): values
                for name, values in state.items()
                if name.startswith(wrapper)
            }
    learned = [name for name in state if name.endswith(".attn.m")]
    if learned:
        raise WeightsError(f"{learned[0]} is a learned slope of ALiBi, expected none: the slope is 1")
    if "pos_embed" in state and state["pos_embed"].any():
        raise WeightsError("pos_embed is not zero, expected a network without positional embeddings")
    return {name: values for name, values in state.items() if name != "pos_embed"}
