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
    wanted: str,
    see: Callable[[], tuple[str, ...]] = gpus,
    lack: Callable[[], tuple[str, ...]] = lacking,
) -> tuple[EngineSpec, DeviceChoice]:
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
        As for :func:`choose_device`.

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
) -> DeviceChoice:
    if spec.serial or wanted not in DEVICES:
        return choose_device(wanted, see, lack)
    if spec.local_gpus:
        if wanted == "cpu":
            raise UsageError("device: engine: cuda computes on GPUs, got cpu; expected engine: local")
        choose_device("cuda", see)
        return DeviceChoice("cuda", "engine: cuda")
    if not spec.remote:
        if wanted == "cuda":
            if spec.workers != 1:
                raise UsageError(
                    "device: the workers of engine: local would share one GPU;"
                    " expected engine: cuda, with a worker for each, or workers: 1"
                )
            return choose_device(wanted, see)
        found = see() if wanted == "auto" else ()
        if found:
            return DeviceChoice(
                "cpu", f"engine: local; engine: cuda has a worker for each GPU, here {len(found)}"
            )
        return DeviceChoice("cpu", "as asked for" if wanted == "cpu" else no_gpu())
    if wanted != "auto":
        return DeviceChoice(wanted, "as asked for")
    if spec.name == "slurm" and not spec.scheduler_file:
        asks = spec.options.get("worker_command") == CUDA_WORKER or "gpus" in spec.options
        return (
            DeviceChoice("cuda", "the jobs ask for GPUs")
            if asks
            else DeviceChoice("cpu", "the jobs ask for no GPUs")
        )
    return DeviceChoice(
        "cpu", "workers of a cluster that runs already have to be asked for GPUs: device: cuda"
    )
