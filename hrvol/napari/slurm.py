"""Write the job script of a segmentation for SLURM."""

from __future__ import annotations

import re
import shlex
from importlib import resources

from hrvol.errors import UsageError
from hrvol.napari.requests import SegmentRequest

TEMPLATE = "slurm_array.sbatch"
"""A copy of ``workflows/slurm_array.sbatch``, which is not part of an installed package."""

_GIB = 2**30


def job_script(
    request: SegmentRequest, *, jobs: int = 8, cpus: int = 16, worker_memory: int | None = None
) -> str:
    """Return the script of a job array: each job computes its share of the blocks.

    Parameters
    ----------
    request
        The segmentation; its engine and workers are those of this machine, and are not used.
    jobs, cpus
        Number of jobs, and CPUs (and workers) of each.
    worker_memory
        Bytes of a worker by the plan; ``None``: 4 GiB.

    Raises
    ------
    UsageError
        A student is to be distilled first, which each job of the array would do.
    """
    if request.distil:
        raise UsageError(
            "job script: found a student to be distilled first, expected one that is: make it in the panel"
            " Distil, and choose it as the model"
        )
    text = resources.files("hrvol.napari").joinpath(TEMPLATE).read_text(encoding="utf-8")
    each = max(_GIB, worker_memory or 4 * _GIB)
    memory = -(-cpus * each * 5 // 4 // _GIB)
    values = {"array": f"1-{jobs}", "cpus-per-task": str(cpus), "mem": f"{memory}G"}
    for name, value in values.items():
        text = re.sub(rf"^(#SBATCH --{name}=)\S+", rf"\g<1>{value}", text, flags=re.MULTILINE)
    arguments = shlex.join([request.volume, request.output, request.model, *request.of_volume()])
    head, start, body = text.partition("set -euo pipefail\n")
    head = re.sub(
        r"#     sbatch slurm_array.sbatch .*\n",
        "#     sbatch THIS_FILE [more options of hrvol segment]\n",
        head,
    ).replace("labels.ome.zarr", shlex.quote(request.output))
    return f'{head}{start}set -- {arguments} "$@"\n{body}'
