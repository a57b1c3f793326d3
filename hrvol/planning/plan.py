"""Hold the forecast of a run, and check it against free memory and disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hrvol.errors import ResourceError
from hrvol.progress import format_size


@dataclass(frozen=True)
class StudentPlan:
    """Estimate of the same run with a student of its model.

    Attributes
    ----------
    size
        Name of the student's size.
    kflop
        Thousands of floating-point operations of its network per voxel.
    network_s
        Seconds of one thread (or of the GPU) for its network, per voxel.
    seconds
        Of the whole run with the same workers, from its first block on.
    distil_s
        Of distilling it before that, with the defaults of :func:`hrvol.distil_model` and this size.
    worker_memory
        Peak bytes of a worker process.
    """

    size: str
    kflop: float
    network_s: float
    seconds: float
    distil_s: float
    worker_memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self) | {"hours": self.seconds / 3600, "estimated": True}


@dataclass(frozen=True)
class Plan:
    """Forecast of a run, in bytes, seconds and counts.

    Attributes
    ----------
    volume, output
        Input and output.
    engine, workers
        Engine and number of its workers.
    shape, block_shape
        Of the volume and of a block, (z, y, x) voxels.
    blocks, done
        Blocks to compute, and blocks that earlier runs computed.
    voxels
        Voxels to label.
    seconds
        Seconds of the whole run: ``start_s`` to prepare and to start workers, ``check_s`` to check finished
        blocks, ``segment_s`` for the blocks, ``pyramid_s`` for the coarser levels.
    block_s
        Seconds of one worker for a full block.
    by_workers
        ``(workers, seconds)`` of the whole run, for other numbers of workers too.
    read, wanted
        Bytes of input decoded, and bytes of the labelled voxels.
    worker_memory, shared_memory, driver_memory
        Peak bytes of a worker process, the part of it that all workers share (libraries), and bytes of the
        driver process.
    memory_needed, memory_free, memory_where
        Bytes needed, bytes free (``None``: unknown), and where.
    gpu_needed, gpu_free
        The same for a worker's GPU; ``None`` on CPUs.
    output_bytes, disk_free
        Bytes to write, and bytes free on the disk; ``None``: unknown.
    files, files_free
        The same in files (objects in a bucket).
    load, cpus
        Load average of this machine during the measurement, and usable CPUs.
    notes
        Remarks, in sentences.
    machinery_s
        Seconds per voxel that a worker spends on reading and storing.
    students
        Estimates of the same run with students of the model; empty if it is a student.
    decodes
        How often a chunk of the input is decoded on average; 0 where values are plain bytes.
    cache, scratch
        Bytes of decoded chunks that a worker keeps, and the folder of the file in which it does; ``None``: in
        memory.
    """

    volume: str
    output: str
    engine: str
    workers: int
    shape: tuple[int, int, int]
    block_shape: tuple[int, int, int]
    blocks: int
    done: int
    voxels: int
    start_s: float
    check_s: float
    segment_s: float
    pyramid_s: float
    block_s: float
    by_workers: tuple[tuple[int, float], ...]
    read: int
    wanted: int
    worker_memory: int
    shared_memory: int
    driver_memory: int
    memory_needed: int
    memory_free: int | None
    memory_where: str
    gpu_needed: int | None
    gpu_free: int | None
    output_bytes: int
    disk_free: int | None
    files: int
    files_free: int | None
    load: float
    cpus: int
    notes: tuple[str, ...]
    machinery_s: float = 0.0
    students: tuple[StudentPlan, ...] = ()
    decodes: float = 0.0
    cache: int = 0
    scratch: str | None = None

    @property
    def seconds(self) -> float:
        """Wall time of the whole run."""
        return self.start_s + self.check_s + self.segment_s + self.pyramid_s

    @property
    def voxels_per_s(self) -> float:
        """Voxels labelled per second of wall time."""
        return self.voxels / self.seconds if self.seconds > 0 else 0.0

    @property
    def read_amplification(self) -> float:
        """How often a byte of input is decoded, on average."""
        return self.read / self.wanted if self.wanted else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the forecast as JSON values."""
        values = asdict(self) | {
            "shape": list(self.shape),
            "block_shape": list(self.block_shape),
            "by_workers": [{"workers": n, "seconds": seconds} for n, seconds in self.by_workers],
            "notes": list(self.notes),
            "students": [student.to_dict() for student in self.students],
        }
        derived = ("seconds", "voxels_per_s", "read_amplification")
        return values | {name: getattr(self, name) for name in derived} | {"hours": self.seconds / 3600}


def check_resources(plan: Plan) -> None:
    """Raise an error if memory, disk space or the number of files does not suffice for a run.

    Raises
    ------
    ResourceError
        The message names the free and the needed amount.
    """
    if plan.memory_free is not None and plan.memory_needed > plan.memory_free:
        subject = "one worker takes" if plan.workers > 1 else "it takes"
        each = max(1, plan.worker_memory - plan.shared_memory)
        fits = (plan.memory_free - plan.driver_memory - plan.shared_memory) // each
        hint = f"; {fits} would fit" if plan.workers > 1 and fits > 0 else ""
        raise ResourceError(
            f"memory: found {format_size(plan.memory_free)} free {plan.memory_where},"
            f" needed {format_size(plan.memory_needed)} for {plan.workers} worker{'s' * (plan.workers > 1)}"
            f" ({subject} {format_size(plan.worker_memory)}{hint})"
        )
    if plan.disk_free is not None and plan.output_bytes > plan.disk_free:
        raise ResourceError(
            f"{plan.output}: found {format_size(plan.disk_free)} free on its disk,"
            f" needed {format_size(plan.output_bytes)}"
        )
    if plan.files_free is not None and plan.files > plan.files_free:
        raise ResourceError(
            f"{plan.output}: found room for {plan.files_free} files on its disk, needed {plan.files}"
        )
