"""The Dask clusters that hrvol starts itself: processes of this machine, and SLURM jobs."""

from __future__ import annotations

import logging
import os
import signal
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import LocalCluster, Nanny
from distributed.utils import LoopRunner

from hrvol.errors import MissingExtraError
from hrvol.run.engine import EngineSpec

IN_FLIGHT = 2
"""Tasks under way per worker: one computes, one reads or writes."""

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""How glibc keeps memory that a worker gives back.

Dask has it hand back all but 64 KiB at once; then any array of more than 128 KiB has its pages mapped and
cleared anew, and the system works longer on that than workers do on blocks. What is kept here is at most
256 MiB, of arrays of 32 MiB at most.
"""


def deaf_runner() -> Any:
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


class _Nanny(Nanny):  # type: ignore[misc] # Dask has no types
    """Starts a worker process with :data:`ALLOCATOR`, where the environment does not say otherwise."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pre_spawn_env |= {name: os.environ.get(name, value) for name, value in ALLOCATOR.items()}


def local_cluster(workers: int, loop: Any) -> LocalCluster:
    """Return so many worker processes of this machine, whose loop :func:`deaf_runner` made."""
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


def slurm_cluster(spec: EngineSpec) -> Any:
    """Return SLURM jobs, each with a worker process per core unless ``processes`` says otherwise."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise MissingExtraError("engine: slurm needs dask-jobqueue; pip install 'hrvol[slurm]'") from None
    options = {"cores": 1, "memory": "8GB", **spec.options}
    options.setdefault("processes", options["cores"])
    # As many threads as tasks a worker is given, whatever the number of cores; and SLURM's limit of memory,
    # not one of Dask's that would pause a worker for good.
    always = ["--nthreads", str(IN_FLIGHT), "--memory-limit", "0"]
    options["worker_extra_args"] = [*always, *options.get("worker_extra_args", [])]
    exports = [f'export {name}="${{{name}:-{value}}}"' for name, value in ALLOCATOR.items()]
    configured = dask.config.get("jobqueue.slurm.job-script-prologue", None)
    options["job_script_prologue"] = [*exports, *(options.get("job_script_prologue", configured) or [])]
    cluster = SLURMCluster(silence_logs=logging.CRITICAL, **options)
    cluster.scale(jobs=spec.workers or 1)
    return cluster
