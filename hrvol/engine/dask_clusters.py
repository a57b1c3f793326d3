"""Start Dask clusters: processes of this machine, on CPUs or GPUs, and SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster, Scheduler, Security
from distributed.core import connect
from distributed.utils import LoopRunner, get_ip, get_mp_context, sync

from hrvol.engine.dask_servers import (
    ALLOCATOR,
    GPU_MEMORY,
    PrivateNanny,
    PrivateScheduler,
    PrivateWorker,
    root_cause,
)
from hrvol.engine.private import SAFE_PATH, prepare_sockets
from hrvol.engine.spec import CUDA_WORKER, IN_FLIGHT, EngineSpec
from hrvol.errors import EngineError, HrvolError, MissingExtraError
from hrvol.text import printable

SCRATCH = "HRVOL_SCRATCH"
"""Variable of a job script: the workers' private folder on the node."""

SUBMITTED_WITHIN = 25.0
"""Seconds for SLURM to accept the first job."""


def sigint_masked_loop() -> Any:
    """Return a running event loop whose child processes ignore Ctrl-C.

    A terminal sends SIGINT to all processes, but only the driver decides about the blocks in progress. Child
    processes inherit the signal mask of the thread that starts them.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal in this thread
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return runner


class _WithoutHttp:
    """Part of a cluster whose scheduler serves no HTTP."""

    async def _start(self) -> None:
        self.scheduler_spec = {**self.scheduler_spec, "cls": PrivateScheduler}  # type: ignore[has-type]
        await super()._start()  # type: ignore[misc]


class _LocalCluster(_WithoutHttp, LocalCluster):  # type: ignore[misc] # Dask has no types
    """Processes of this machine."""


def local_cluster(spec: EngineSpec, workers: int, loop: Any, security: Security) -> LocalCluster:
    """Return a cluster of worker processes on this machine, all of whose ports are on the loopback interface.

    Parameters
    ----------
    spec, workers
        The engine, and its number of processes.
    loop
        From :func:`sigint_masked_loop`.
    security
        Keys of the run.

    Notes
    -----
    Workers are forked from a process that imports ``spec.imports`` once: with several workers, or when one is
    replaced, the imports are not repeated. That process has a single thread, so that forking is safe.
    """
    prepare_sockets()
    context = get_mp_context()
    if spec.imports:
        context.set_forkserver_preload(list(spec.imports))
    return _LocalCluster(
        loop=loop,
        security=security,
        worker_class=PrivateNanny,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        # A worker holds two blocks at a time and nothing between blocks. Dask's limit would pause it
        # forever if the network alone exceeds it; the system's limit still applies.
        memory_limit=0,
    )


def cuda_cluster(spec: EngineSpec, workers: int, loop: Any, security: Security) -> LocalCluster:
    """Return a cluster of worker processes on this machine with a GPU each, as :func:`local_cluster` does.

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

    class Cluster(_WithoutHttp, LocalCUDACluster):  # type: ignore[misc]
        pass

    cluster: LocalCluster = Cluster(
        CUDA_VISIBLE_DEVICES=list(spec.devices) or None,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,  # one uses the GPU at a time: see hrvol.engine.task.computing
        memory_limit=0,
        device_memory_limit=None,  # results are never on a GPU: nothing to spill
        protocol="tls",
        security=security,
        rmm_async=True,
        loop=loop,
        worker_class=PrivateNanny,
        dashboard_address=None,
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


def connect_running(address: str, timeout: float, loop: Any) -> Client:
    """Return a client of a cluster that runs already, with the keys in Dask's configuration if there are any.

    Parameters
    ----------
    address
        Of the scheduler.
    timeout
        Seconds for an answer.
    loop
        From :func:`sigint_masked_loop`.

    Raises
    ------
    EngineError
        No scheduler answers, or its keys are missing.
    """
    try:
        arguments = Security().get_connection_args("client")
        if address.startswith("tls://") and arguments["ssl_context"] is None:
            raise EngineError(
                f"{address}: found no keys in Dask's configuration, expected distributed.comm.tls.ca-file,"
                " distributed.comm.tls.client.cert and distributed.comm.tls.client.key"
            )
        # Dask's client would wait forever for a port that accepts connections and never answers.
        sync(loop, _identify, address, timeout, arguments, callback_timeout=timeout)
        return Client(address, set_as_default=False, timeout=timeout, loop=loop)
    except HrvolError:
        raise
    except Exception as error:  # each protocol raises its own types
        silent = isinstance(error, TimeoutError)
        reason = f"nothing in {timeout:.0f} s" if silent else root_cause(error)
        raise EngineError(f"{address}: no Dask scheduler answers ({reason})") from None


async def _identify(address: str, timeout: float, arguments: dict[str, Any]) -> None:
    """Raise unless a scheduler answers."""
    comm = await connect(address, timeout=timeout, **arguments)
    try:
        await comm.write({"op": "identity", "reply": True})
        answer = await comm.read()
    finally:
        comm.abort()
    if not isinstance(answer, dict) or "workers" not in answer:
        raise ValueError("it is none")


def slurm_folder(spec: EngineSpec) -> str | None:
    """Return the folder, shared with the nodes, in which a run's keys are kept; ``None``: the current one."""
    configured = dask.config.get("jobqueue.slurm.shared-temp-directory", None)
    folder = spec.options.get("shared_temp_directory") or configured
    return None if folder is None else os.path.expanduser(os.path.expandvars(folder))


def slurm_cluster(spec: EngineSpec, loop: Any, security: Security) -> Any:
    """Return a cluster for SLURM jobs, with a worker process per GPU or core unless ``processes`` is given.

    On device ``cuda`` the defaults are those of :func:`gpu_job`; options override them. Directives are added
    to the default ones, except that directives about GPUs replace them. No job is submitted yet.

    Parameters
    ----------
    spec
        The engine.
    loop
        From :func:`sigint_masked_loop`.
    security
        Keys of the run, as paths of files that the nodes can read.
    """
    cluster_class = _slurm_cluster_class()
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
    worker_args += ["--worker-class", f"{PrivateWorker.__module__}.{PrivateWorker.__name__}"]
    if options.get("worker_command") == CUDA_WORKER:
        worker_args.append("--rmm-async")
    options["worker_extra_args"] = [*worker_args, *options.get("worker_extra_args", [])]
    options["job_script_prologue"] = _prologue(spec, options)
    options["local_directory"] = f'"${SCRATCH}"'
    options["scheduler_options"], options["scheduler_cls"] = _slurm_scheduler(options)
    keywords = {"silence_logs": logging.CRITICAL, "loop": loop, "security": security, **options}
    return cluster_class(**keywords)


def submit_jobs(cluster: Any, jobs: int) -> None:
    """Submit SLURM jobs.

    Raises
    ------
    EngineError
        SLURM does not accept the first one.
    """
    cluster.worker_spec.update(cluster.new_worker_spec())  # scale() would leave its errors to the log
    try:
        cluster.sync(cluster._correct_state, callback_timeout=SUBMITTED_WITHIN)
    except (RuntimeError, ValueError, OSError) as error:
        silent = f"no answer in {SUBMITTED_WITHIN:.0f} s"
        reason = silent if isinstance(error, TimeoutError) else _complaint(error)
        raise EngineError(f"engine: slurm: sbatch: {reason}") from None
    cluster.scale(jobs=jobs)


def ended_jobs(cluster: Any, names: Iterable[Any]) -> list[Any]:
    """Return those of a cluster's jobs that SLURM does not know any more; none if it does not answer."""
    numbers = {}
    for name in names:
        job = cluster.workers.get(name)
        if job is not None and job.job_id:
            numbers[name] = job.job_id
    if not numbers:
        return []
    words = ["squeue", "--noheader", "--jobs", ",".join(numbers.values()), "--format", "%A"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SUBMITTED_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode and "Invalid job id" not in done.stderr:
        return []
    known = done.stdout.split()
    return [name for name, number in numbers.items() if number not in known]


def start_failure(cluster: Any, names: Sequence[Any]) -> EngineError:
    """Return the error for jobs that ended before they started a worker."""
    number = cluster.workers[names[0]].job_id
    return EngineError(
        f"engine: slurm: job {number} ended before a worker started: see slurm-{number}.out,"
        " or the file in log_directory"
    )


def _complaint(error: Exception) -> str:
    """Return in one line what ``sbatch`` printed, from dask-jobqueue's error."""
    _, found, printed = str(error).partition("stderr:")
    text = " ".join(printed.split()).removeprefix("sbatch: error: ") if found else ""
    return printable(text) or root_cause(error)


def _slurm_cluster_class() -> Any:
    """Return dask-jobqueue's ``SLURMCluster``."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise MissingExtraError("engine: slurm needs dask-jobqueue; pip install 'hrvol[slurm]'") from None
    finally:
        # Importing it installs a handler that ends the process with exit code 0.
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
    return SLURMCluster


def _prologue(spec: EngineSpec, options: Mapping[str, Any]) -> list[str]:
    """Return the lines of a job script before the one that starts the workers."""
    variables = ALLOCATOR | (GPU_MEMORY if spec.device == "cuda" else {})
    exports = [f'export {name}="${{{name}:-{value}}}"' for name, value in variables.items()]
    configured = dask.config.get("jobqueue.slurm.job-script-prologue", None)
    requested = options.get("job_script_prologue", configured) or []
    parent = options.get("local_directory") or dask.config.get("jobqueue.slurm.local-directory", None)
    place = f'"{parent}"' if parent else '"${TMPDIR:-/tmp}"'
    scratch = [
        f"mkdir -p {place}",
        f"{SCRATCH}=$(mktemp -d -p {place} hrvol-XXXXXXXX) || exit 1",
        f"trap 'rm -rf \"${SCRATCH}\"' EXIT",
    ]
    return [*exports, f"export {SAFE_PATH}=1", *requested, *scratch]


def _slurm_scheduler(options: Mapping[str, Any]) -> tuple[dict[str, Any], type[Scheduler]]:
    """Return options and class of the scheduler: one interface, and HTTP for a requested dashboard only."""
    configured = dask.config.get("jobqueue.slurm.scheduler-options", {})
    requested = dict(options.get("scheduler_options") or configured or {})
    interface = options.get("interface") or dask.config.get("jobqueue.slurm.interface", None)
    if not interface and not requested.keys() & {"host", "interface", "contact_address"}:
        requested["host"] = get_ip()  # the address that jobs are given; otherwise it listens on all
    dashboard = requested.setdefault("dashboard_address", None)
    return requested, Scheduler if dashboard else PrivateScheduler
