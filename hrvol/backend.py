"""Choose the library that computes networks on the CPU: students, and the backbone of deep features.

The driver chooses once. Workers never choose: a worker that lacks the library of the run raises an error
instead of taking another one, whose labels may differ.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hrvol.errors import DeviceError, UsageError

TORCH, OPENVINO, BFLOAT16 = "torch", "openvino", "openvino-bf16"

BACKENDS = ("auto", TORCH, OPENVINO, BFLOAT16)
"""Accepted values; ``auto`` is resolved to one of the others."""

_PACKAGE = "openvino"


@dataclass(frozen=True)
class BackendChoice:
    """A backend, and the reason for the choice."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"backend: {self.name} ({self.why})"


def check_name(backend: str) -> None:
    """Raise a :class:`UsageError` if there is no such backend."""
    if backend not in BACKENDS:
        raise UsageError(f"backend: found {backend!r}, expected {', '.join(BACKENDS)}")


def choose_backend(backend: str, device: str) -> BackendChoice:
    """Choose the backend of a run.

    Parameters
    ----------
    backend
        One of :data:`BACKENDS`: ``torch`` and ``openvino`` compute in float32, ``openvino-bf16`` multiplies
        bfloat16 numbers; ``auto`` is the fastest that is installed and that the processor has instructions
        for.
    device
        ``cpu`` or ``cuda``, for which there is torch only.

    Raises
    ------
    UsageError
        OpenVINO is requested for a GPU.
    DeviceError
        The backend is not installed, or the processor has no instructions for it.
    """
    check_name(backend)
    if device != "cpu":
        if backend not in ("auto", TORCH):
            raise UsageError(f"backend: found {backend} for the device {device}, expected torch")
        return BackendChoice(TORCH, "the only one for GPUs" if backend == "auto" else "as requested")
    if backend != "auto":
        check_backend(backend)
        return BackendChoice(backend, "as requested")
    if find_spec(_PACKAGE) is None:
        return BackendChoice(TORCH, "openvino is not installed: pip install 'hrvol[cpu]'")
    if not _bfloat16():
        return BackendChoice(OPENVINO, "this processor has no instructions for bfloat16")
    return BackendChoice(BFLOAT16, "the fastest on this processor")


def check_backend(backend: str) -> None:
    """Raise a :class:`DeviceError` if this process cannot compute with a backend."""
    if backend == TORCH:
        return
    where = f"on {socket.gethostname()}"
    if find_spec(_PACKAGE) is None:
        raise DeviceError(
            f"backend: {backend}: found no openvino {where}; pip install 'hrvol[cpu]' there, or use the"
            " backend torch"
        )
    if backend == BFLOAT16 and not _bfloat16():
        raise DeviceError(
            f"backend: {backend}: found a processor without instructions for bfloat16 {where}, expected one"
            " with them, or the backend openvino"
        )


def backend_versions(backend: str) -> dict[str, str]:
    """Return the versions of the packages that a backend needs besides torch."""
    return {} if backend == TORCH else {_PACKAGE: version(_PACKAGE)}


def compiled(model: Any, backend: str) -> Any:
    """Return an OpenVINO model compiled for one thread of the CPU.

    A thread computes on one core and is not bound to it: other threads and processes have the others. So the
    bits of its results do not depend on the number of cores.

    Parameters
    ----------
    model
        An ``openvino.Model``.
    backend
        ``openvino`` or ``openvino-bf16``.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if backend == BFLOAT16 else "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return _core().compile_model(model, "CPU", settings)


def _bfloat16() -> bool:
    """Return whether OpenVINO multiplies bfloat16 numbers on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    from openvino import Core

    return Core()
