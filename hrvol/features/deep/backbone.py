"""A frozen vision transformer: images in, tokens and CLS attention out, at any stride.

The network is timm's, unchanged: the patch embedding is called with the stride that is wanted, and the
last block's queries and keys are computed once more for the attention, so nothing is patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvol.errors import UsageError, WeightsError
from hrvol.features.weights.checkpoints import content_sha256
from hrvol.features.weights.registry import load_state, weights_info

HeadMap = Literal["q", "k", "v", "o"]

Positions = Literal["exact", "published"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Tokens:
    """What one pass gives, on the token grid (h, w).

    Attributes
    ----------
    features
        ``(B, C, h, w)`` float32, final norm applied; several blocks lie one after the other in C.
    attention
        ``(B, heads, h, w)`` float32 or ``None``: CLS attention of the last block times the number of
        tokens, so that 1 means "as much as uniform attention would give".
    head_map
        ``(B, heads, h, w)`` float32 or ``None``: the q / k / v / o map asked for.
    """

    features: Tensor
    attention: Tensor | None
    head_map: Tensor | None


class Backbone:
    """A frozen network on one device, in one precision.

    Parameters
    ----------
    net
        A timm vision transformer.
    name
        Name of the weights, for messages.
    mean, std
        Per-channel normalisation of images in [0, 1].
    device
        Where it runs.
    precision
        ``fp32``, ``bf16`` or ``fp16``: arithmetic inside; results are float32.
    sha256
        Content SHA-256 of the weights, ``None`` for random weights.

    Raises
    ------
    UsageError
        The GPU has no arithmetic of that precision.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        sha256: str | None = None,
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.device = torch.device(device)
        if self.device.type == "cuda":
            check_precision(precision, torch.cuda.get_device_capability(self.device))
        self.dtype = _DTYPES[precision]
        self.net: Any = net.eval().requires_grad_(False).to(self.device, self.dtype)
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.net.patch_embed.patch_size[0])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.net.blocks)

    @property
    def channels(self) -> int:
        """Feature channels of one block's tokens."""
        return int(self.net.num_features)

    @property
    def heads(self) -> int:
        """Attention heads of a block."""
        return int(self.net.blocks[-1].attn.num_heads)

    def block_numbers(self, block: Literal["last"] | int | tuple[int, ...]) -> tuple[int, ...]:
        """Return block numbers 1..depth for a recipe's ``block`` field."""
        numbers = (self.depth,) if block == "last" else (block,) if isinstance(block, int) else block
        if max(numbers) > self.depth:
            raise UsageError(
                f"features.deep.block: {self.name} has {self.depth} blocks, found {max(numbers)}"
            )
        return numbers

    @torch.inference_mode()
    def tokens(
        self,
        images: Tensor,
        *,
        stride: int | None = None,
        blocks: Sequence[int] | None = None,
        attention: bool = False,
        head_map: HeadMap | None = None,
        positions: Positions = "exact",
    ) -> Tokens:
        """Run the network.

        Parameters
        ----------
        images
            ``(B, 1 or 3, Y, X)`` float32 in [0, 1]; one channel is repeated to three. At least one
            patch in each direction; pixels beyond the last whole stride are not seen.
        stride
            Stride of the patch embedding in pixels; ``None`` is the patch size.
        blocks
            Block numbers 1..depth whose tokens are wanted; ``None`` is the last. The network stops at
            the highest one, unless attention is asked for.
        attention
            Also return the CLS attention of the last block.
        head_map
            Also return a per-head map of the last block: the sum of each token's query, key or value,
            or (``o``) the product of the CLS token's attention output with each token's value.
        positions
            How positional embeddings are resized: ``exact`` to the token grid; ``published`` as in the
            reference code (by a scale factor, with its offset of 0.1 tokens).

        Returns
        -------
        Tokens

        Raises
        ------
        UsageError
            Half precision overflowed.
        """
        net = self.net
        wanted = tuple(blocks) if blocks is not None else (self.depth,)
        stop = self.depth if attention or head_map else max(wanted)
        x, rope, grid = self._embed(images, stride or self.patch, positions)
        extra = {} if rope is None else {"rope": rope}
        found: dict[int, Tensor] = {}
        maps: tuple[Tensor | None, Tensor | None] = (None, None)
        for number, block in enumerate(net.blocks[:stop], 1):
            if number == self.depth and (attention or head_map):
                maps = self._last_block_maps(block, x, attention, head_map)
            x = block(x, **extra)
            if number in wanted:
                found[number] = net.norm(x)[:, net.num_prefix_tokens :].float()
        stacked = torch.cat([found[number] for number in wanted], dim=-1)
        # Values above 65504 would become classes without a word: trees send NaN somewhere, too.
        if self.dtype == torch.float16 and not torch.isfinite(stacked).all():
            raise UsageError(
                f"features.deep.precision: found tokens of {self.name} beyond the range of fp16,"
                " expected finite ones; use bf16 or fp32"
            )

        def on_grid(flat: Tensor | None) -> Tensor | None:
            return None if flat is None else flat.transpose(1, 2).reshape(len(flat), -1, *grid)

        features = on_grid(stacked)
        assert features is not None
        return Tokens(features, on_grid(maps[0]), on_grid(maps[1]))

    def _embed(
        self, images: Tensor, stride: int, positions: Positions
    ) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Return tokens with prefix and positions, rotary embedding if any, and the grid's shape."""
        net = self.net
        images = (images.to(self.device).expand(-1, 3, -1, -1) - self._mean) / self._std
        x, grid = embed_patches(
            images.to(self.dtype), net.patch_embed.proj, stride, convolve=self.device.type == "cpu"
        )
        x = net.patch_embed.norm(x)
        table, prefix = getattr(net, "pos_embed", None), int(net.num_prefix_tokens)
        head = [t.expand(len(x), -1, -1) for t in (net.cls_token, net.reg_token) if t is not None]
        if table is not None:
            # with registers the class token carries its own position already
            with_prefix = 0 if net.no_embed_class else prefix
            x = x + _resize_positions(table[:, with_prefix:], grid, positions).to(self.dtype)
            if with_prefix:
                head = [torch.cat(head, dim=1) + table[:, :prefix]]
        rope = net.rope.get_embed(shape=grid) if getattr(net, "rope", None) is not None else None
        return net.norm_pre(torch.cat([*head, x], dim=1)), rope, grid

    def _last_block_maps(
        self, block: Any, x: Tensor, attention: bool, head_map: HeadMap | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return CLS attention and the head map, each ``(B, N, heads)``, from one query per head."""
        attn, prefix = block.attn, int(self.net.num_prefix_tokens)
        if getattr(self.net, "rope", None) is not None or not hasattr(attn, "qkv"):
            raise UsageError(f"attention maps are not available for {self.name} (rotary positions)")
        qkv = attn.qkv(block.norm1(x)).reshape(*x.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.float().unbind(0)  # each (B, heads, N, head_dim)
        weights = (attn.q_norm(q[:, :, :1]) @ attn.k_norm(k).transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(
            dim=-1
        )
        per_head: Tensor | None = None
        if head_map == "o":
            per_head = ((weights @ v) @ v.transpose(-2, -1)).squeeze(2)
        elif head_map is not None:
            per_head = {"q": q, "k": k, "v": v}[head_map].sum(dim=-1)
        times_uniform = weights.squeeze(2) * weights.shape[-1]
        return (
            times_uniform[:, :, prefix:].transpose(1, 2) if attention else None,
            None if per_head is None else per_head[:, :, prefix:].transpose(1, 2),
        )


def check_precision(precision: str, capability: tuple[int, int]) -> None:
    """Refuse bf16 on a GPU that would only emulate it.

    Parameters
    ----------
    precision
        ``fp32``, ``bf16`` or ``fp16``.
    capability
        Compute capability of the GPU, such as ``(8, 0)``.

    Raises
    ------
    UsageError
        The GPU has no such arithmetic.
    """
    if precision == "bf16" and capability < (8, 0):
        found = ".".join(map(str, capability))
        raise UsageError(
            f"features.deep.precision: bf16 needs a GPU of compute capability 8.0, found {found};"
            " use fp16 or fp32"
        )


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
        As a convolution, or as a product of matrices: on GPUs cuDNN would take TF32 for convolutions of
        float32, with ten bits instead of 23, unless a switch of the whole process says otherwise.

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


def _resize_positions(table: Tensor, grid: tuple[int, int], how: Positions) -> Tensor:
    """Resize square positional embeddings ``(1, n*n, C)`` to ``(1, h*w, C)`` bicubically."""
    side = round(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    square = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if how == "exact":
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    else:
        # The reference guards against rounding by asking for a tenth of a token more, and samples with
        # that scale: a token at the far end is displaced by up to 0.1 tokens.
        scale = tuple((n + 0.1) / side for n in grid)
        resized = F.interpolate(
            square, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return resized.flatten(2).transpose(1, 2)


def load_backbone(
    name: str,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    weights_path: str | None = None,
    offline: bool = False,
) -> Backbone:
    """Load a network by name, fetching its weights if need be.

    Raises
    ------
    WeightsError
        The name is unknown, or the weights cannot be had or are another network's.
    """
    state = load_state(name, offline=offline, path=weights_path)
    net, settings = _build(name)
    try:
        net.load_state_dict(state)
    except RuntimeError:  # its many lines name every tensor
        raise WeightsError(
            f"weights {name}: {weights_path or weights_info(name).cached} holds another network;"
            " remove it and fetch again"
        ) from None
    return Backbone(net, name, device=device, precision=precision, sha256=content_sha256(state), **settings)


def random_backbone(name: str, *, seed: int = 0, **options: Any) -> Backbone:
    """Build a network by name with random weights: for tests and for timing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, settings = _build(name)
    return Backbone(net, name, **settings, **options)


def _build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    model = weights_info(name).model
    net = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    config = timm.get_pretrained_cfg(model)
    return net, {"mean": config.mean, "std": config.std}
