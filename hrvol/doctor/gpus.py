"""Check the GPUs that torch can use against those that the driver lists."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from hrvol.doctor.health import Check, State
from hrvol.errors import one_line
from hrvol.progress import format_size

DRIVERS = {12: 525, 13: 580}
"""Oldest driver on Linux for a CUDA version."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch lists: memory in bytes, and the reason why it cannot compute, if so."""

    name: str
    uuid: str
    memory: int
    free: int
    capability: tuple[int, int]
    error: str | None = None


@dataclass(frozen=True)
class Torch:
    """CUDA version that torch is built for, its GPUs, and the reason why there are none."""

    cuda: str | None
    gpus: tuple[Gpu, ...]
    error: str | None


def probe_torch() -> Torch:
    """Return the GPUs that torch lists, each tested with a small product; call it in another process."""
    import torch

    if torch.version.cuda is None:
        return Torch(None, (), "torch is built without CUDA")
    if torch.cuda.is_available():
        return Torch(torch.version.cuda, tuple(map(_probe_gpu, range(torch.cuda.device_count()))), None)
    try:
        torch.empty(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        return Torch(torch.version.cuda, (), str(error).splitlines()[0].partition(". ")[0])
    return Torch(torch.version.cuda, (), "torch lists none")


def _probe_gpu(number: int) -> Gpu:
    import torch

    gpu = torch.cuda.get_device_properties(number)
    error, free = None, 0
    try:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if float((ones @ ones).sum()) != 64.0**3:
            error = "a product of matrices is wrong"
        free = int(torch.cuda.mem_get_info(number)[0])
    except RuntimeError as raised:  # no kernels for so old a GPU, or another process has all its memory
        error = one_line(raised)
    capability = (int(gpu.major), int(gpu.minor))
    return Gpu(gpu.name, f"GPU-{gpu.uuid}", int(gpu.total_memory), free, capability, error)


def query_driver() -> str | None:
    """Return lines ``driver, name, UUID, MiB`` of ``nvidia-smi``; ``None`` without a driver."""
    query = [
        "nvidia-smi",
        "--query-gpu=driver_version,name,uuid,memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check_gpus(torch: Torch, smi: str | None, visible: str | None, remedy: str) -> list[Check]:
    """Return a check of the driver and one of each GPU.

    Parameters
    ----------
    torch, smi
        Results of :func:`probe_torch` and :func:`query_driver`.
    visible
        ``CUDA_VISIBLE_DEVICES``, if it is set.
    remedy
        How to install a torch that can use GPUs.
    """
    listed = [[field.strip() for field in line.split(",")] for line in (smi or "").splitlines()]
    listed = [fields for fields in listed if len(fields) == 4]  # "No devices were found" is no GPU
    checks = [_check_driver(torch, listed[0][0] if listed else None)]
    for number, gpu in enumerate(torch.gpus):
        free = f"{format_size(gpu.free)} of {format_size(gpu.memory)} free"
        text = f"{gpu.name}, {free}, compute capability {'.'.join(map(str, gpu.capability))}, {gpu.uuid}"
        if gpu.error is None:
            checks.append(Check(f"GPU {number}", "ok", text))
        else:
            checks.append(Check(f"GPU {number}", "problem", f"{text}: {gpu.error}"))
    if torch.gpus:
        return checks
    names = ", ".join(f"{name} ({uuid})" for _, name, uuid, _ in listed)
    if not listed:
        gpu_check = Check("GPU", "missing", torch.error or "none found")
    elif visible is not None:
        gpu_check = Check("GPU", "missing", f"{names}: hidden by CUDA_VISIBLE_DEVICES={visible}")
    else:
        state: State = "problem" if torch.cuda else "missing"
        gpu_check = Check("GPU", state, f"{names}: torch cannot use it ({torch.error})", remedy)
    return [*checks, gpu_check]


def _check_driver(torch: Torch, driver: str | None) -> Check:
    build = f"torch is built for CUDA {torch.cuda}" if torch.cuda else "torch is built without CUDA"
    oldest = DRIVERS.get(int(torch.cuda.partition(".")[0]), 0) if torch.cuda else 0
    if driver is None:
        text = "found by torch alone" if torch.gpus else "none found"
        return Check("driver", "ok" if torch.gpus else "missing", f"{text}; {build}")
    if int(driver.partition(".")[0]) < oldest:
        remedy = f"install driver {oldest} or newer, or an older torch"
        return Check("driver", "problem", f"{driver}; {build}", remedy)
    return Check("driver", "ok", f"{driver}; {build}")
