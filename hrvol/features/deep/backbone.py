"""Run a frozen vision transformer at any stride, and return its tokens and CLS attention.

The network is timm's, unmodified: the patch embedding is called with the requested stride, and the queries
and keys of the last layer are computed a second time for the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from hrvol.backend import TORCH, check_backend
from hrvol.errors import UsageError, WeightsError
from hrvol.features.deep.alibi import distance_bias
from hrvol.features.deep.embedding import Positions, embed_patches, resize_positions
from hrvol.features.weights.architecture import PERIODS, create
from hrvol.features.weights.registry import load_verified, weights_info

if TYPE_CHECKING:
    from hrvol.features.deep.openvino_layers import OpenVinoLayers

HeadMap = Literal["q", "k", "v", "o"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Tokens:
    """The result of one pass on the token grid (h, w).

    Attributes
    ----------
    features
        ``(B, C, h, w)`` float32 after the final norm; several layers are concatenated along C.
    attention
        ``(B, heads, h, w)`` float32 or ``None``: CLS attention of the last layer in units of uniform
        attention (the weight times the number of tokens).
    head_map
        ``(B, heads, h, w)`` float32 or ``None``: the requested q / k / v / o map.
    """

    features: Tensor
    attention: Tensor | None
    head_map: Tensor | None


class Backbone:
    """A frozen network on one device and in one precision.

    Parameters
    ----------
    net
        A timm vision transformer.
    name
        Name of the weights, for messages.
    mean, std
        Per-channel normalisation of images in [0, 1].
    device
        Device on which it runs.
    precision
        ``fp32``, ``bf16`` or ``fp16`` arithmetic in the network; results are float32.
    sha256
        Content SHA-256 of the weights, ``None`` for random weights.
    alibi
        Attention falls with the distance between tokens (:mod:`hrvol.features.deep.alibi`).
    backend
        What computes the layers, resolved: see :func:`hrvol.features.choose_backend.choose_for_features`.
        Attention maps, and the layers where they are requested, are computed by torch.

    Raises
    ------
    UsageError
        The GPU does not support this precision.
    DeviceError
        The backend is not installed, or the processor has no instructions for it.
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
        alibi: bool = False,
        backend: str = TORCH,
    ) -> None:
        check_backend(backend)
        self.name = name
        self.alibi = alibi
        self.sha256 = sha256
        self.device = torch.device(device)
        if self.device.type == "cuda":
            check_precision(precision, torch.cuda.get_device_capability(self.device))
        self.dtype = _DTYPES[precision]
        self.net: Any = net.eval().requires_grad_(False).to(self.device, self.dtype)
        self.backend = backend
        self._layers: OpenVinoLayers | None = None
        if backend != TORCH:
            from hrvol.features.deep.openvino_layers import OpenVinoLayers

            self._layers = OpenVinoLayers(self.net, backend)
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.net.patch_embed.patch_size[0])

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.net.blocks)

    @property
    def channels(self) -> int:
        """Feature channels of the tokens of one layer."""
        return int(self.net.num_features)

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.net.blocks[-1].attn.num_heads)

    def block_numbers(self, block: Literal["last"] | int | tuple[int, ...]) -> tuple[int, ...]:
        """Return the layer numbers, 1..depth, of a recipe's ``block`` field.

        Raises
        ------
        UsageError
            The network has fewer layers.
        """
        numbers = (self.depth,) if block == "last" else (block,) if isinstance(block, int) else block
        if max(numbers) > self.depth:
            raise UsageError(
                f"features.deep.block: found {max(numbers)}, expected at most {self.depth} for {self.name}"
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
            ``(B, 1 or 3, Y, X)`` float32 in [0, 1], at least one patch in each direction; one channel is
            repeated to three. Pixels beyond the last whole stride are ignored.
        stride
            Stride of the patch embedding in pixels; ``None`` is the patch size.
        blocks
            Numbers, 1..depth, of the layers whose tokens are returned; ``None`` is the last. The network
            stops at the highest one, unless attention is requested.
        attention
            Also return the CLS attention of the last layer.
        head_map
            Also return a per-head map of the last layer: the sum of each token's query, key or value,
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
        numbers = tuple(blocks) if blocks is not None else (self.depth,)
        embed = partial(self._embed, images, stride or self.patch, positions)
        weights: Tensor | None = None
        per_head: Tensor | None = None
        if self._layers is not None and not attention and head_map is None:
            x, extra, grid = embed()
            stacked = self._layers(x, extra, numbers)
        else:
            stacked, weights, per_head, grid = self._torch_layers(embed, numbers, attention, head_map)

        def on_grid(flat: Tensor | None) -> Tensor | None:
            return None if flat is None else flat.transpose(1, 2).reshape(len(flat), -1, *grid)

        features = on_grid(stacked)
        assert features is not None
        return Tokens(features, on_grid(weights), on_grid(per_head))

    def _torch_layers(
        self,
        embed: Callable[[], tuple[Tensor, dict[str, Tensor], tuple[int, int]]],
        numbers: tuple[int, ...],
        attention: bool,
        head_map: HeadMap | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, tuple[int, int]]:
        """Return tokens ``(B, N, C * layers)``, attention, head map ``(B, N, heads)``, the grid's shape."""
        net = self.net
        x, extra, grid = embed()  # here, so that nobody holds what the first layer was given
        stop = self.depth if attention or head_map else max(numbers)
        outputs: dict[int, Tensor] = {}
        maps: tuple[Tensor | None, Tensor | None] = (None, None)
        for number, layer in enumerate(net.blocks[:stop], 1):
            if number == self.depth and (attention or head_map):
                maps = self._last_layer_maps(layer, x, attention, head_map)
            x = layer(x, **extra)
            if number in numbers:
                outputs[number] = net.norm(x)[:, net.num_prefix_tokens :].float()
        stacked = torch.cat([outputs[number] for number in numbers], dim=-1)
        # Values above 65504 would silently become classes: trees accept NaN, too.
        if self.dtype == torch.float16 and not torch.isfinite(stacked).all():
            raise UsageError(
                f"features.deep.precision: found tokens of {self.name} beyond the range of fp16,"
                " expected finite ones; use bf16 or fp32"
            )
        return stacked, *maps, grid

    def _embed(
        self, images: Tensor, stride: int, positions: Positions
    ) -> tuple[Tensor, dict[str, Tensor], tuple[int, int]]:
        """Return tokens with prefix and positions, what else the layers are given, and the grid's shape.

        That is the rotary embedding, or the bias of distances. Both depend on the grid alone, as in the
        reference codes: its first and last tokens are at the same places whatever the stride.
        """
        net = self.net
        images = (images.to(self.device).expand(-1, 3, -1, -1) - self._mean) / self._std
        x, grid = embed_patches(
            images.to(self.dtype), net.patch_embed.proj, stride, convolve=self.device.type == "cpu"
        )
        x = net.patch_embed.norm(x)
        table, prefix = getattr(net, "pos_embed", None), int(net.num_prefix_tokens)
        head = [t.expand(len(x), -1, -1) for t in (net.cls_token, net.reg_token) if t is not None]
        if table is not None:
            # With registers the class token already includes its position.
            with_prefix = 0 if net.no_embed_class else prefix
            x = x + resize_positions(table[:, with_prefix:], grid, positions).to(self.dtype)
            if with_prefix:
                head = [torch.cat(head, dim=1) + table[:, :prefix]]
        extra = {}
        if getattr(net, "rope", None) is not None:
            extra["rope"] = net.rope.get_embed(shape=grid)
        if self.alibi:
            extra["attn_mask"] = distance_bias(grid, prefix, self.device).to(self.dtype)
        return net.norm_pre(torch.cat([*head, x], dim=1)), extra, grid

    def _last_layer_maps(
        self, layer: Any, x: Tensor, attention: bool, head_map: HeadMap | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return CLS attention and the head map, each ``(B, N, heads)``, from one query per head."""
        attn, prefix = layer.attn, int(self.net.num_prefix_tokens)
        if getattr(self.net, "rope", None) is not None or not hasattr(attn, "qkv"):
            raise UsageError(f"attention maps are not available for {self.name} (rotary positions)")
        qkv = attn.qkv(layer.norm1(x)).reshape(*x.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
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
    """Raise an error for bf16 on a GPU that would only emulate it.

    Parameters
    ----------
    precision
        ``fp32``, ``bf16`` or ``fp16``.
    capability
        Compute capability of the GPU, such as ``(8, 0)``.

    Raises
    ------
    UsageError
        The GPU does not support the precision.
    """
    if precision == "bf16" and capability < (8, 0):
        version = ".".join(map(str, capability))
        raise UsageError(
            f"features.deep.precision: bf16 needs a GPU of compute capability 8.0, found {version};"
            " use fp16 or fp32"
        )


def load_backbone(
    name: str,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    weights_path: str | None = None,
    offline: bool = False,
    backend: str = TORCH,
) -> Backbone:
    """Load a network by name, and download its weights if they are not cached.

    Raises
    ------
    WeightsError
        The name is unknown, or the weights could not be obtained or belong to another network.
    """
    state, digest = load_verified(name, offline=offline, path=weights_path)
    net, settings = _build(name, state)
    rotary: Any = getattr(net, "rope", None)
    periods = None if rotary is None else state.pop(PERIODS, None)
    try:
        net.load_state_dict(state)
        if periods is not None:
            periods = periods.view_as(rotary.periods)
    except RuntimeError:  # its message has a line for every tensor
        raise WeightsError(
            f"weights {name}: {weights_path or weights_info(name).cached} holds another network;"
            " remove it and fetch again"
        ) from None
    found = Backbone(
        net, name, device=device, precision=precision, sha256=digest, backend=backend, **settings
    )
    if periods is not None:  # timm computes its own again when a network is converted to half precision
        found.net.rope.periods.copy_(periods)
    return found


def random_backbone(name: str, *, seed: int = 0, **options: Any) -> Backbone:
    """Build a network by name with random weights, for tests and timing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, settings = _build(name)
    return Backbone(net, name, **settings, **options)


def _build(name: str, names: Container[str] = ()) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    info = weights_info(name)
    config = timm.get_pretrained_cfg(info.model)
    settings = {"mean": config.mean, "std": config.std, "alibi": info.positions == "alibi"}
    return create(info, names), settings
