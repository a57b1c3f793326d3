"""Measure the peers for ``benchmarks.speed``: ``python -m benchmarks.speed.peers JOB``.

A job is JSON; its figures are the last line printed. Only numpy and torch are imported at the start: each
adapter imports its peer, because napari-convpaint lives in an environment without hrvol. The peers load their
network from torch hub; they get :class:`Network` instead, with the weights that hrvol uses.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH, CHANNELS, HEADS, DEPTH = 14, 384, 6, 12
TRIED_VIEWS = 2
"""Views of the reference code timed first; they stand for all where all would take too long."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        qkv = self.qkv(x).reshape(*shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        # Today's hub code has this; its older one holds the whole matrix in memory and is slower.
        seen = F.scaled_dot_product_attention(*qkv.unbind(0))
        found: Tensor = self.proj(seen.transpose(1, 2).reshape(shape))
        return found


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x * self.gamma
        return found


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.fc2 = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return found


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(CHANNELS, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = _Attention(), _Mlp()
        self.ls1, self.ls2 = _Scale(), _Scale()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        found: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return found


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, CHANNELS, PATCH, PATCH)


class Network(nn.Module):
    """DINOv2 ViT-S/14 under the names that the peers use of what torch hub gives.

    Attributes
    ----------
    seen
        Number of tokens (class token included) of each input image.
    """

    num_heads = HEADS
    num_register_tokens = 0
    embed_dim = CHANNELS
    patch_size = PATCH

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = _Patches()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.pos_embed = nn.Parameter(torch.zeros(1, 37 * 37 + 1, CHANNELS))
        self.blocks = nn.ModuleList(_Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.seen: list[int] = []

    def interpolate_pos_encoding(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return positions of an image at the native stride, as the hub's code resizes them."""
        patches = self.pos_embed[:, 1:]
        side = math.isqrt(patches.shape[1])
        grid = (height // PATCH, width // PATCH)
        if grid == (side, side):
            return self.pos_embed
        square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = tuple((count + 0.1) / side for count in grid)
        resized = F.interpolate(square, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def prepare_tokens_with_masks(self, x: Tensor, masks: None = None) -> Tensor:
        """Return tokens with positions of images ``(B, 3, Y, X)``, at the stride of ``patch_embed.proj``."""
        height, width = x.shape[2:]
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        self.seen += [tokens.shape[1]] * len(x)
        return tokens + self.interpolate_pos_encoding(tokens, height, width)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the normed tokens of the last block."""
        tokens = self.prepare_tokens_with_masks(x)
        for block in self.blocks:
            tokens = block(tokens)
        normed = self.norm(tokens)
        return {"x_norm_clstoken": normed[:, 0], "x_norm_patchtokens": normed[:, 1:]}


def load_network(file: Path) -> Network:
    """Return the network with the weights of an ``.npz`` by timm's names, which are the hub's."""
    with np.load(file) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network = Network().eval().requires_grad_(False)
    network.load_state_dict(state)
    return network


@contextmanager
def hub_gives(network: nn.Module) -> Iterator[None]:
    """Let ``torch.hub.load`` return a network instead of downloading it, while a ``with`` statement lasts."""
    original = torch.hub.load
    torch.hub.load = lambda *_, **__: network
    try:
        yield
    finally:
        torch.hub.load = original


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, and by how many MB resident memory rose at its highest."""

    seconds: tuple[float, ...]
    peak_mb: float


def timed(run: Callable[[], Any], repeats: int = 1, budget: float = math.inf) -> Timing:
    """Run at least once, and again while the next run would end within ``budget`` seconds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and sum(seconds) + seconds[-1] <= budget):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return Timing(tuple(seconds), (_status("VmHWM") - before) / 1024)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def colour(image: np.ndarray) -> Tensor:
    """Return an 8-bit image ``(Y, X)`` as the peers' code normalises it, ``(3, Y, X)``."""
    grey = torch.from_numpy(image.astype(np.float32) / 255).expand(3, -1, -1)
    return (grey - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


def _published(job: dict[str, Any], stride: int) -> tuple[Any, Any, Network]:
    """Return the reference code's model at a stride, its module of transforms, and the network inside."""
    sys.path.insert(0, job["checkout"])
    from hr_dv2 import HighResDV2, transform

    network = load_network(Path(job["weights"]))
    with hub_gives(network):
        model = HighResDV2("dinov2_vits14", stride)
    return model, transform, network


def check_reference(job: dict[str, Any]) -> dict[str, float]:
    """Return the relative error of the reference code here against recorded features.

    Keys of ``job``: ``checkout``, ``weights``, ``features`` (folder of the recorded features).
    """
    errors = {}
    for name, stride, shifts in (("s14_none", 14, []), ("s4_none", 4, []), ("s4_moore12", 4, [1, 2])):
        model, transform, _ = _published(job, stride)
        model.set_transforms(*transform.get_shift_transforms(shifts, "Moore"))
        with np.load(Path(job["features"]) / f"{name}.npz") as recorded:
            found = model.forward_sequential(colour(recorded["image"]))[0].numpy()
            sampled = found[:, recorded["rows"]][:, :, recorded["cols"]]
            expected = recorded["features"].astype(np.float32)
        errors[name] = float(np.linalg.norm(sampled - expected) / np.linalg.norm(expected))
    return errors


def measure_reference(job: dict[str, Any]) -> dict[str, Any]:
    """Time the published settings: stride 4, the image and 16 shifts of it, one after the other.

    Keys of ``job``: ``checkout``, ``weights``, ``image``, ``time_limit`` (seconds for all views).
    """
    model, transform, network = _published(job, 4)
    views, back = transform.get_shift_transforms([1, 2], "Moore")
    image = colour(np.load(job["image"]))
    model.set_transforms(views[:1], back[:1])
    model.forward_sequential(image[:, :56, :56])
    count = TRIED_VIEWS
    model.set_transforms(views[:count], back[:count])
    network.seen.clear()
    timing = timed(lambda: model.forward_sequential(image))
    if timing.seconds[0] / count * len(views) <= job["time_limit"]:
        count = len(views)
        model.set_transforms(views, back)
        network.seen.clear()
        few, timing = timing, timed(lambda: model.forward_sequential(image))
        # memory that the first views kept no longer counts as a rise
        timing = Timing(timing.seconds, max(few.peak_mb, timing.peak_mb))
    return figures(timing, network.seen, 1, DEPTH) | {"views": count, "of": len(views)}


def measure_convpaint(job: dict[str, Any]) -> dict[str, Any]:
    """Time napari-convpaint's DINOv2 features of an image, at pixel resolution as it gives them.

    Keys of ``job``: ``weights``, ``image``, ``repeats``, ``budget`` (seconds for repeats).
    """
    model, network = convpaint(Path(job["weights"]))
    image = np.load(job["image"])
    model.get_feature_image(image[:56, :56])
    network.seen.clear()
    shapes: list[Any] = []
    timing = timed(lambda: shapes.append(model.get_feature_image(image).shape), job["repeats"], job["budget"])
    found = figures(timing, network.seen, len(timing.seconds), DEPTH)
    return found | {"version": version("napari-convpaint"), "shape": list(shapes[-1])}


def convpaint(weights: Path) -> tuple[Any, Network]:
    """Return napari-convpaint's model with DINOv2 features, and the network that it uses."""
    from napari_convpaint.convpaint_model import ConvpaintModel
    from napari_convpaint.feature_extractors import dino

    network = load_network(weights)
    dino.guided_model_download = lambda *_, **__: ""
    with hub_gives(network):
        return ConvpaintModel("dinov2"), network


def measure_convpaint_strokes(job: dict[str, Any]) -> dict[str, Any]:
    """Time napari-convpaint from strokes to the labels of a view.

    What its dock does is timed: it trains with the features of annotated pixels kept (*continuous training*),
    and segments the view, whose features it computes each time.

    Keys of ``job``: ``weights``, ``scene`` (an ``.npz``: ``image``, the ``strokes`` of the start, and
    ``places`` and ``values`` of those that are drawn one after the other), ``budget`` (seconds).
    """
    model, network = convpaint(Path(job["weights"]))
    with np.load(job["scene"]) as arrays:
        image, strokes, places, values = (arrays[name] for name in ("image", "strokes", "places", "values"))

    def train() -> None:
        model.train(image, strokes, memory_mode=True, img_ids="view")

    model.get_feature_image(image[:56, :56])  # the network's first pass is slow
    network.seen.clear()
    first = [seconds_of(train), seconds_of(lambda: model.segment(image))]
    trained, segmented = [], []
    for (top, left), patch in zip(places, values, strict=True):
        seen = strokes[top : top + patch.shape[0], left : left + patch.shape[1]]
        seen[patch > 0] = patch[patch > 0]
        trained.append(seconds_of(train))
        segmented.append(seconds_of(lambda: model.segment(image)))
        if sum(trained) + sum(segmented) > job["budget"]:
            break
    shape = list(model.segment(image).shape)
    about = {"version": version("napari-convpaint"), "shape": shape, "tokens": max(network.seen)}
    return about | {"first": first, "train": trained, "segment": segmented}


def seconds_of(run: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def figures(timing: Timing, tokens: Sequence[int], runs: int, blocks: int) -> dict[str, Any]:
    """Return the figures for a table; ``tokens`` are of ``runs`` runs."""
    each = list(tokens)[: len(tokens) // runs]
    return {
        "seconds": list(timing.seconds),
        "peak_mb": timing.peak_mb,
        "passes": len(each),
        "tokens": max(each, default=0),
        "blocks": blocks,
    }


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "check": check_reference,
    "reference": measure_reference,
    "convpaint": measure_convpaint,
    "convpaint-strokes": measure_convpaint_strokes,
}


def serve(jobs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Run the job of the command line and print its figures."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    print(json.dumps(jobs[job["what"]](job)))


if __name__ == "__main__":
    serve(JOBS)
