"""Choose the device that computes features, and recognise failures of GPUs.

The driver resolves ``auto`` once. Workers never choose: a worker without the device of the run raises an
error instead of falling back to another one.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

from hrvol.errors import DeviceError, UsageError

LOG = logging.getLogger("hrvol.run")

DEVICES = ("auto", "cpu", "cuda")
"""Accepted values; ``auto`` is resolved to one of the others before anything is computed."""

GPU_PACKAGES = ("cupy", "cuml", "nvforest")
"""Packages that filters, fits and forests on a GPU need; only torch is part of a plain installation."""

_FAILED = {
    "torch": {"OutOfMemoryError", "AcceleratorError"},
    "cupy": {"OutOfMemoryError"},
    "cupy_backends": {"CUDARuntimeError", "CUDADriverError"},
}

_FULL = ("out of memory", "out_of_memory", "bad_alloc")

_CUDA_TEXTS = ("CUDA", "cudaError", "std::bad_alloc")  # of RMM and C++ libraries, which raise built-in types


@dataclass(frozen=True)
class DeviceChoice:
    """A device, ``cpu`` or ``cuda``, and the reason for the choice."""

    device: str
    why: str

    def __str__(self) -> str:
        return f"device: {self.device} ({self.why})"


def gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that torch can use in this process."""
    if "torch" not in sys.modules and not _has_driver():
        return ()  # importing torch takes three seconds, and it would find none
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _has_driver() -> bool:
    """Whether this machine has the library of the NVIDIA driver, without which torch finds no GPU."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def lacking() -> tuple[str, ...]:
    """Return those of :data:`GPU_PACKAGES` that are not installed."""
    return tuple(name for name in GPU_PACKAGES if find_spec(name) is None)


def no_gpu() -> str:
    """Describe for messages why torch has no GPU; torch is not imported for it."""
    package = find_spec("torch")
    if package is None or package.origin is None:
        return "torch is not installed"
    torch = run_path(str(Path(package.origin).with_name("version.py")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible!r}"
    built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
    return f"torch {torch['__version__']}, {built}, sees no GPU{limited}"


def check_gpu() -> None:
    """Raise a :class:`DeviceError` if this process has no GPU."""
    if not gpus():
        raise _no_gpu_error()


def _no_gpu_error() -> DeviceError:
    return DeviceError(f"device: cuda: {no_gpu()} on {socket.gethostname()}; expected one, or device: cpu")


def choose_device(
    device: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> DeviceChoice:
    """Choose the device for work in this process.

    Parameters
    ----------
    device
        One of :data:`DEVICES`.
    see
        Returns the names of the GPUs; called only if they matter.
    lack
        Returns the missing packages; ``auto`` chooses a GPU only if there are none.

    Raises
    ------
    UsageError
        ``device`` is not one of :data:`DEVICES`.
    DeviceError
        ``device`` is ``cuda``, and there is no GPU.
    """
    if device not in DEVICES:
        raise UsageError(f"device: expected {', '.join(DEVICES)}, got {device!r}")
    if device == "cpu":
        return DeviceChoice("cpu", "as requested")
    names = see()
    if device == "cuda" and not names:
        raise _no_gpu_error()
    if not names:
        return DeviceChoice("cpu", no_gpu())
    if device == "auto" and (missing := lack()):
        return DeviceChoice("cpu", f"{names[0]} needs {', '.join(missing)} too: pip install 'hrvol[gpu]'")
    return DeviceChoice("cuda", f"{names[0]}{f', the first of {len(names)}' if len(names) > 1 else ''}")


def this_gpu() -> str:
    """Return the UUID of the GPU of this process, or raise a :class:`DeviceError` if it has none."""
    check_gpu()
    import torch

    # torch reports the UUID of the whole GPU for each of its MIG instances.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(0).uuid)


def device_failure(error: BaseException | None) -> str | None:
    """Describe the failure of a GPU that an error or one of its causes reports; ``None`` without one.

    Errors of torch, CuPy and RMM are recognised by the names of their types, so none of them is imported.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind, text = type(error), str(error)
        named = kind.__name__ in _FAILED.get(kind.__module__.partition(".")[0], ())
        # torch and RMM also raise built-in types.
        if named or (kind in (RuntimeError, MemoryError) and any(word in text for word in _CUDA_TEXTS)):
            full = kind.__name__ == "OutOfMemoryError" or any(word in text for word in _FULL)
            return "the GPU had no memory left" if full else "the GPU failed"
        error = error.__cause__ or error.__context__
    return None


def free_gpu_memory() -> None:
    """Release the GPU memory that torch caches in this process, if torch uses a GPU here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def cpus() -> int:
    """Return the number of CPUs that this process may use: its affinity and a container's quota limit it."""
    from joblib import cpu_count

    return int(cpu_count())
