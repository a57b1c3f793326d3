"""Train a student on a teacher's probabilities: one loop, interruptible, with the same bits every time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvol.distil.augment import augmented
from hrvol.distil.examples import Crop, CropShape, Source, crop_shape
from hrvol.errors import ModelError
from hrvol.segment.student.network import StudentNetwork
from hrvol.segment.student.normalise import network_input
from hrvol.segment.student.spec import StudentSpec


@dataclass(frozen=True)
class FitSettings:
    """How a student is trained.

    Attributes
    ----------
    steps
        Most optimisation steps.
    learning_rate
        Highest learning rate; it rises over ``warm_up`` steps and falls along a cosine.
    warm_up
        Steps until the learning rate is highest.
    weight_decay
        Of AdamW.
    decay
        Of the moving average of weights.
    confidence
        Whether voxels count more where the teacher is more certain.
    floor
        Weight of voxels where the teacher is not certain at all.
    even
        Share of the crops that are drawn around a pixel of a class, each class as often as another; see
        :func:`hrvol.distil.examples.draw_place`.
    rare
        Power of the classes' shares by which voxels of rare classes count more; see
        :func:`hrvol.distil.examples.class_weights`.
    augmentation
        Strength of changes of grey values; 0: none.
    seed
        Of all random numbers.
    """

    steps: int = 800
    learning_rate: float = 3e-3
    warm_up: int = 50
    weight_decay: float = 1e-3
    decay: float = 0.99
    confidence: bool = True
    floor: float = 0.05
    even: float = 0.5
    rare: float = 0.0
    augmentation: float = 1.0
    seed: int = 0


class Fit:
    """A student in training; :meth:`state` and :meth:`restore` make it interruptible.

    Parameters
    ----------
    spec
        Architecture of the student.
    classes
        Number of classes K.
    settings
        How it is trained.
    device
        Name of torch's device.
    shape
        Shape and number of crops; ``None``: the usual ones of the architecture.
    """

    def __init__(
        self,
        spec: StudentSpec,
        classes: int,
        settings: FitSettings,
        device: str = "cpu",
        shape: CropShape | None = None,
    ) -> None:
        self.spec, self.settings = spec, settings
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = StudentNetwork(spec, classes)
        self.network = network.to(self.device).to(memory_format=network.memory_format).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(requires_grad=False)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._shape = shape or crop_shape(spec)
        self.step = 0

    @property
    def voxels(self) -> int:
        """Voxels of the crops of a step."""
        return self._shape.count * prod(self._shape.side)

    def run_step(self, source: Source, class_weights: NDArray[np.float32] | None = None) -> float:
        """Do one step on random crops and return the loss.

        The random numbers depend on the seed and the step alone.

        Parameters
        ----------
        source
            What to learn from.
        class_weights
            ``(K,)``: how much voxels of each class count; ``None``: all the same.

        Raises
        ------
        ModelError
            The loss is not finite.
        """
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        crops = []
        for _ in range(self._shape.count):
            crop = source.draw(self._shape, settings.even, rng)
            crops.append(augmented(crop, rng, settings.augmentation))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        loss = self._loss(crops, class_weights)
        value = loss.item()
        if not np.isfinite(value):
            raise ModelError(
                f"student: found a loss of {value} at step {self.step}, expected a finite one: the training"
                " diverged (another --seed, or other tiles)"
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        self.step += 1
        self._follow(min(settings.decay, self.step / (self.step + 9)))
        return value

    def _rate(self) -> float:
        settings, step = self.settings, self.step
        rise = min(1.0, (step + 1) / settings.warm_up)
        return float(settings.learning_rate * rise * 0.5 * (1 + np.cos(np.pi * step / settings.steps)))

    def _loss(self, crops: Sequence[Crop], class_weights: NDArray[np.float32] | None) -> Tensor:
        grey, target, labelled = (
            torch.from_numpy(np.stack([getattr(crop, name) for crop in crops])).to(self.device)
            for name in ("grey", "target", "labelled")
        )
        inputs = network_planes(self.spec, grey)
        if not self.spec.is_3d:
            target, labelled = target[:, :, 0], labelled[:, 0]
        mixed = self.device.type == "cuda" or _fast_bfloat16()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            logits = self.network(inputs)
        total, weight = self._entropy(logits.float().log_softmax(1), target, labelled, class_weights)
        return total / weight.clamp_min(1e-6)

    def _entropy(
        self,
        log_proba: Tensor,
        target: Tensor,
        labelled: Tensor,
        class_weights: NDArray[np.float32] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the cross-entropy of voxels, and the sum of their weights."""
        weight = labelled.float()
        if self.settings.confidence:
            entropy = -(target * target.clamp_min(1e-6).log()).sum(1) / np.log(max(target.shape[1], 2))
            weight = weight * ((1 - entropy).clamp_min(0) + self.settings.floor)
        if class_weights is not None:
            of_class = torch.from_numpy(class_weights).to(self.device)
            weight = weight * torch.einsum("nk...,k->n...", target, of_class)
        return -(weight * (target * log_proba).sum(1)).sum(), weight.sum()

    @torch.no_grad()
    def loss_on(
        self,
        teacher: Sequence[NDArray[np.floating]],
        student: Sequence[NDArray[np.float32]],
        class_weights: NDArray[np.float32] | None = None,
    ) -> float:
        """Return the loss of the training on probabilities ``(K, rows, columns)`` of tiles."""
        totals, weights = 0.0, 0.0
        for one, other in zip(teacher, student, strict=True):
            target, proba = (
                torch.from_numpy(np.asarray(values, np.float32)[None]).to(self.device)
                for values in (one, other)
            )
            log_proba = proba.clamp_min(1e-6).log()
            total, weight = self._entropy(log_proba, target, torch.ones_like(target[:, 0]), class_weights)
            totals, weights = totals + total.item(), weights + weight.item()
        return totals / max(weights, 1e-6)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the average of the weights towards the present ones."""
        for averaged, value in zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if averaged.dtype.is_floating_point:
                averaged.lerp_(value, 1 - decay)
            else:
                averaged.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return everything that changes during training, as tensors by name."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, entry in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in entry.items()}
        tensors["step"] = torch.tensor(self.step)
        return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self.step = int(tensors["step"])
        for name, module in (("network", self.network), ("average", self.average)):
            prefix = f"{name}."
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
        entries: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                entries.setdefault(int(number), {})[name] = value.clone()
        state = self._optimiser.state_dict()
        self._optimiser.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


def network_planes(spec: StudentSpec, grey: Tensor) -> Tensor:
    """Return the network's input for crops ``(n, z, y, x)`` of grey values with their margins."""
    margin = spec.halo[1] - spec.network_halo[1]
    if not spec.is_3d:
        return network_input(grey, spec.normalisation, margin)
    n, z, y, x = grey.shape
    planes = network_input(grey.reshape(n * z, 1, y, x), spec.normalisation, margin)
    return planes.reshape(n, z, *planes.shape[1:]).transpose(1, 2)


def _fast_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 faster than float32."""
    supported: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())
