"""Segment a volume with SLURM jobs that this script submits: on GPUs or, with --cpu, on CPU nodes.

    python slurm_gpu.py volume.ome.zarr labels.ome.zarr phases.hrvol --queue gpu --jobs 16
    python slurm_gpu.py volume.ome.zarr labels.ome.zarr phases.hrvol --queue cpu --jobs 32 --cpu 4

Run it on a machine where it can stay until the end: slurm_gpu.sbatch runs it as a job. Copy it and adapt it
to your cluster; the options may contain every keyword of dask-jobqueue's SLURMCluster.
"""

import argparse
import logging
import sys
from functools import cache
from typing import Any

import hrvol
from hrvol.errors import HrvolError

LOG = logging.getLogger("slurm_gpu")


def gpu_job(gpus: int) -> dict[str, Any]:
    """Return options of a job with GPUs: a process per GPU, and CPUs to read, decode and write for it.

    hrvol adds dask-cuda, which gives each process a GPU of its own, and the directive ``--gpus-per-node``. If
    your cluster names GPUs otherwise, add ``"job_extra_directives": [f"--gres=gpu:a100:{gpus}"]``, which
    replaces that directive.
    """
    return {"gpus": gpus, "job_cpu": 8 * gpus, "memory": f"{64 * gpus}GB"}


def cpu_job(cpus: int) -> dict[str, Any]:
    """Return options of a job without GPUs: a process per CPU."""
    return {"processes": cpus, "cores": cpus, "memory": f"{4 * cpus}GB"}


@cache
def log_once(message: str) -> None:
    """Log a message the first time it occurs."""
    LOG.info("%s", message)


def log_progress(stage: str, done: float, total: float) -> None:
    """Log the progress in percent; called often."""
    log_once(f"{stage}: {100 * done / max(total, 1):.0f} %")


def main() -> int:
    """Segment; return the exit code: 75 if the run was stopped and can be resumed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("volume", "out", "model"):
        parser.add_argument(name)
    parser.add_argument("--jobs", type=int, default=4, help="worker jobs")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs per job, where jobs get whole nodes")
    parser.add_argument("--cpu", type=int, metavar="CPUS", help="CPUs per job, instead of GPUs")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--walltime", default="24:00:00", help="time limit of worker jobs, like the driver's")
    parser.add_argument("--interface", help="network interface that the nodes share, such as ib0")
    arguments = parser.parse_args()
    # Not the root logger: Dask would log workers as "lost" when they end.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for logger in (LOG, logging.getLogger("hrvol")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

    options = cpu_job(arguments.cpu) if arguments.cpu else gpu_job(arguments.gpus)
    options |= {"walltime": arguments.walltime, "log_directory": "hrvol-workers"}
    options |= {name: getattr(arguments, name) for name in ("queue", "interface") if getattr(arguments, name)}
    try:
        with hrvol.stop_signals(ends=True) as stop:
            report = hrvol.segment_volume(
                *(arguments.volume, arguments.out, arguments.model),
                engine="slurm",
                workers=arguments.jobs,
                engine_options=options,
                device="cpu" if arguments.cpu else "cuda",
                progress=log_progress,
                stop=stop,
            )
    except HrvolError as error:
        LOG.error("%s", error)
        return error.exit_code
    for failure in report.failed:
        LOG.error("%s", failure)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
