"""Check packages, GPUs, weights, disk and memory, and derive which engines and extras are ready."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hrvol.device import cpus
from hrvol.doctor.gpus import Torch, check_gpus, probe_torch, query_driver
from hrvol.doctor.health import Capability, Check, Health
from hrvol.doctor.isolated import IsolatedProcess, import_module
from hrvol.doctor.packages import Folders, MissingRequirement, conflicts, extras_of, find, lacks
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
"""Packages with a line of their own: label, name on PyPI, module, and the extra that installs it."""

_CPU = ("torch", "zarr")

ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "serial": ("", _CPU),
    "local": ("", (*_CPU, "dask")),
    "slurm": ("slurm", (*_CPU, "dask", "dask-jobqueue")),
    "cuda": ("gpu", (*_CPU, "dask", "cupy", "cuml", "nvforest", "dask-cuda", "rmm", "versions")),
}
"""The extra of each engine, and the checks in which it must have no problem."""


def examine(folders: Folders = None, watched: Sequence[tuple[str, str, str, str]] = WATCHED) -> Health:
    """Run all checks; this takes as long as importing all watched packages.

    Parameters
    ----------
    folders
        Where packages are installed, instead of ``sys.path``.
    watched
        Packages that get a line of their own, as in :data:`WATCHED`.
    """
    with IsolatedProcess() as isolated:
        torch, torch_error = isolated(probe_torch)
        imports = {
            module: isolated(import_module, module)[1]
            for _, name, module, _ in watched
            if find(name, folders) is not None
        }
        weights = _weights(*isolated(cached_weights))
    torch = torch or Torch(None, (), torch_error)
    core = lacks(PROGRAM, folders)
    extras = {name: lacks(PROGRAM, folders, name) for name in extras_of(PROGRAM, folders)}
    checks = (
        Check("Python", "ok", f"{platform.python_version()}, {sys.executable}, {platform.platform()}"),
        _core(core, folders),
        *(_package(*package, folders, imports) for package in watched),
        *check_gpus(torch, query_driver(), os.environ.get("CUDA_VISIBLE_DEVICES"), _install("gpu")),
        *(
            Check("versions", "problem", f"{unmet.by} needs {unmet}", _remedy_of(unmet))
            for unmet in conflicts([PROGRAM, *(name for _, name, _, _ in watched)], folders)
            if not unmet.by.startswith(f"{PROGRAM} ")  # these are in the check of hrvol
        ),
        weights,
        _guarded("disk", _disk),
        _guarded("memory", _memory),
    )
    problems = {check.name: check.found for check in checks if check.state == "problem"}
    gpu = any(gpu.error is None for gpu in torch.gpus)
    return Health(
        checks,
        engines(core, extras, problems, gpu=gpu, sbatch=shutil.which("sbatch") is not None),
        tuple(
            Capability(name, tuple(map(str, unmet)), _install(name) if unmet else None)
            for name, unmet in extras.items()
            if name not in NOT_FOR_USERS
        ),
    )


def engines(
    core: Sequence[MissingRequirement],
    extras: Mapping[str, Sequence[MissingRequirement]],
    problems: Mapping[str, str],
    *,
    gpu: bool,
    sbatch: bool,
) -> tuple[Capability, ...]:
    """Return what each engine lacks.

    Parameters
    ----------
    core, extras
        Unmet requirements of hrvol and of its extras.
    problems
        Name of a check -> its problem.
    gpu, sbatch
        Whether there is a GPU to compute on, and SLURM's command.
    """
    absent = {"slurm": (not sbatch, "sbatch, the command of SLURM, is not on PATH")}
    absent["cuda"] = (not gpu, "a GPU that torch can use")
    capabilities = []
    for name, (extra, needs) in ENGINES.items():
        unmet = [f"the extra {extra}"] if extras.get(extra) else []
        missing = [*map(str, core), *unmet, *(f"{one}: {problems[one]}" for one in needs if one in problems)]
        missing += [text for is_absent, text in [absent.get(name, (False, ""))] if is_absent]
        capabilities.append(Capability(name, tuple(missing), _install(extra) if unmet or core else None))
    return tuple(capabilities)


def _package(
    label: str, name: str, module: str, extra: str, folders: Folders, imports: Mapping[str, str | None]
) -> Check:
    package = find(name, folders)
    if package is None:
        return Check(label, "missing" if extra else "problem", "not installed", _install(extra))
    error = imports.get(module)
    if error is not None:
        return Check(label, "problem", f"{package.version} cannot be imported: {error}", _install(extra))
    return Check(label, "ok", package.version)


def _core(core: Sequence[MissingRequirement], folders: Folders) -> Check:
    package = find(PROGRAM, folders)
    version = "?" if package is None else package.version
    if core:
        return Check(PROGRAM, "problem", f"{version} lacks {', '.join(map(str, core))}", _install(""))
    return Check(PROGRAM, "ok", f"{version}, all requirements are installed")


def _remedy_of(unmet: MissingRequirement) -> str:
    names = tuple(name for _, name, _, extra in WATCHED if extra == "gpu")
    gpu = unmet.by.startswith((*names, "rapids", "cudf", "raft"))
    return _install("gpu") if gpu else f"pip install '{unmet.requirement}'"


def _install(extra: str) -> str:
    return f"pip install '{PROGRAM}[{extra}]'" if extra else f"pip install {PROGRAM}"


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check that may lack a package or a folder that it needs."""
    try:
        return check()
    except (ImportError, OSError) as error:
        return Check(name, "problem", one_line(error))


def cached_weights() -> tuple[list[str], str]:
    """Return the networks whose weights are cached, and the cache's folder; call it in another process."""
    from hrvol.features.weights.cache import cache_dir
    from hrvol.features.weights.registry import list_weights

    return [info.name for info in list_weights() if info.cached], str(cache_dir())


def _weights(cached: tuple[list[str], str] | None, error: str | None) -> Check:
    if cached is None:
        return Check("weights", "problem", error or "")
    names, folder = cached
    if names:
        return Check("weights", "ok", f"{', '.join(names)} in {folder}")
    return Check("weights", "missing", f"none in {folder}", "hrvol weights fetch dinov2_vits14")


def _disk() -> Check:
    folder = Path.cwd()
    return Check("disk", "ok", f"{format_size(shutil.disk_usage(folder).free)} free in {folder}")


def _memory() -> Check:
    import psutil

    from hrvol.memory import free_memory

    total = psutil.virtual_memory().total
    return Check("memory", "ok", f"{format_size(free_memory())} of {format_size(total)} free, {cpus()} CPUs")
