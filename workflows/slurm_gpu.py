"""Segment a volume with SLURM jobs that this script submits: on GPUs, or with --cpu on CPU nodes.

    python slurm_gpu.py volume.ome.zarr labels.ome.zarr phases.hrvol --queue gpu --jobs 16
    python slurm_gpu.py volume.ome.zarr labels.ome.zarr phases.hrvol --queue cpu --jobs 32 --cpu 4

Run it where it may stay as long as the work takes: slurm_gpu.sbatch runs it in a job of its own. Copy it and
change what your cluster needs; every keyword of dask-jobqueue's SLURMCluster can be among the options.
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
    """Return what a job with GPUs asks for: a process per GPU, and CPUs to read, decode and write for it.

    hrvol adds what starts them: dask-cuda, which gives each process a GPU of its own, and the directive
    ``--gpus-per-node``. Where your cluster names GPUs otherwise, add
    ``"job_extra_directives": [f"--gres=gpu:a100:{gpus}"]``: it takes that one's place.
    """
    return {"gpus": gpus, "job_cpu": 8 * gpus, "memory": f"{64 * gpus}GB"}


def cpu_job(cpus: int) -> dict[str, Any]:
    """Return what a job without GPUs asks for: a process per CPU."""
    return {"processes": cpus, "cores": cpus, "memory": f"{4 * cpus}GB"}


@cache
def say(news: str) -> None:
    """Log something, if it was not said before."""
    LOG.info("%s", news)


def tell(stage: str, done: float, total: float) -> None:
    """Log what has been done; called often."""
    say(f"{stage}: {100 * done / max(total, 1):.0f} %")


def main() -> int:
    """Segment; return the exit code: 75 where the run was stopped and can be resumed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("volume", "out", "model"):
        parser.add_argument(name)
    parser.add_argument("--jobs", type=int, default=4, help="worker jobs")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each, where nodes are given out whole")
    parser.add_argument("--cpu", type=int, metavar="CPUS", help="no GPUs, but so many CPUs for each job")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--walltime", default="24:00:00", help="of worker jobs: as long as the driver's")
    parser.add_argument("--interface", help="network interface that the nodes share, such as ib0")
    given = parser.parse_args()
    # A handler of its own: with a root handler Dask would tell of workers that are "lost" when they end.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for logger in (LOG, logging.getLogger("hrvol")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

    options = cpu_job(given.cpu) if given.cpu else gpu_job(given.gpus)
    options |= {"walltime": given.walltime, "log_directory": "hrvol-workers"}
    options |= {name: getattr(given, name) for name in ("queue", "interface") if getattr(given, name)}
    try:
        with hrvol.stop_signals(ends=True) as stop:
            report = hrvol.segment_volume(
                *(given.volume, given.out, given.model),
                engine="slurm",
                workers=given.jobs,
                engine_options=options,
                device="cpu" if given.cpu else "cuda",
                progress=tell,
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
