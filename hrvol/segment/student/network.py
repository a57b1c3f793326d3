"""The student network in torch: a small U-Net of planes or volumes, trained with batch norm, run without."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hrvol.segment.student.spec import StudentSpec


class StudentNetwork(nn.Module):
    """The network of a :class:`StudentSpec`.

    Input is ``(n, C, Y, X)`` float32 or, for a 3D network, ``(n, C, Z, Y, X)``, with sides that are multiples
    of ``spec.alignment``; output has ``classes`` channels of logits in the same shape. Beyond the borders
    zeros are seen: discard ``spec.network_halo`` voxels on each side that is not a border of the data.

    Parameters
    ----------
    spec
        The architecture.
    classes
        Number of classes K.
    """

    def __init__(self, spec: StudentSpec, classes: int) -> None:
        super().__init__()
        self.spec, self.classes = spec, classes
        self._3d = spec.is_3d
        last = len(spec.widths) - 1
        cells = spec.stem[0] * spec.stem[1] * spec.stem[2]
        inputs = [spec.channels * cells, *spec.widths[:-1]]
        self.encoder = nn.ModuleList(
            self._stack(i, o, kernel, spec.encoder_convolutions)
            for i, o, kernel in zip(inputs, spec.widths, spec.depth_kernels, strict=True)
        )
        self.rise = nn.ModuleList(
            nn.Sequential(self._conv(spec.widths[n + 1], spec.widths[n], 1, 1), self._norm(spec.widths[n]))
            for n in range(last)
        )
        self.decoder = nn.ModuleList(
            self._stack(spec.widths[n], spec.widths[n], spec.depth_kernels[n], spec.decoder_convolutions)
            for n in range(last)
        )
        self.head = self._conv(spec.widths[0], classes * cells, 3, 1, bias=True)

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format in which the network is fastest."""
        return torch.channels_last_3d if self._3d else torch.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.scatter(self.levels(self.gather(x).contiguous(memory_format=self.memory_format)))

    def levels(self, x: Tensor) -> Tensor:
        """Return the logits of all voxels of a cell of the stem as channels, from its input likewise."""
        skips = []
        for n, stack in enumerate(self.encoder):
            x = stack(x)
            if n < len(self.rise):
                skips.append(x)
                x = self._pool(x, n)
        for n in reversed(range(len(self.rise))):
            up = self._grow(self.rise[n](x), n)
            x = self.decoder[n](F.relu(up + skips[n]) if self.training else up.add_(skips[n]).relu_())
        logits: Tensor = self.head(x)
        return logits

    def gather(self, x: Tensor) -> Tensor:
        """Rearrange the voxels of a stem into channels."""
        a, b, _ = self.spec.stem
        if b == 1 and a == 1:
            return x
        if not self._3d:
            return F.pixel_unshuffle(x, b)
        n, c, z, y, width = x.shape
        x = x.reshape(n, c, z // a, a, y // b, b, width // b, b).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return x.reshape(n, -1, z // a, y // b, width // b)

    def scatter(self, x: Tensor) -> Tensor:
        """Rearrange channels into the voxels of a stem."""
        a, b, _ = self.spec.stem
        if b == 1 and a == 1:
            return x
        if not self._3d:
            return F.pixel_shuffle(x, b)
        n, _, z, y, width = x.shape
        x = x.reshape(n, self.classes, a, b, b, z, y, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return x.reshape(n, self.classes, z * a, y * b, width * b)

    def _conv(self, i: int, o: int, kernel: int, depth: int, *, bias: bool = False) -> nn.Module:
        if self._3d:
            size = (depth, kernel, kernel)
            return nn.Conv3d(i, o, size, padding=(depth // 2, kernel // 2, kernel // 2), bias=bias)
        return nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=bias)

    def _norm(self, width: int) -> nn.Module:
        return nn.BatchNorm3d(width) if self._3d else nn.BatchNorm2d(width)

    def _stack(self, i: int, o: int, depth: int, count: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for n in range(count):
            conv = self._conv(o if n else i, o, 3, 1 if n else depth)
            layers.append(nn.Sequential(conv, self._norm(o), nn.ReLU(inplace=True)))
        return nn.Sequential(*layers)

    def _pool(self, x: Tensor, level: int) -> Tensor:
        pool = self.spec.pools[level]
        return F.max_pool3d(x, pool) if self._3d else F.max_pool2d(x, pool[1:])

    def _grow(self, x: Tensor, level: int) -> Tensor:
        pool = tuple(float(side) for side in self.spec.pools[level])
        return F.interpolate(x, scale_factor=pool if self._3d else pool[1:], mode="nearest")


def folded(network: StudentNetwork) -> StudentNetwork:
    """Return a copy for inference: each batch norm is folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if not isinstance(module, nn.Sequential) or len(module) < 2:
            continue
        conv, norm = module[0], module[1]
        if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network.requires_grad_(requires_grad=False)


def network_arrays(network: StudentNetwork) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a folded network by name, as float32 arrays."""
    return {
        name: np.ascontiguousarray(value.numpy(force=True)) for name, value in network.state_dict().items()
    }


def network_of(spec: StudentSpec, classes: int, arrays: Mapping[str, NDArray[Any]]) -> StudentNetwork:
    """Return the folded network that :func:`network_arrays` describes."""
    network = folded(StudentNetwork(spec, classes))
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network.to(memory_format=network.memory_format)
