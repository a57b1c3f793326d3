"""The Dask clusters that hrvol starts itself: processes of this machine, on CPUs or GPUs, and SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import LocalCluster, Nanny
from distributed.utils import LoopRunner

from hrvol.engine.spec import CUDA_WORKER, IN_FLIGHT, EngineSpec
from hrvol.engine.task import one_line
from hrvol.errors import MissingExtraError

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""How glibc keeps memory that a worker gives back.

Dask has it hand back all but 64 KiB at once; then any array of more than 128 KiB has its pages mapped and
cleared anew, and the system works longer on that than workers do on blocks. What is kept here is at most
256 MiB, of arrays of 32 MiB at most.
"""

GPU_MEMORY = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""How torch keeps GPU memory: else what it has freed is in pieces when batches of another size come."""


def sigint_masked_loop() -> Any:
    """Return a running event loop whose processes do not hear Ctrl-C.

    A terminal sends it to all processes, but what becomes of blocks in progress is for the driver to say. The
    signals that a thread blocks are blocked in the processes that it starts, from their first moment.
    """
    resource_tracker.ensure_running()  # it unblocks them in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return runner


def root_cause(error: BaseException) -> str:
    """Return in one line what an exception, and those that it was raised from, began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


class _Nanny(Nanny):  # type: ignore[misc] # Dask has no types
    """Starts a worker process with :data:`ALLOCATOR`, where the environment does not say otherwise.

    Attributes
    ----------
    reason
        Why the process did not start: Dask only logs it, and its log is silent.
    """

    reason = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        wanted = ALLOCATOR | GPU_MEMORY
        self.pre_spawn_env |= {name: os.environ.get(name, value) for name, value in wanted.items()}

    async def instantiate(self) -> Any:
        """Start the process."""
        try:
            return await super().instantiate()
        except Exception as error:
            self.reason = root_cause(error)
            raise


def local_cluster(workers: int, loop: Any) -> LocalCluster:
    """Return so many worker processes of this machine, whose loop :func:`sigint_masked_loop` made."""
    return LocalCluster(
        loop=loop,
        worker_class=_Nanny,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,
        processes=True,
        dashboard_address=":0",  # with the next line: any free port, and nothing served there
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
        # A worker holds two blocks at a time and nothing between blocks. Dask's limit would pause
        # it for good where the memory is the network's own; the system's limit still holds.
        memory_limit=0,
    )


def cuda_cluster(spec: EngineSpec, workers: int, loop: Any) -> LocalCluster:
    """Return so many worker processes of this machine with a GPU each; the loop as for :func:`local_cluster`.

    Raises
    ------
    MissingExtraError
        dask-cuda is not installed.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise MissingExtraError(
            f"engine: cuda needs dask-cuda ({' '.join(str(error).split())}); pip install 'hrvol[gpu]'"
        ) from None
    cluster: LocalCluster = LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=list(spec.devices) or None,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,  # one has the GPU at a time: see hrvol.engine.task.computing
        memory_limit=0,
        device_memory_limit=None,  # what tasks return is never on a GPU: nothing to spill
        protocol="tcp",
        rmm_async=True,
        loop=loop,
        worker_class=_Nanny,
        dashboard_address=":0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )
    return cluster


def gpu_job(gpus: int) -> dict[str, Any]:
    """Return what a SLURM job with GPUs asks for: a process per GPU, and CPUs to read and write for it.

    Parameters
    ----------
    gpus
        GPUs of a job.
    """
    return {
        "processes": gpus,
        "cores": gpus,
        "job_cpu": 8 * gpus,
        "memory": f"{64 * gpus}GB",
        "worker_command": CUDA_WORKER,
        "job_extra_directives": [f"--gpus-per-node={gpus}"],
    }


def slurm_cluster(spec: EngineSpec) -> Any:
    """Return SLURM jobs, with a worker process per GPU or core unless ``processes`` says otherwise.

    Where the device is ``cuda``, jobs are those of :func:`gpu_job`; options overrule them. Directives are
    added to them, except that ones about GPUs take the place of theirs.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise MissingExtraError("engine: slurm needs dask-jobqueue; pip install 'hrvol[slurm]'") from None
    given = dict(spec.options)
    gpus = given.pop("gpus", 1)
    defaults: dict[str, Any] = {"cores": 1, "memory": "8GB"} if spec.device != "cuda" else gpu_job(gpus)
    options = {**defaults, **given}
    if spec.device == "cuda":
        mine, theirs = defaults["job_extra_directives"], given.get("job_extra_directives", [])
        says = any(directive.startswith(("--gpus", "--gres")) for directive in theirs)
        options["job_extra_directives"] = [*([] if says else mine), *theirs]
    options.setdefault("processes", options["cores"])
    # As many threads as tasks a worker is given, whatever the number of cores; and SLURM's limit of memory,
    # not one of Dask's that would pause a worker for good.
    always = ["--nthreads", str(IN_FLIGHT), "--memory-limit", "0"]
    if options.get("worker_command") == CUDA_WORKER:
        always.append("--rmm-async")
    options["worker_extra_args"] = [*always, *options.get("worker_extra_args", [])]
    wanted = ALLOCATOR | (GPU_MEMORY if spec.device == "cuda" else {})
    exports = [f'export {name}="${{{name}:-{value}}}"' for name, value in wanted.items()]
    configured = dask.config.get("jobqueue.slurm.job-script-prologue", None)
    options["job_script_prologue"] = [*exports, *(options.get("job_script_prologue", configured) or [])]
    cluster = SLURMCluster(silence_logs=logging.CRITICAL, **options)
    cluster.scale(jobs=spec.workers or 1)
    return cluster
