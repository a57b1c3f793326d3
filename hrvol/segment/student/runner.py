"""Run a student on windows of a volume."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvol.arrays import Array, Shape3, softmax
from hrvol.backend import TORCH, check_backend
from hrvol.segment.student.lattice import planes_at_once
from hrvol.segment.student.layout import by_class, gathered, placed
from hrvol.segment.student.network import network_arrays, network_of
from hrvol.segment.student.normalise import network_input, normalised
from hrvol.segment.student.student import StudentClassifier

T = TypeVar("T")

R = TypeVar("R")

# Read by torch when it allocates for the first time: mapping arrays page by page takes up to a quarter of the
# time of a prediction.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-odds of the classes of a cell's voxels, in the order in which they are computed.

    Attributes
    ----------
    values
        ``(K, ...)`` float32, up to a constant of each voxel: NumPy's on the CPU, torch's on a GPU.
    stem
        Voxels of the cells in whose order they are; ``None``: ``(K, z, y, x)`` already.
    """

    values: Array
    stem: Shape3 | None = None

    def placed(self, values: Array) -> Array:
        """Return values of the voxels, in the order of the scores, as ``(..., z, y, x)``."""
        return values if self.stem is None else placed(values, self.stem)


class StudentRunner:
    """A student that is loaded on a device.

    Parameters
    ----------
    student
        The student.
    device
        Name of torch's device.
    backend
        What computes the network, resolved: see :func:`hrvol.backend.choose_backend`.

    Attributes
    ----------
    planes
        Planes of a cell of the lattice, for students of planes: how many are predicted together.
    """

    _levels: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    def __init__(self, student: StudentClassifier, device: str = "cpu", backend: str = TORCH) -> None:
        check_backend(backend)
        self.spec = student.spec
        self.device = torch.device(device)
        self.planes = planes_at_once(self.device.type)
        self._classes = len(student.classes)
        self._network = network_of(student.spec, self._classes, student.arrays).to(self.device)
        for parameter in self._network.head.parameters():
            parameter.div_(student.temperature)
        self._network.to(self._kind)
        self._levels = self._torch_levels
        if backend != TORCH:
            from hrvol.segment.student.openvino_network import OpenVinoNetwork

            self._levels = OpenVinoNetwork(student.spec, network_arrays(self._network), backend)

    @property
    def on_cpu(self) -> bool:
        """Whether predictions are computed on the CPU."""
        return self.device.type == "cpu"

    @property
    def _kind(self) -> torch.dtype:
        """Type of the network's numbers: GPUs multiply float16 many times as fast as float32."""
        return torch.float32 if self.on_cpu else torch.float16

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
        scores = self.scores(window)
        return scores.placed(softmax(scores.values))

    @torch.inference_mode()
    def scores(self, window: NDArray[np.float32]) -> Scores:
        """Return the log-odds of the voxels of a cell, divided by the temperature; see :meth:`probabilities`.

        On the CPU their bits do not depend on other cells, but they may on torch's number of threads: call it
        from the threads of :func:`single_threads`.
        """
        grey = torch.from_numpy(np.ascontiguousarray(window))
        if not self.on_cpu:
            return Scores(self.logits(grey.to(self.device)))
        return Scores(by_class(self._inner(grey), self._classes), self.spec.stem)

    def each(self, function: Callable[[T], R], items: Iterable[T], threads: int = 1) -> Generator[R]:
        """Yield the results of a function that calls :meth:`scores`, in the order of the items.

        On the CPU it is called by so many threads, but by no more than torch uses.
        """
        if not self.on_cpu:
            yield from map(function, items)
            return
        pool = single_threads(max(1, min(threads, torch.get_num_threads())))
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def _inner(self, grey: Tensor) -> NDArray[np.float32]:
        """Return the network's output ``(z, y, x, channels)`` of a cell, channels last in memory."""
        stem = self.spec.stem
        z, y, x = (around // side for around, side in zip(self.spec.network_halo, stem, strict=True))
        stacks = grey[:, None] if self.spec.is_3d else grey.unfold(0, self.spec.planes, 1).permute(0, 3, 1, 2)
        head = self._levels(gathered(self._channels(stacks), stem))
        return head[z : head.shape[0] - z, y : head.shape[1] - y, x : head.shape[2] - x]

    def _torch_levels(self, first: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits ``(z, y, x, K * cells)`` of all voxels of cells of the stem."""
        form, values = self._network.memory_format, torch.from_numpy(first)
        if self.spec.is_3d:
            levels = self._network.levels(values.permute(3, 0, 1, 2)[None]).contiguous(memory_format=form)
            return levels[0].permute(1, 2, 3, 0).numpy()
        levels = self._network.levels(values.permute(0, 3, 1, 2)).contiguous(memory_format=form)
        return levels.permute(0, 2, 3, 1).numpy()

    def _channels(self, grey: Tensor) -> list[NDArray[np.float32]]:
        """Return the input channels of the network ``(Z, Y, X)`` from windows ``(Z, c, Y, X)``."""
        margin = self.spec.halo[1] - self.spec.network_halo[1]
        inner, local = normalised(grey, self.spec.normalisation, margin)
        kinds = {"none": (inner,), "alone": (local,), "beside": (inner, local)}[self.spec.normalisation]
        present = [values for values in kinds if values is not None]
        return [values[:, number].numpy() for values in present for number in range(values.shape[1])]

    def logits(self, window: Tensor) -> Tensor:
        """Return the logits ``(K, z, y, x)`` of the voxels of a cell from its window ``(z, y, x)``."""
        spec = self.spec
        margin = spec.halo[1] - spec.network_halo[1]
        z, y, x = spec.network_halo
        if spec.is_3d:
            planes = network_input(window[:, None], spec.normalisation, margin)
            volume = planes.permute(1, 0, 2, 3)[None].to(self._kind)
            logits: Tensor = self._network(volume)[0].float()
            return logits[:, z : logits.shape[1] - z, y : logits.shape[2] - y, x : logits.shape[3] - x]
        stacks = window.unfold(0, spec.planes, 1).permute(0, 3, 1, 2)
        inputs = network_input(stacks, spec.normalisation, margin).to(self._kind)
        logits = self._network(inputs).float()
        return logits[:, :, y : logits.shape[2] - y, x : logits.shape[3] - x].transpose(0, 1)


@lru_cache(maxsize=1)
def single_threads(count: int) -> ThreadPoolExecutor:
    """Return a pool of threads that compute on one core each.

    Cells are predicted in parallel on one core each, instead of one after the other on all cores: their bits
    then do not depend on the number of cores.
    """
    return ThreadPoolExecutor(count, "hrvol-student", initializer=torch.set_num_threads, initargs=(1,))


_LOCK = threading.Lock()

_LOADED: dict[tuple[int, str, str], tuple[StudentClassifier, StudentRunner]] = {}  # at most one


def load_runner(student: StudentClassifier, device: str = "cpu", backend: str = TORCH) -> StudentRunner:
    """Return the runner of a student on a device, loaded on first use and cached by this process."""
    key = (id(student), device, backend)
    with _LOCK:
        if key not in _LOADED:
            _LOADED.clear()
            _LOADED[key] = (
                student,
                StudentRunner(student, device, backend),
            )  # keeps the student, so its id is unique
        return _LOADED[key][1]
