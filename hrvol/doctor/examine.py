"""What this machine is fit for: packages, GPUs, weights and room, engine by engine and extra by extra."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrvol.device import cpus
from hrvol.doctor.health import Capability, Check, Health, State
from hrvol.doctor.packages import (
    IsolatedProcess,
    MissingRequirement,
    Packages,
    conflicts,
    extras_of,
    find,
    import_module,
    installed,
    lacks,
)
from hrvol.errors import one_line
from hrvol.progress import format_size

PROGRAM = "hrvol"

NOT_FOR_USERS = ("dev", "test")

WATCHED: tuple[tuple[str, str, str, str], ...] = (
    ("torch", "torch", "torch", ""),
    ("cupy", "cupy-cuda13x", "cupy", "gpu"),
    ("cuml", "cuml-cu13", "cuml", "gpu"),
    ("nvforest", "nvforest-cu13", "nvforest", "gpu"),
    ("dask", "dask", "distributed", ""),
    ("dask-cuda", "dask-cuda", "dask_cuda", "gpu"),
    ("rmm", "rmm-cu13", "rmm", "gpu"),
    ("zarr", "zarr", "zarr", ""),
    ("s3fs", "s3fs", "s3fs", "io"),
    ("dask-jobqueue", "dask-jobqueue", "dask_jobqueue", "slurm"),
    ("napari", "napari", "napari", "napari"),
    ("CRF", "pydensecrf2", "pydensecrf.densecrf", "crf"),
)
"""Packages with a line of their own: label, name on PyPI, what is imported, and the extra that brings it."""

DRIVERS = {12: 525, 13: 580}
"""The oldest driver on Linux for a CUDA version."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it.

    Attributes
    ----------
    name, uuid
        Which one it is.
    memory, free
        Bytes.
    capability
        Compute capability, such as ``(8, 0)``.
    error
        Why it cannot compute, or ``None``.
    """

    name: str
    uuid: str
    memory: int
    free: int
    capability: tuple[int, int]
    error: str | None = None


@dataclass(frozen=True)
class Torch:
    """What torch says of GPUs.

    Attributes
    ----------
    cuda
        The CUDA version it is built for; ``None`` for a build without.
    gpus
        Those it sees.
    error
        Why it sees none.
    """

    cuda: str | None
    gpus: tuple[Gpu, ...]
    error: str | None


def examine(
    packages: Packages | None = None, watched: Sequence[tuple[str, str, str, str]] = WATCHED
) -> Health:
    """Look at everything; takes as long as importing all that is installed.

    Parameters
    ----------
    packages
        What is installed, if it is known.
    watched
        Packages that get a line of their own, as in :data:`WATCHED`.
    """
    packages = installed() if packages is None else packages
    with IsolatedProcess() as apart:
        torch, torch_error = apart(ask_torch)
        imports = {
            module: apart(import_module, module)[1]
            for _, name, module, _ in watched
            if find(name, packages) is not None
        }
        weights = _guarded("weights", lambda: _weights(apart))
    smi = ask_driver()
    core = lacks(PROGRAM, packages)
    extras = {name: lacks(PROGRAM, packages, name) for name in extras_of(PROGRAM, packages)}
    gpu_checks = check_gpus(
        torch or Torch(None, (), torch_error), smi, os.environ.get("CUDA_VISIBLE_DEVICES")
    )
    lines = [
        Check("Python", "ok", f"{platform.python_version()}, {sys.executable}, {platform.platform()}"),
        _core(core, packages),
        *(_package(label, name, module, extra, packages, imports) for label, name, module, extra in watched),
        *gpu_checks,
        *(
            Check("versions", "problem", f"{lack.by} needs {lack}", _remedy_of(lack))
            for lack in conflicts([PROGRAM, *(name for _, name, _, _ in watched)], packages)
            if not lack.by.startswith(f"{PROGRAM} ")  # those are on the line of hrvol
        ),
        weights,
        _guarded("disk", _disk),
        _guarded("memory", _memory),
    ]
    broken = {check.name: check.found for check in lines if check.state == "problem"}
    usable = bool(torch and any(gpu.error is None for gpu in torch.gpus))
    return Health(
        tuple(lines),
        engines(core, extras, broken, gpu=usable, sbatch=shutil.which("sbatch") is not None),
        tuple(
            Capability(name, tuple(map(str, lack)), _install(name) if lack else None)
            for name, lack in extras.items()
            if name not in NOT_FOR_USERS
        ),
    )


def engines(
    core: Sequence[MissingRequirement],
    extras: dict[str, tuple[MissingRequirement, ...]],
    broken: dict[str, str],
    *,
    gpu: bool,
    sbatch: bool,
) -> tuple[Capability, ...]:
    """Return what each engine lacks.

    Parameters
    ----------
    core, extras
        What hrvol and its extras want and do not find.
    broken
        Name of a check -> what is wrong.
    gpu, sbatch
        Whether there is a GPU to compute on, and SLURM's command.
    """

    def ability(name: str, extra: str | None, needs: Sequence[str], there: Sequence[str]) -> Capability:
        unmet = [f"the extra {extra}"] if extra and extras.get(extra) else []
        wrong = [f"{part}: {broken[part]}" for part in needs if part in broken]
        remedy = _install(extra) if unmet or core else None
        return Capability(name, (*map(str, core), *unmet, *wrong, *there), remedy)

    always = ("torch", "zarr")
    return (
        ability("serial", None, always, ()),
        ability("local", None, (*always, "dask"), ()),
        ability(
            "slurm",
            "slurm",
            (*always, "dask", "dask-jobqueue"),
            () if sbatch else ("sbatch, the command of SLURM, is not on PATH",),
        ),
        ability(
            "cuda",
            "gpu",
            (*always, "dask", "cupy", "cuml", "nvforest", "dask-cuda", "rmm", "versions"),
            () if gpu else ("a GPU that torch can use",),
        ),
    )


def ask_torch() -> Torch:
    """Return what torch says of GPUs, each tried with a small product; to be called in another process."""
    import torch

    if torch.version.cuda is None:
        return Torch(None, (), "torch is built without CUDA")
    if not torch.cuda.is_available():
        try:
            torch.empty(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            return Torch(torch.version.cuda, (), str(error).splitlines()[0].partition(". ")[0])
        return Torch(torch.version.cuda, (), "torch sees none")
    return Torch(torch.version.cuda, tuple(map(_try_gpu, range(torch.cuda.device_count()))), None)


def _try_gpu(number: int) -> Gpu:
    import torch

    known = torch.cuda.get_device_properties(number)
    error, free = None, 0
    try:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if float((ones @ ones).sum()) != 64.0**3:
            error = "a product of matrices came out wrong"
        free = int(torch.cuda.mem_get_info(number)[0])
    except RuntimeError as raised:  # no kernels for so old a GPU, or another process has all its memory
        error = one_line(raised)
    capability = (int(known.major), int(known.minor))
    return Gpu(known.name, f"GPU-{known.uuid}", int(known.total_memory), free, capability, error)


def ask_driver() -> str | None:
    """Return what ``nvidia-smi`` lists: ``driver, name, UUID, MiB`` a line; ``None`` without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = ["--query-gpu=driver_version,name,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run([program, *query], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check_gpus(torch: Torch, smi: str | None, visible: str | None) -> list[Check]:
    """Return a line for the driver, and one for each GPU.

    Parameters
    ----------
    torch
        What torch says.
    smi
        What the driver says, :func:`ask_driver`.
    visible
        ``CUDA_VISIBLE_DEVICES``, if it is set.
    """
    lines = [[part.strip() for part in line.split(",")] for line in (smi or "").splitlines()]
    there = [line for line in lines if len(line) == 4]  # "No devices were found" is not one
    driver = there[0][0] if there else None
    built = f"torch is built for CUDA {torch.cuda}" if torch.cuda else "torch is built without CUDA"
    oldest = DRIVERS.get(int(torch.cuda.partition(".")[0])) if torch.cuda else None
    checks = []
    if driver is None:
        found = "found by torch alone" if torch.gpus else "none found"
        checks.append(Check("driver", "ok" if torch.gpus else "missing", f"{found}; {built}"))
    elif oldest is not None and int(driver.partition(".")[0]) < oldest:
        checks.append(
            Check(
                "driver",
                "problem",
                f"{driver}; {built}",
                f"install driver {oldest} or newer, or an older torch",
            )
        )
    else:
        checks.append(Check("driver", "ok", f"{driver}; {built}"))
    for number, gpu in enumerate(torch.gpus):
        of = f"{format_size(gpu.free)} of {format_size(gpu.memory)} free"
        what = f"{gpu.name}, {of}, compute capability {'.'.join(map(str, gpu.capability))}, {gpu.uuid}"
        said = what if gpu.error is None else f"{what}: {gpu.error}"
        checks.append(Check(f"GPU {number}", "ok" if gpu.error is None else "problem", said))
    if torch.gpus:
        return checks
    if not there:
        return [*checks, Check("GPU", "missing", torch.error or "none found")]
    names = ", ".join(f"{name} ({uuid})" for _, name, uuid, _ in there)
    if visible is not None:
        return [*checks, Check("GPU", "missing", f"{names}: hidden by CUDA_VISIBLE_DEVICES={visible}")]
    state: State = "problem" if torch.cuda else "missing"
    return [*checks, Check("GPU", state, f"{names}: not seen by torch ({torch.error})", _install("gpu"))]


def _package(
    label: str, name: str, module: str, extra: str, packages: Packages, imports: dict[str, str | None]
) -> Check:
    package = find(name, packages)
    if package is None:
        return Check(label, "missing" if extra else "problem", "not installed", _install(extra))
    error = imports.get(module)
    if error is not None:
        return Check(label, "problem", f"{package.version} cannot be imported: {error}", _install(extra))
    return Check(label, "ok", package.version)


def _core(core: Sequence[MissingRequirement], packages: Packages) -> Check:
    package = find(PROGRAM, packages)
    version = "?" if package is None else package.version
    if core:
        return Check(PROGRAM, "problem", f"{version} lacks {', '.join(map(str, core))}", _install(""))
    return Check(PROGRAM, "ok", f"{version}, all that it needs is installed")


def _remedy_of(lack: MissingRequirement) -> str:
    gpu = any(
        lack.by.startswith((name, "rapids", "cudf", "raft"))
        for _, name, _, extra in WATCHED
        if extra == "gpu"
    )
    return _install("gpu") if gpu else f"pip install '{lack.requirement}'"


def _install(extra: str | None) -> str:
    return f"pip install '{PROGRAM}[{extra}]'" if extra else f"pip install {PROGRAM}"


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """Look, though what is looked with may itself be missing."""
    try:
        return look()
    except (ImportError, OSError) as error:
        return Check(name, "problem", one_line(error))


def cached_weights() -> tuple[list[str], str]:
    """Return the networks whose weights are cached, and where; to be called in another process."""
    from hrvol.features.weights.registry import cache_dir, list_weights

    return [known.name for known in list_weights() if known.cached], str(cache_dir())


def _weights(apart: IsolatedProcess) -> Check:
    answer, error = apart(cached_weights)
    if answer is None:
        return Check("weights", "problem", error or "")
    names, folder = answer
    if names:
        return Check("weights", "ok", f"{', '.join(names)} in {folder}")
    return Check("weights", "missing", f"none in {folder}", "hrvol weights fetch dinov2_vits14")


def _disk() -> Check:
    here = Path.cwd()
    return Check("disk", "ok", f"{format_size(shutil.disk_usage(here).free)} free in {here}")


def _memory() -> Check:
    import psutil

    from hrvol.planning.resources import free_memory

    total = psutil.virtual_memory().total
    return Check("memory", "ok", f"{format_size(free_memory())} of {format_size(total)} free, {cpus()} CPUs")
