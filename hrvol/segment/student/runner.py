"""Run a student on windows of a volume."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvol.arrays import Array
from hrvol.segment.student.network import network_of
from hrvol.segment.student.normalise import network_input
from hrvol.segment.student.student import StudentClassifier

GPU_PLANES = 8
"""Planes that are predicted together on a GPU."""


class StudentRunner:
    """A student that is loaded on a device.

    Parameters
    ----------
    student
        The student.
    device
        Name of torch's device.

    Attributes
    ----------
    planes
        Planes of a cell of the lattice, for students of planes: how many are predicted together.
    """

    def __init__(self, student: StudentClassifier, device: str = "cpu") -> None:
        self.spec = student.spec
        self.device = torch.device(device)
        self.planes = GPU_PLANES if self.device.type == "cuda" else 1
        self._network = network_of(student.spec, len(student.classes), student.arrays).to(self.device)
        self._temperature = student.temperature

    @torch.inference_mode()
    def probabilities(self, window: NDArray[np.float32]) -> Array:
        """Return the class probabilities of the voxels of a cell.

        Parameters
        ----------
        window
            ``(z, y, x)`` float32 in [0, 1]: the cell with ``spec.halo`` voxels around it.

        Returns
        -------
        Array
            ``(K, z, y, x)`` float32 with sum 1: NumPy's on the CPU, torch's on a GPU.
        """
        logits = self.logits(torch.from_numpy(np.ascontiguousarray(window)).to(self.device))
        proba = torch.softmax(logits / self._temperature, dim=0)
        return proba.numpy() if self.device.type == "cpu" else proba

    def logits(self, window: Tensor) -> Tensor:
        """Return the logits ``(K, z, y, x)`` of the voxels of a cell from its window ``(z, y, x)``."""
        spec = self.spec
        margin = spec.halo[1] - spec.network_halo[1]
        z, y, x = spec.network_halo
        if spec.is_3d:
            planes = network_input(window[:, None], spec.normalisation, margin)
            volume = planes.permute(1, 0, 2, 3)[None]
            logits: Tensor = self._network(volume)[0]
            return logits[:, z : logits.shape[1] - z, y : logits.shape[2] - y, x : logits.shape[3] - x]
        stacks = window.unfold(0, spec.planes, 1).permute(0, 3, 1, 2)
        logits = self._network(network_input(stacks, spec.normalisation, margin))
        return logits[:, :, y : logits.shape[2] - y, x : logits.shape[3] - x].transpose(0, 1)


_LOCK = threading.Lock()

_LOADED: dict[tuple[int, str], tuple[StudentClassifier, StudentRunner]] = {}  # at most one


def load_runner(student: StudentClassifier, device: str = "cpu") -> StudentRunner:
    """Return the runner of a student on a device, loaded on first use and cached by this process."""
    key = (id(student), device)
    with _LOCK:
        if key not in _LOADED:
            _LOADED.clear()
            _LOADED[key] = (student, StudentRunner(student, device))  # keeps the student, so its id is unique
        return _LOADED[key][1]
