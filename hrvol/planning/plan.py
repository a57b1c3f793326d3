"""The figures of a run that has not begun, and whether there is room for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hrvol.errors import ResourceError


@dataclass(frozen=True)
class Plan:
    """What a run will take. Bytes, seconds, and numbers of things.

    Attributes
    ----------
    volume, output
        Where it reads and writes.
    engine, workers
        Who works.
    shape, block_shape
        Of the volume and of a block, (z, y, x) voxels.
    blocks, done
        Blocks to do, and blocks that earlier runs did.
    voxels
        Voxels to label.
    seconds
        Of the whole run: ``start_s`` to prepare and to start workers, ``check_s`` to check what is done,
        ``segment_s`` for the blocks, ``pyramid_s`` for the coarser levels.
    block_s
        That a worker computes a full block.
    by_workers
        ``(workers, seconds)`` of the whole run, for other numbers of workers too.
    read, wanted
        Bytes of input that are decoded, and bytes that the labelled voxels are.
    worker_memory, shared_memory, driver_memory
        Most that a worker process holds, how much of it is there once for all of them (libraries), and what
        the process that directs them holds for itself.
    memory_needed, memory_free, memory_where
        What has to fit, what there is (``None``: not known), and where.
    gpu_needed, gpu_free
        The same of a worker's GPU, a forecast; ``None`` where work is done on CPUs.
    output_bytes, disk_free
        What will be written, and what there is room for; ``None``: not known.
    files, files_free
        The same in files (objects in a bucket).
    load, cpus
        Processes that ran or waited on this machine when it was measured, and CPUs that may be used.
    notes
        What else one should know, in sentences.
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
        """Return all figures as JSON values."""
        found = asdict(self) | {
            "shape": list(self.shape),
            "block_shape": list(self.block_shape),
            "by_workers": [{"workers": n, "seconds": seconds} for n, seconds in self.by_workers],
            "notes": list(self.notes),
        }
        more = ("seconds", "voxels_per_s", "read_amplification")
        return found | {name: getattr(self, name) for name in more} | {"hours": self.seconds / 3600}


def check_resources(plan: Plan) -> None:
    """Refuse a run for which there is no room.

    Raises
    ------
    ResourceError
        Memory, disk space or the number of files does not suffice; the message has what there is and what is
        needed.
    """
    if plan.memory_free is not None and plan.memory_needed > plan.memory_free:
        one = "one worker takes" if plan.workers > 1 else "it takes"
        each = max(1, plan.worker_memory - plan.shared_memory)
        fits = (plan.memory_free - plan.driver_memory - plan.shared_memory) // each
        hint = f"; {fits} would fit" if plan.workers > 1 and fits > 0 else ""
        raise ResourceError(
            f"memory: found {size(plan.memory_free)} free {plan.memory_where},"
            f" needed {size(plan.memory_needed)} for {plan.workers} worker{'s' * (plan.workers > 1)}"
            f" ({one} {size(plan.worker_memory)}{hint})"
        )
    if plan.disk_free is not None and plan.output_bytes > plan.disk_free:
        raise ResourceError(
            f"{plan.output}: found {size(plan.disk_free)} free on its disk, needed {size(plan.output_bytes)}"
        )
    if plan.files_free is not None and plan.files > plan.files_free:
        raise ResourceError(
            f"{plan.output}: found room for {plan.files_free} files on its disk, needed {plan.files}"
        )


def size(nbytes: float) -> str:
    """Return bytes with three digits, e.g. ``1.23 GiB``."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}" if nbytes < 999.5 * unit else f"{nbytes / unit:.0f} {name}"
    return f"{nbytes:.0f} bytes"
