"""Which device computes features, and whether workers with GPUs have one each.

What is asked for is made explicit once, by the driver: a worker never chooses, and one that cannot have the
device that the run is for says so instead of falling back to another.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hrvol.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from hrvol.run.engine import EngineSpec

LOG = logging.getLogger("hrvol.run")

DEVICES = ("auto", "cpu", "cuda")
"""What may be asked for; ``auto`` becomes one of the others before anything is computed."""

CUDA_WORKER = "dask_cuda.cli"
"""What starts the workers of a SLURM job, each with a GPU of its own."""

_FAILED = {
    "torch": {"OutOfMemoryError", "AcceleratorError"},
    "cupy": {"OutOfMemoryError"},
    "cupy_backends": {"CUDARuntimeError", "CUDADriverError"},
}
_FULL = ("out of memory", "out_of_memory", "bad_alloc")
_SAID = ("CUDA", "cudaError", "std::bad_alloc")  # by RMM and libraries in C++, whose errors are Python's own


@dataclass(frozen=True)
class Choice:
    """A device, ``cpu`` or ``cuda``, and why it is that one."""

    device: str
    why: str

    def __str__(self) -> str:
        return f"device: {self.device} ({self.why})"


@dataclass(frozen=True)
class Seat:
    """The machine that a worker is on, and the UUID of the GPU that it computes on."""

    host: str
    uuid: str


def gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that torch can use in this process."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def lacking() -> tuple[str, ...]:
    """Return which packages of the extra ``gpu`` are missing that work on a GPU takes."""
    from hrvol.features import featuriser  # torch: only where it matters

    return featuriser.lacking()


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


def choose(
    wanted: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> Choice:
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
        return Choice("cpu", "as asked for")
    found = see()
    if wanted == "cuda" and not found:
        raise _none_here()
    if not found:
        return Choice("cpu", no_gpu())
    if wanted == "auto" and (missing := lack()):
        return Choice("cpu", f"{found[0]} needs {', '.join(missing)} too: pip install 'hrvol[gpu]'")
    return Choice("cuda", f"{found[0]}{f', the first of {len(found)}' if len(found) > 1 else ''}")


def place(
    spec: EngineSpec,
    wanted: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> tuple[EngineSpec, Choice]:
    """Settle on which device the workers of an engine compute.

    Parameters
    ----------
    spec
        The engine.
    wanted
        One of :data:`DEVICES`. ``auto`` is ``cuda`` for engine ``cuda``, for SLURM jobs that ask for GPUs,
        and in this process where torch sees a GPU; ``cpu`` for all else.
    see
        Returns the names of the GPUs of this machine; called if that matters.
    lack
        As for :func:`choose`.

    Returns
    -------
    tuple
        The engine with its device (and engine ``cuda`` with its number of workers), and the choice.

    Raises
    ------
    UsageError
        The engine does not go with the device.
    DeviceError
        A GPU of this machine is wanted, and there is none.
    """
    choice = _placed(spec, wanted, see, lack)
    workers = spec.workers
    if spec.local_gpus:
        most = len(spec.devices) or len(see())
        workers = workers or most
        if workers > most:
            raise UsageError(f"workers: engine: cuda has one for each GPU, found {most}, got {workers}")
    return replace(spec, device=choice.device, workers=workers), choice


def _placed(
    spec: EngineSpec,
    wanted: str,
    see: Callable[[], tuple[str, ...]],
    lack: Callable[[], tuple[str, ...]],
) -> Choice:
    if spec.serial or wanted not in DEVICES:
        return choose(wanted, see, lack)
    if spec.local_gpus:
        if wanted == "cpu":
            raise UsageError("device: engine: cuda computes on GPUs, got cpu; expected engine: local")
        choose("cuda", see)
        return Choice("cuda", "engine: cuda")
    if not spec.remote:
        if wanted == "cuda":
            if spec.workers != 1:
                raise UsageError(
                    "device: the workers of engine: local would share one GPU;"
                    " expected engine: cuda, with a worker for each, or workers: 1"
                )
            return choose(wanted, see)
        found = see() if wanted == "auto" else ()
        if found:
            return Choice("cpu", f"engine: local; engine: cuda has a worker for each GPU, here {len(found)}")
        return Choice("cpu", "as asked for" if wanted == "cpu" else no_gpu())
    if wanted != "auto":
        return Choice(wanted, "as asked for")
    if spec.name == "slurm" and not spec.scheduler_file:
        asks = spec.options.get("worker_command") == CUDA_WORKER or "gpus" in spec.options
        return Choice("cuda", "the jobs ask for GPUs") if asks else Choice("cpu", "the jobs ask for no GPUs")
    return Choice("cpu", "workers of a cluster that runs already have to be asked for GPUs: device: cuda")


def this_gpu() -> str:
    """Return the UUID of the GPU that this process computes on; :class:`DeviceError` where it has none."""
    check_gpu()
    import torch

    # Parts of a GPU that is shared out (MIG) would all name the whole.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(0).uuid)


def take_seat(identify: Callable[[], str]) -> Seat:
    """Return where this process is, and on which GPU, as ``identify`` tells."""
    return Seat(socket.gethostname(), identify())


def check_seats(seats: Mapping[str, Seat]) -> None:
    """Refuse workers that share a GPU; the :class:`DeviceError` names them and it.

    Parameters
    ----------
    seats
        By the workers' addresses.
    """
    taken: dict[Seat, str] = {}
    for worker, seat in sorted(seats.items()):
        other = taken.setdefault(seat, worker)
        if other != worker:
            raise DeviceError(
                f"GPU {seat.uuid} of {seat.host}: found two workers on it, {other} and {worker};"
                " expected one for each GPU"
            )


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
