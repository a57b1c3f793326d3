"""Rename the parameters of DINOv3 as in timm, from the original checkpoints or those of transformers.

The original checkpoints (``dinov3_vits16_pretrain_lvd1689m-08c60483.pth`` and so on) hold the periods of the
rotary embedding rounded to bfloat16, with which their code computes; timm and transformers do not round them.
A file is therefore computed with its own periods: they are kept where they differ from the unrounded ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hrvol.errors import WeightsError
from hrvol.features.weights.architecture import PERIODS

if TYPE_CHECKING:
    from torch import Tensor

    from hrvol.features.weights.digest import StateDict

_ROUNDING = 2.0**-8  # relative, of bfloat16

_UNUSED = re.compile(
    r"(^|\.)(mask_token|bias_mask|local_cls_norm\..*)$"
)  # of training, and what is applied here

_FROM_TRANSFORMERS = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens$", "storage_tokens"),
    (r"^embeddings\.", ""),
    (r"^(model\.)?layer\.", "blocks."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
"""Names of transformers' ``DINOv3ViTModel`` (version 5: with ``model.``) and of the original code.

Those of perceptrons are in :data:`_PERCEPTRONS`.
"""

_PERCEPTRONS = {
    False: {"up_proj": "fc1", "down_proj": "fc2"},
    True: {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"},
}
"""Names of a perceptron's maps, without and with a gate (S+)."""

_TO_TIMM = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls(\d)\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def as_timm(state: StateDict, net: Any) -> StateDict:
    """Return the parameters of DINOv3 by timm's names.

    Parameters
    ----------
    state
        By the names of the original code, of transformers, or of timm, which are left as they are.
    net
        The architecture, of which the periods of its rotary embedding are used.

    Returns
    -------
    dict
        Biases of queries and values only where they are not all zero, and periods (:data:`PERIODS`) only
        where they are not those of ``net``.

    Raises
    ------
    WeightsError
        Keys have a bias, or the periods are others: it is another network.
    """
    if "embeddings.cls_token" in state:
        state = _from_transformers(state)
    if "storage_tokens" not in state:
        kept = _periods(state[PERIODS], net) if PERIODS in state else {}
        named = {name: values for name, values in state.items() if name != PERIODS}
        return _without_zero_biases(named | kept)
    masked = _with_masked_biases(state)
    found: StateDict = {}
    for name, values in masked.items():
        if name == "rope_embed.periods":
            found |= _periods(values, net)
        elif name.endswith(".attn.qkv.bias"):
            query, key, value = values.chunk(3)
            if key.any():
                raise WeightsError(f"{name} has a bias of keys, expected 0")
            prefix = name.removesuffix("qkv.bias")
            found |= {f"{prefix}q_bias": query, f"{prefix}v_bias": value}
        elif not _UNUSED.search(name):
            found[_renamed(name, _TO_TIMM)] = values
    return _without_zero_biases(found)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _from_transformers(state: StateDict) -> StateDict:
    """Return the parameters by the names of the original code, with queries, keys and values in one map."""
    import torch

    perceptron = _PERCEPTRONS[any(".gate_proj." in name for name in state)]
    found: StateDict = {}
    for name, values in state.items():
        new = _renamed(name, _FROM_TRANSFORMERS)
        part = re.search(r"\.mlp\.(\w+)\.", new)
        if part and part[1] in perceptron:
            new = new.replace(f".{part[1]}.", f".{perceptron[part[1]]}.")
        found[new] = values
    for name in [name for name in found if name.endswith(".q_proj.weight")]:
        prefix = name.removesuffix("q_proj.weight")
        maps = [found.pop(f"{prefix}{letter}_proj.weight", None) for letter in "qkv"]
        if all(values is not None for values in maps):  # otherwise qkv is reported as missing
            found[f"{prefix}qkv.weight"] = torch.cat([values for values in maps if values is not None])
        biases = [found.pop(f"{prefix}{letter}_proj.bias", None) for letter in "qkv"]
        sides = [values.shape[0] for values in maps if values is not None]
        if len(sides) == len(biases):
            found[f"{prefix}qkv.bias"] = torch.cat(
                [
                    torch.zeros(side) if bias is None else bias.float()
                    for side, bias in zip(sides, biases, strict=True)
                ]
            )
    return found


def _with_masked_biases(state: StateDict) -> StateDict:
    """Return the parameters with the biases that the original code multiplies by 0 set to 0."""
    import torch

    found = dict(state)
    for name in state:
        mask = state.get(f"{name}_mask")
        if name.endswith(".qkv.bias") and mask is not None and mask.shape == state[name].shape:
            found[name] = torch.where(mask == 0, torch.zeros_like(state[name]), state[name])
    return found


def _without_zero_biases(state: StateDict) -> StateDict:
    names = [name for name in state if name.endswith((".attn.q_bias", ".attn.v_bias"))]
    if any(state[name].any() for name in names):
        return state
    return {name: values for name, values in state.items() if name not in names}


def _periods(values: Tensor, net: Any) -> StateDict:
    """Return the periods under their name if they are rounded, or nothing if they are those of ``net``."""
    import torch

    expected, values = net.rope.periods, values.float()
    if values.shape != expected.shape or not torch.allclose(values, expected, rtol=_ROUNDING, atol=0):
        raise WeightsError("the periods are those of another rotary embedding")
    return {} if torch.allclose(values, expected, rtol=1e-6, atol=0) else {PERIODS: values}
