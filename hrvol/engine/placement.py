"""Choose the device on which the workers of an engine compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hrvol.device import DEVICES, DeviceChoice, choose_device, gpus, lacking, no_gpu
from hrvol.engine.spec import CUDA_WORKER
from hrvol.errors import UsageError

if TYPE_CHECKING:
    from hrvol.engine.spec import EngineSpec


def place(
    spec: EngineSpec,
    requested: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> tuple[EngineSpec, DeviceChoice]:
    """Choose the device on which the workers of an engine compute.

    Parameters
    ----------
    spec
        The engine.
    requested
        One of :data:`DEVICES`. ``auto`` is ``cuda`` for engine ``cuda``, for SLURM jobs that request GPUs,
        and in this process where torch sees a GPU; otherwise ``cpu``.
    see
        Returns the names of the GPUs of this machine; called only if needed.
    lack
        As for :func:`choose_device`.

    Returns
    -------
    tuple
        The engine with its device (engine ``cuda``: also with its number of workers), and the choice.

    Raises
    ------
    UsageError
        The engine cannot use the device.
    DeviceError
        A GPU of this machine is requested, and it has none.
    """
    choice = _device_of_engine(spec, requested, see, lack)
    workers = spec.workers
    if spec.local_gpus:
        most = len(spec.devices) or len(see())
        workers = workers or most
        if workers > most:
            raise UsageError(f"workers: found {workers}, expected {most} at most, one for each GPU")
    return replace(spec, device=choice.device, workers=workers), choice


def _device_of_engine(
    spec: EngineSpec,
    requested: str,
    see: Callable[[], tuple[str, ...]],
    lack: Callable[[], tuple[str, ...]],
) -> DeviceChoice:
    if spec.serial or requested not in DEVICES:
        return choose_device(requested, see, lack)
    if spec.local_gpus:
        if requested == "cpu":
            raise UsageError("device: engine: cuda computes on GPUs: found cpu, expected engine: local")
        choose_device("cuda", see)
        return DeviceChoice("cuda", "engine: cuda")
    if not spec.remote:
        if requested == "cuda":
            if spec.workers != 1:
                raise UsageError(
                    "device: the workers of engine: local would share one GPU;"
                    " expected engine: cuda, with a worker for each, or workers: 1"
                )
            return choose_device(requested, see)
        gpu_names = see() if requested == "auto" else ()
        if gpu_names:
            return DeviceChoice(
                "cpu", f"engine: local; engine: cuda has a worker for each GPU, here {len(gpu_names)}"
            )
        return DeviceChoice("cpu", "as requested" if requested == "cpu" else no_gpu())
    if requested != "auto":
        return DeviceChoice(requested, "as requested")
    if spec.name == "slurm" and not spec.scheduler_file:
        if spec.options.get("worker_command") == CUDA_WORKER or "gpus" in spec.options:
            return DeviceChoice("cuda", "the jobs request GPUs")
        return DeviceChoice("cpu", "the jobs request no GPUs")
    return DeviceChoice("cpu", "workers of a running cluster use GPUs only with device: cuda")
