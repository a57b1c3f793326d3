"""Start Dask workers as SLURM jobs, and replace jobs that end before the run."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import dask
from distributed import Scheduler, Security
from distributed.utils import get_ip, get_ip_interface

from hrvol.engine.dask_servers import (
    ALLOCATOR,
    GPU_MEMORY,
    PrivateScheduler,
    PrivateWorker,
    root_cause,
)
from hrvol.engine.private import private_folder
from hrvol.engine.safe_path import SAFE_PATH
from hrvol.engine.spec import CUDA_WORKER, IN_FLIGHT, EngineSpec
from hrvol.errors import EngineError, MissingExtraError, UsageError
from hrvol.text import printable

LOG = logging.getLogger("hrvol.run")

SCRATCH = "HRVOL_SCRATCH"
"""Variable of a job script: the workers' private folder on the node."""

SUBMITTED_WITHIN = 25.0
"""Seconds for SLURM to accept the first job."""

JOB_SILENT = 20.0
"""Seconds without workers after which a job that had some counts as ended."""

JOB_CHECK = 20.0
"""Seconds between questions whether jobs without workers still exist."""

START_TRIES = 3
"""How often each job may end in a row before it starts a worker, and how often SLURM may refuse all jobs."""

_NOT_OPTIONS = {  # set by hrvol, or refused by dask-jobqueue
    *("self", "args", "kwargs", "job_kwargs", "base_class_kwargs", "loop", "security", "asynchronous"),
    *("silence_logs", "scheduler", "scheduler_cls", "job_cls", "n_workers", "dashboard_address", "host"),
}

_DEPRECATED = {"env_extra", "extra", "header_skip", "job_extra", "project"}

_ENDED = {"BF", "CA", "CD", "CG", "DL", "F", "NF", "OOM", "PR", "TO"}  # states of squeue


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
    options = _job_options(spec, cluster_class)
    options["scheduler_options"], options["scheduler_cls"] = _slurm_scheduler(options)
    keywords = {"silence_logs": logging.CRITICAL, "loop": loop, "security": security, **options}
    return cluster_class(**keywords)


def check_jobs(spec: EngineSpec) -> None:
    """Check the options of SLURM jobs without submitting one.

    Raises
    ------
    EngineError
        The options make no job script, or SLURM calls one of them invalid.
    MissingExtraError
        dask-jobqueue is not installed.
    UsageError
        There are no such options.
    """
    cluster_class = _slurm_cluster_class()
    options = _job_options(spec, cluster_class)
    try:
        place, _ = _slurm_scheduler(options)
        interface = place.get("interface") or (None if "host" in place else options.get("interface"))
        if interface:
            get_ip_interface(interface)
        accepted = _parameters(*cluster_class.job_cls.__mro__)
        keywords = {name: value for name, value in options.items() if name in accepted}
        job = cluster_class.job_cls(**{**keywords, "scheduler": "tls://scheduler:8786", "name": "job"})
        script = job.job_script()
    except (ArithmeticError, AttributeError, OSError, TypeError, ValueError) as error:
        raise EngineError(f"engine: slurm: {root_cause(error)}") from None
    with private_folder("hrvol-") as folder:
        (folder / "job.sh").write_text(script)
        words = ["sbatch", "--test-only", str(folder / "job.sh")]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=SUBMITTED_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return  # the submission itself tells more
    # Other reasons may pass: nodes that are down for a while, say.
    if done.returncode and re.search("invalid|unrecognized", done.stderr, re.IGNORECASE):
        raise EngineError(f"engine: slurm: sbatch: {_printed(done.stderr)}")


def _job_options(spec: EngineSpec, cluster_class: Any) -> dict[str, Any]:
    """Return dask-jobqueue's keywords for the jobs of an engine."""
    job_class = cluster_class.job_cls
    accepted = {"gpus", *_parameters(*cluster_class.__mro__, *job_class.__mro__)} - _NOT_OPTIONS
    unknown = [printable(name, 100) for name in spec.options if name not in accepted]
    if unknown:
        expected = ", ".join(sorted(accepted - _DEPRECATED))
        raise UsageError(f"engine options: found {', '.join(unknown)}, expected {expected}")
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
    if not (options.get("python") or dask.config.get("jobqueue.slurm.python", None)):
        options["python"] = shlex.quote(sys.executable)
    options["local_directory"] = f'"${SCRATCH}"'
    return options


def _parameters(*classes: type) -> set[str]:
    """Return the names of the keywords of dask-jobqueue's classes."""
    classes = tuple(one for one in classes if one.__module__.startswith("dask_jobqueue"))
    return {name for one in classes for name in inspect.signature(one.__init__).parameters}  # type: ignore[misc]


def _slurm_cluster_class() -> Any:
    """Return dask-jobqueue's ``SLURMCluster``, with paths quoted and the reasons of refused jobs kept."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
        from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise MissingExtraError("engine: slurm needs dask-jobqueue; pip install 'hrvol[slurm]'") from None
    finally:
        # Importing it installs a handler that ends the process with exit code 0.
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)

    class Job(SLURMJob):  # type: ignore[misc] # Dask has no types
        reason = ""  # why SLURM did not accept it

        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                self.reason = _complaint(error)
                raise

    class Cluster(SLURMCluster):  # type: ignore[misc]
        job_cls = Job

        def _get_worker_security(self, security: Security | None) -> Any:
            """Quote the paths of the keys, which are words of a shell's command in the job script."""
            security = copy.copy(super()._get_worker_security(security))
            for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
                path = getattr(security, name, None)
                if path is not None:
                    setattr(security, name, shlex.quote(path))
            return security

    return Cluster


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


class SlurmJobs:
    """The jobs of a cluster.

    Parameters
    ----------
    cluster
        From :func:`slurm_cluster`.
    count
        Number of jobs to have.
    """

    def __init__(self, cluster: Any, count: int) -> None:
        self._cluster, self._count = cluster, count
        self._seen: dict[Any, float] = {}  # when a job last had workers
        self._checked = time.monotonic()
        self._started = False  # whether a worker has ever started
        self._failed = 0  # jobs in a row that ended before a worker started
        self._refusals = 0  # checks in a row at which SLURM had accepted no job
        self._refused = ""  # the last reason

    def submit(self) -> None:
        """Submit all jobs.

        Raises
        ------
        EngineError
            SLURM does not accept the first one.
        """
        cluster = self._cluster
        cluster.worker_spec.update(cluster.new_worker_spec())  # scale() would leave its errors to the log
        try:
            cluster.sync(cluster._correct_state, callback_timeout=SUBMITTED_WITHIN)
        except (RuntimeError, ValueError, OSError) as error:
            silent = f"no answer in {SUBMITTED_WITHIN:.0f} s"
            reason = silent if isinstance(error, TimeoutError) else _complaint(error)
            raise EngineError(f"engine: slurm: sbatch: {reason}") from None
        cluster.scale(jobs=self._count)

    def replace_ended(self) -> None:
        """Replace jobs that have ended, by time limit or node failure, and submit refused ones again.

        Raises
        ------
        EngineError
            Jobs end before they start a worker, or SLURM accepts none any more.
        """
        cluster, now = self._cluster, time.monotonic()
        names = {str(state.name) for state in list(cluster.scheduler.workers.values())}
        idle = []
        for job in list(cluster.worker_spec):
            if any(name == str(job) or name.startswith(f"{job}-") for name in names):
                self._seen[job], self._started, self._failed = now, True, 0
            elif job not in self._seen or now - self._seen[job] > JOB_SILENT:
                idle.append(job)
        silent = any(job in self._seen for job in idle)
        if now - self._checked <= (min(JOB_SILENT, JOB_CHECK) if silent else JOB_CHECK):
            return
        self._checked = now
        refused = self._take_refused(idle)
        ended = self._ended(idle)
        failed = [number for job, number in ended.items() if job not in self._seen]
        self._failed += len(failed)
        if failed and self._failed >= (START_TRIES if self._started else 1) * self._count:
            raise EngineError(
                f"engine: slurm: job {failed[0]} ended before a worker started:"
                f" see slurm-{failed[0]}.out, or the file in log_directory"
            )
        if ended:
            LOG.warning("%d SLURM jobs ended before the run: submitting others", len(ended))
        for job in [*ended, *refused]:  # dask-jobqueue itself keeps a job until it is cancelled
            self._seen.pop(job, None)  # the name is used again
            cluster.worker_spec.pop(job)
            cluster.loop.add_callback(cluster.workers.pop, job, None)
        if ended or refused:
            cluster.scale(jobs=self._count)

    def _take_refused(self, jobs: Iterable[Any]) -> list[Any]:
        """Return the names of jobs that SLURM did not accept."""
        found = {name: self._cluster.workers.get(name) for name in jobs}
        refused = {name: job.reason for name, job in found.items() if job and not job.job_id}
        if not refused:
            self._refusals, self._refused = 0, ""
            return []
        reason = next(iter(refused.values()))
        self._refusals = self._refusals + 1 if len(refused) == len(self._cluster.worker_spec) else 0
        if self._refusals >= START_TRIES:
            raise EngineError(f"engine: slurm: sbatch: {reason} ({self._refusals} times)")
        level = logging.DEBUG if reason == self._refused else logging.WARNING  # a limit may last for days
        LOG.log(level, "SLURM refused %d jobs (%s): submitting them again", len(refused), reason)
        self._refused = reason
        return list(refused)

    def _ended(self, jobs: Iterable[Any]) -> dict[Any, str]:
        """Return names and numbers of those jobs that were accepted and do not wait or run any more."""
        found = {name: self._cluster.workers.get(name) for name in jobs}
        numbers = {name: job.job_id for name, job in found.items() if job and job.job_id}
        if not numbers:
            return {}
        words = ["squeue", "--noheader", "--jobs", ",".join(numbers.values()), "--format", "%A %t"]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=SUBMITTED_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired):  # no answer is no reason to end
            return {}
        if done.returncode and "Invalid job id" not in done.stderr:
            return {}
        states = [line.split() for line in done.stdout.splitlines()]
        alive = {words[0] for words in states if words and words[-1] not in _ENDED}
        return {name: number for name, number in numbers.items() if number not in alive}


def _complaint(error: Exception) -> str:
    """Return in one line what ``sbatch`` printed, from dask-jobqueue's error."""
    _, found, printed = str(error).partition("stderr:")
    return (_printed(printed) if found else "") or root_cause(error)


def _printed(text: str) -> str:
    """Return in one line what ``sbatch`` printed."""
    return printable(" ".join(text.split()).removeprefix("sbatch: error: "))
