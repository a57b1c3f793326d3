"""Start Dask clusters: processes of this machine, on CPUs or GPUs, and SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import LocalCluster, Nanny
from distributed.utils import LoopRunner, get_mp_context

from hrvol.engine.spec import CUDA_WORKER, IN_FLIGHT, EngineSpec
from hrvol.errors import MissingExtraError, one_line

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""How much freed memory glibc keeps in a worker.

By default Dask makes it return all but 64 KiB at once; then the pages of every array of more than 128 KiB are
mapped and cleared again, which takes longer than the work on blocks. These settings keep at most 256 MiB, of
arrays of up to 32 MiB.
"""

GPU_MEMORY = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""How torch keeps GPU memory: otherwise free memory is fragmented once batches of another size come."""


_OF_THE_DRIVER = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def sigint_masked_loop() -> Any:
    """Return a running event loop whose child processes ignore Ctrl-C, SIGHUP and SIGUSR1.

    A terminal, or a job system, sends them to all processes, but only the driver decides about the blocks in
    progress. Child processes inherit the signal mask of the thread that starts them.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_DRIVER)
    try:
        resource_tracker.ensure_running()  # later it would unblock SIGINT in the thread that starts workers
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_DRIVER)
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return runner


def root_cause(error: BaseException) -> str:
    """Return in one line the first exception of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


class _Nanny(Nanny):  # type: ignore[misc] # Dask has no types
    """Starts a worker process with :data:`ALLOCATOR`, which the environment overrides.

    The process has the environment variables of the driver at this moment, not those at the start of the
    process that it is forked from.

    Attributes
    ----------
    reason
        Why the process did not start; Dask only logs it, and its log is silenced.
    """

    reason = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        defaults = ALLOCATOR | GPU_MEMORY
        self.pre_spawn_env |= {name: os.environ.get(name, value) for name, value in defaults.items()}

    async def instantiate(self) -> Any:
        """Start the process."""
        self.env = {**os.environ, **self.env}  # type: ignore[has-type]
        try:
            return await super().instantiate()
        except Exception as error:
            self.reason = root_cause(error)
            raise


def local_cluster(spec: EngineSpec, workers: int, loop: Any) -> LocalCluster:
    """Return a cluster of worker processes on this machine; the loop is from :func:`sigint_masked_loop`.

    Workers are forked from a process that imports ``spec.imports`` once: with several workers, or when one is
    replaced, the imports are not repeated. That process has a single thread, so that forking is safe.
    """
    context = get_mp_context()
    if spec.imports:
        context.set_forkserver_preload(list(spec.imports))
    return LocalCluster(
        loop=loop,
        worker_class=_Nanny,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,
        processes=True,
        dashboard_address=":0",  # any free port; the next line disables the dashboard itself
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
        # A worker holds two blocks at a time and nothing between blocks. Dask's limit would pause it
        # forever if the network alone exceeds it; the system's limit still applies.
        memory_limit=0,
    )


def cuda_cluster(spec: EngineSpec, workers: int, loop: Any) -> LocalCluster:
    """Return a cluster of worker processes on this machine with a GPU each; loop as in :func:`local_cluster`.

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
        threads_per_worker=IN_FLIGHT,  # one uses the GPU at a time: see hrvol.engine.task.computing
        memory_limit=0,
        device_memory_limit=None,  # results are never on a GPU: nothing to spill
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
    """Return options of a SLURM job with GPUs: a process per GPU, and CPUs to read and write for it.

    Parameters
    ----------
    gpus
        GPUs per job.
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
    """Return a cluster of SLURM jobs, with a worker process per GPU or core unless ``processes`` is given.

    On device ``cuda`` the defaults are those of :func:`gpu_job`; options override them. Directives are added
    to the default ones, except that directives about GPUs replace them.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise MissingExtraError("engine: slurm needs dask-jobqueue; pip install 'hrvol[slurm]'") from None
    requested = dict(spec.options)
    gpus = requested.pop("gpus", 1)
    defaults: dict[str, Any] = {"cores": 1, "memory": "8GB"} if spec.device != "cuda" else gpu_job(gpus)
    options = {**defaults, **requested}
    if spec.device == "cuda":
        directives = requested.get("job_extra_directives", [])
        names_gpus = any(directive.startswith(("--gpus", "--gres")) for directive in directives)
        default = [] if names_gpus else defaults["job_extra_directives"]
        options["job_extra_directives"] = [*default, *directives]
    options.setdefault("processes", options["cores"])
    # One thread per task in flight, whatever the number of cores; and SLURM's memory limit only, because
    # Dask's would pause a worker forever.
    worker_args = ["--nthreads", str(IN_FLIGHT), "--memory-limit", "0"]
    if options.get("worker_command") == CUDA_WORKER:
        worker_args.append("--rmm-async")
    options["worker_extra_args"] = [*worker_args, *options.get("worker_extra_args", [])]
    variables = ALLOCATOR | (GPU_MEMORY if spec.device == "cuda" else {})
    exports = [f'export {name}="${{{name}:-{value}}}"' for name, value in variables.items()]
    configured = dask.config.get("jobqueue.slurm.job-script-prologue", None)
    options["job_script_prologue"] = [*exports, *(options.get("job_script_prologue", configured) or [])]
    cluster = SLURMCluster(silence_logs=logging.CRITICAL, **options)
    cluster.scale(jobs=spec.workers or 1)
    return cluster
