"""Weights by a formula, and tokens of the reference codes with them, computed where their checkouts are.

Random numbers differ between versions of libraries, so a weight is a hash of its name and its number: both
the reference code and hrvol are given the same. ``reference_tokens.npz`` holds tokens of the reference codes;
``python reference_networks.py DINOV3 DINO_SAW`` writes it from checkouts of

- https://github.com/facebookresearch/dinov3 at 6876159a11b4df116f30f667f8c9888617df0751
- https://github.com/tldr-group/dino-saw at 636424c112ead8258f0ff6baee96409eb805ab26

on a CPU in float32. Of dino-saw the code that is run is ``alibi_logic.py`` and ``add_alibi``. The package
that builds its networks (PretrainedViTWrapper) was not at hand: timm's network is built here instead, by the
name in an earlier version of dino-saw, and without positional embedding, as its registry has it.
"""

import importlib
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

RECORD = Path(__file__).with_name("reference_tokens.npz")

LAYERS = (3, 12)

CHANNELS = slice(None, None, 12)
"""Of the tokens: a twelfth is kept."""


@dataclass(frozen=True)
class Case:
    """A pass of a network: its name in hrvol, the image, the stride, and whether periods are rounded."""

    network: str
    shape: tuple[int, int]
    stride: int
    rounded: bool = False

    @property
    def key(self) -> str:
        rows, columns = self.shape
        return f"{self.network} {rows}x{columns} stride {self.stride}{' rounded' * self.rounded}"


DINOV3 = {"dinov3_vits16": 384, "dinov3_vits16plus": 384, "dinov3_vitb16": 768}

DINO_SAW = ("dinosaw_vits14_alibi", "dinosaw_vits14_nope")

CASES = (
    *(Case(name, (96, 128), 16) for name in DINOV3),
    *(Case(name, (48, 80), 8) for name in DINOV3),
    *(Case("dinov3_vits16", (60, 52), 4, rounded) for rounded in (False, True)),
    *(Case(name, (84, 112), 14) for name in DINO_SAW),
    *(Case(name, (42, 70), 7) for name in DINO_SAW),
)


def numbers(name, count):
    """Return float64 numbers in [-1, 1) that depend on a name and their places alone (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
        x *= np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def weight(name, shape):
    """Return a weight, float32: maps of about unit gain, and norms and layer scales around 1 and 0.3."""
    shape = tuple(shape)
    values = numbers(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("gamma"):
        values = 0.3 + 0.1 * values
    elif "norm" in name and name.endswith("weight"):
        values = 1 + 0.3 * values
    elif len(shape) > 1 and "token" not in name:
        values = values * (3 / np.prod(shape[1:])) ** 0.5
    else:
        values = 0.2 * values
    return torch.from_numpy(values.astype(np.float32))


def image(shape):
    """Return an image ``(1, 1, Y, X)`` in [0, 1)."""
    values = numbers(f"image {shape}", shape[0] * shape[1]).reshape(1, 1, *shape)
    return torch.from_numpy((values / 2 + 0.5).astype(np.float32))


def normalised(shape):
    """Return the image with three channels, normalised as both reference codes do it (ImageNet)."""
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (image(shape).expand(-1, 3, -1, -1) - mean) / std


def dinov3_shapes(name):
    """Return the shapes of the parameters of DINOv3 by the names of the original code, of 12 layers."""
    width = DINOV3[name]
    shapes = {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    gated = name.endswith("plus")
    maps = {"w1": (width * 4, width), "w2": (width * 4, width), "w3": (width, width * 4)}
    if not gated:
        maps = {"fc1": (width * 4, width), "fc2": (width, width * 4)}
    for number in range(12):
        block = f"blocks.{number}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {f"mlp.{part}": shape for part, shape in maps.items()}
        for layer, shape in layers.items():
            shapes |= {f"{block}.{layer}.weight": shape, f"{block}.{layer}.bias": shape[:1]}
        shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def periods(rounded=False):
    """Return the periods of the rotary embedding of heads of 64 channels, or rounded as in files."""
    values = 100.0 ** (2 * torch.arange(16, dtype=torch.float32) / 32)
    return values.bfloat16().float() if rounded else values


def dinov3_state(name, rounded=False):
    """Return a checkpoint of DINOv3 as the original code has it."""
    state = {key: weight(key, shape) for key, shape in dinov3_shapes(name).items()}
    width = DINOV3[name]
    mask = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    state |= {f"blocks.{number}.attn.qkv.bias_mask": mask for number in range(12)}
    return state | {"rope_embed.periods": periods(rounded)}


def dino_saw_state():
    """Return a checkpoint of dino-saw, a state dict of timm's network."""
    width, shapes = 384, {}
    for name, shape in dinov3_shapes("dinov3_vits16").items():
        if name != "mask_token":
            shapes[name.replace("storage_tokens", "reg_token")] = shape
    shapes["patch_embed.proj.weight"] = (width, 3, 14, 14)
    return {name: weight(name, shape) for name, shape in shapes.items()}


def recorded():
    """Return the recorded tokens ``(layers, tokens, channels)`` by the key of their case."""
    with np.load(RECORD) as file:
        return {key: file[key] for key in file.files}


# The reference codes


def dinov3_reference(checkout, case):
    """Return the tokens ``(layers, tokens, channels)`` of the original code of DINOv3."""
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    hub = importlib.import_module("dinov3.hub.backbones")
    net = getattr(hub, case.network)(pretrained=False).eval()
    net.load_state_dict(dinov3_state(case.network, case.rounded), strict=True)
    net.patch_embed.proj.stride = (case.stride, case.stride)
    layers = [number - 1 for number in LAYERS]
    with torch.inference_mode():
        found = net.get_intermediate_layers(normalised(case.shape), n=layers, norm=True)
    return torch.stack(found)[:, 0].numpy()


def dino_saw_reference(checkout, dinov3, case):
    """Return the tokens ``(layers, tokens, channels)`` of the code of dino-saw."""
    import timm

    if str(dinov3) not in sys.path:
        sys.path.insert(0, str(dinov3))
    package = ModuleType("dinosaw")
    package.__path__ = [str(checkout / "dinosaw")]  # without its __init__, which imports the wrapper
    wrappers = ModuleType("dinosaw.wrappers")
    wrappers.__path__ = [str(checkout / "dinosaw" / "wrappers")]
    wrapper, types = ModuleType("PVW"), ModuleType("PVW.types")
    for name in ("BackboneConfig", "WrapperConfig", "WrapperRegistry"):
        setattr(wrapper, name, SimpleNamespace)
    types.Dv3ViT, types.satisfies_protocol = object, lambda *_: False
    modules = {"dinosaw": package, "dinosaw.wrappers": wrappers, "PVW": wrapper, "PVW.types": types}
    sys.modules.update(modules)
    alibi = importlib.import_module("dinosaw.wrappers.alibi")
    net = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True, pos_embed="none"
    )
    if case.network.endswith("alibi"):  # with the settings that its registry has for all checkpoints
        net = alibi.add_alibi(net, slope_type="constant", n_reg_tokens=4, normalize=True, wrap=True)
    net.load_state_dict(dino_saw_state(), strict=True)
    net.eval().patch_embed.proj.stride = (case.stride, case.stride)
    layers = [number - 1 for number in LAYERS]
    with torch.inference_mode():
        found = net.forward_intermediates(
            normalised(case.shape), layers, norm=True, output_fmt="NLC", intermediates_only=True
        )
    return torch.stack(found)[:, 0].numpy()


def reference(case, dinov3, dino_saw):
    """Return the tokens of a case by its reference code, those channels that are recorded."""
    if case.network in DINOV3:
        tokens = dinov3_reference(dinov3, case)
    else:
        tokens = dino_saw_reference(dino_saw, dinov3, case)
    return tokens[:, :, CHANNELS]


if __name__ == "__main__":
    folders = [Path(folder) for folder in sys.argv[1:]]
    np.savez_compressed(RECORD, **{case.key: reference(case, *folders) for case in CASES})
