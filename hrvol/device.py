"""Which device computes features, and whether workers with GPUs have one each.

What is asked for is made explicit once, by the driver: a worker never chooses, and one that cannot have the
device that the run is for says so instead of falling back to another.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from hrvol.errors import DeviceError, UsageError

LOG = logging.getLogger("hrvol.run")

DEVICES = ("auto", "cpu", "cuda")
"""What may be asked for; ``auto`` becomes one of the others before anything is computed."""

GPU_PACKAGES = ("cupy", "cuml", "nvforest")
"""What a GPU takes besides torch, which alone comes with a plain installation: filters, fits and forests."""

_FAILED = {
    "torch": {"OutOfMemoryError", "AcceleratorError"},
    "cupy": {"OutOfMemoryError"},
    "cupy_backends": {"CUDARuntimeError", "CUDADriverError"},
}

_FULL = ("out of memory", "out_of_memory", "bad_alloc")

_SAID = ("CUDA", "cudaError", "std::bad_alloc")  # by RMM and libraries in C++, whose errors are Python's own


@dataclass(frozen=True)
class DeviceChoice:
    """A device, ``cpu`` or ``cuda``, and why it is that one."""

    device: str
    why: str

    def __str__(self) -> str:
        return f"device: {self.device} ({self.why})"


def gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that torch can use in this process."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def lacking() -> tuple[str, ...]:
    """Return which of :data:`GPU_PACKAGES` are not installed."""
    return tuple(name for name in GPU_PACKAGES if find_spec(name) is None)


def no_gpu() -> str:
    """Return what is known of why there are none, for messages."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible!r}"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"torch {torch.__version__}, {built}, sees no GPU{limited}"


def check_gpu() -> None:
    """Raise a :class:`DeviceError` where this process has no GPU."""
    if not gpus():
        raise _none_here()


def _none_here() -> DeviceError:
    return DeviceError(f"device: cuda: {no_gpu()} on {socket.gethostname()}; expected one, or device: cpu")


def choose_device(
    wanted: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> DeviceChoice:
    """Return the device for work in this process.

    Parameters
    ----------
    wanted
        One of :data:`DEVICES`.
    see
        Returns the names of the GPUs there are; called if that matters.
    lack
        Returns what is not installed; without it ``auto`` leaves a GPU alone.

    Raises
    ------
    UsageError
        There is no such device.
    DeviceError
        A GPU is wanted, and there is none.
    """
    if wanted not in DEVICES:
        raise UsageError(f"device: expected {', '.join(DEVICES)}, got {wanted!r}")
    if wanted == "cpu":
        return DeviceChoice("cpu", "as asked for")
    found = see()
    if wanted == "cuda" and not found:
        raise _none_here()
    if not found:
        return DeviceChoice("cpu", no_gpu())
    if wanted == "auto" and (missing := lack()):
        return DeviceChoice("cpu", f"{found[0]} needs {', '.join(missing)} too: pip install 'hrvol[gpu]'")
    return DeviceChoice("cuda", f"{found[0]}{f', the first of {len(found)}' if len(found) > 1 else ''}")


def this_gpu() -> str:
    """Return the UUID of the GPU that this process computes on; :class:`DeviceError` where it has none."""
    check_gpu()
    import torch

    # Parts of a GPU that is shared out (MIG) would all name the whole.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(0).uuid)


def device_failure(error: BaseException | None) -> str | None:
    """Return in words how a GPU failed, from an error or what caused it; ``None`` where none did.

    Errors of torch, CuPy and RMM are known by the names of their types, without an import of any.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind, said = type(error), str(error)
        named = kind.__name__ in _FAILED.get(kind.__module__.partition(".")[0], ())
        # Also what torch and RMM raise as types of Python's own.
        if named or (kind in (RuntimeError, MemoryError) and any(word in said for word in _SAID)):
            full = kind.__name__ == "OutOfMemoryError" or any(word in said for word in _FULL)
            return "the GPU had no memory left" if full else "the GPU failed"
        error = error.__cause__ or error.__context__
    return None


def free_gpu_memory() -> None:
    """Give back what torch keeps of the GPU's memory in this process, if it is in use here at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
