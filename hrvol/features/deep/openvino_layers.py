"""The layers of a vision transformer in OpenVINO, twice as fast on a CPU as torch where it has bfloat16.

The layers are timm's, converted once per network; only what comes before them, patches and positions, and the
attention maps are computed by torch.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrvol.backend import compiled


class OpenVinoLayers:
    """The layers of a network, compiled once per thread for images of any size.

    Several threads may call it, each of which computes on one core.

    Parameters
    ----------
    net
        A timm vision transformer on the CPU, float32.
    backend
        ``openvino`` or ``openvino-bf16``.
    """

    def __init__(self, net: nn.Module, backend: str) -> None:
        self._net, self._backend = net, backend
        self._converting = threading.Lock()
        self._models: dict[tuple[int, ...], Any] = {}
        self._requests = _Requests()

    def __call__(self, x: Tensor, extra: Mapping[str, Tensor], numbers: Sequence[int]) -> Tensor:
        """Return the normalised tokens of some layers.

        Parameters
        ----------
        x
            ``(B, N, C)`` float32: prefix and patch tokens with their positions.
        extra
            What else timm's layers are given, by name: the rotary embedding of the patch tokens (``rope``),
            the bias of all pairs of tokens (``attn_mask``), or nothing.
        numbers
            Of the layers, 1..depth; the highest one is the last that is computed.

        Returns
        -------
        Tensor
            ``(B, N - prefix, C * len(numbers))`` float32, layer after layer.
        """
        inputs = [x, *extra.values()]
        key = tuple(numbers)
        requests = self._requests.by_layers
        if key not in requests:
            requests[key] = compiled(
                self._converted(key, inputs, tuple(extra)), self._backend
            ).create_infer_request()
        # The next call of the thread overwrites the request's output: it is copied.
        found = requests[key].infer([values.numpy() for values in inputs], share_inputs=True)[0]
        return torch.from_numpy(found.copy())

    def _converted(self, numbers: tuple[int, ...], inputs: Sequence[Tensor], names: tuple[str, ...]) -> Any:
        """Return the model of the layers, converted on first use."""
        from openvino import convert_model

        with self._converting:
            if numbers not in self._models:
                layers = _Layers(self._net, numbers, names).eval()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # tracing is deprecated, and faster than its successor
                    trace: Any = torch.jit.trace
                    traced = trace(layers, tuple(inputs), check_trace=False)
                    model = convert_model(traced)
                shapes = [list(values.shape) for values in inputs]
                shapes[0][0] = -1
                for shape, name in zip(shapes, ("", *names), strict=True):
                    shape[-2] = -1  # tokens: as many as the image has
                    if name == "attn_mask":  # of pairs of tokens
                        shape[-1] = -1
                model.reshape(dict(zip(model.inputs, shapes, strict=True)))
                self._models[numbers] = model
            return self._models[numbers]


class _Requests(threading.local):
    """The compiled models of a thread."""

    def __init__(self) -> None:
        self.by_layers: dict[tuple[int, ...], Any] = {}


class _Layers(nn.Module):
    """The layers of a network up to the highest one whose tokens are returned."""

    def __init__(self, net: Any, numbers: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        self.layers = net.blocks[: max(numbers)]
        self.norm = net.norm
        self.prefix, self.numbers = int(net.num_prefix_tokens), tuple(numbers)
        self.names = tuple(names)

    def forward(self, x: Tensor, *values: Tensor) -> Tensor:
        extra = dict(zip(self.names, values, strict=True))
        outputs = {}
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, **extra)
            if number in self.numbers:
                outputs[number] = self.norm(x)[:, self.prefix :]
        return torch.cat([outputs[number] for number in self.numbers], dim=-1)
