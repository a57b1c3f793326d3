"""What runs over blocks have in common: what a job tells, how a worker reads its input, what it reports."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.errors import UnreadableError
from hrvol.quality.metrics import SeamDisagreement
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.chunk_cache import ChunkUses
from hrvol.volume.grid.tiling import Block, Box
from hrvol.volume.input_state import InputState, changed_files, input_state
from hrvol.volume.ome.pyramid import HasLevels
from hrvol.volume.volume import Reader, Volume


class BlockStore(HasLevels, Protocol):
    """An output that is written block by block."""

    @property
    def complete(self) -> bool:
        """Whether all blocks and coarser levels are done."""
        ...

    def object_checksums(self, indices: Sequence[Shape3]) -> list[tuple[str, ...]]:
        """Return a checksum of each object of each block; ``-`` for one that does not exist."""
        ...

    def erase(self, index: Shape3, which: Sequence[bool] | None = None) -> None:
        """Delete a block, or some of its objects."""
        ...

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change or add items of the provenance."""
        ...

    def declare(self, *, complete: bool) -> None:
        """Add the coarser levels to the metadata, and whether all blocks are done."""
        ...


class BlockJob(Protocol):
    """What workers need to compute any block of a run."""

    @property
    def volume(self) -> Volume:
        """The input."""
        ...

    @property
    def mask(self) -> Volume | None:
        """Mask of the input, of its shape."""
        ...

    @property
    def store(self) -> BlockStore:
        """The output."""
        ...

    @property
    def region(self) -> Box:
        """Only this box of the grid of blocks is computed."""
        ...

    @property
    def cache(self) -> CachePlan:
        """Where a worker keeps decoded chunks of the volume."""
        ...

    @property
    def mask_cache(self) -> CachePlan:
        """Where a worker keeps decoded chunks of the mask."""
        ...

    @property
    def key(self) -> str:
        """What identifies how its input is read."""
        ...

    def reads(self, block: Block) -> Box:
        """Return the box of the volume that a block is computed from."""
        ...

    def uses(self) -> ChunkUses:
        """Count the blocks that read each chunk of the volume."""
        ...

    def mask_uses(self) -> ChunkUses | None:
        """Count the blocks that read each chunk of the mask; ``None`` without one."""
        ...


@dataclass(frozen=True)
class BlockReport:
    """Result of a block.

    Attributes
    ----------
    index
        Its index in the grid of blocks.
    voxels, seconds
        Voxels labelled, and the seconds of computing them.
    counts
        Class value -> voxels.
    seams
        Disagreement of the block's tiles where they overlap, before blending; those of a student do not.
    checksum
        Checksum of the stored shards.
    objects
        Checksum of each of them.
    read
        Bytes of input chunks decoded since the worker's previous report.
    peak
        Peak memory of the worker process so far, in bytes.
    inputs
        :func:`inputs_digest` of the files that the block was computed from; 0 if unknown.
    """

    index: tuple[int, int, int]
    voxels: int
    seconds: float
    counts: Mapping[int, int]
    seams: SeamDisagreement
    checksum: str
    read: int
    peak: int
    objects: tuple[str, ...] = ()
    inputs: int = 0


def input_states(job: BlockJob, block: Block) -> tuple[InputState, InputState]:
    """Return the state of the files that a block is computed from: those of the volume, those of the mask."""
    mask = InputState() if job.mask is None else input_state(job.mask, block.core)
    return input_state(job.volume, job.reads(block)), mask


def inputs_digest(states: tuple[InputState, InputState]) -> int:
    """Return one number for both states; 0 if they are unknown."""
    return states[0].digest() ^ (states[1].digest() << 1 & 2**63 - 1)


def check_unchanged(job: BlockJob, block: Block, before: tuple[InputState, InputState]) -> int:
    """Return the digest of a block's input; raise :class:`UnreadableError` if it changed meanwhile."""
    after = input_states(job, block)
    changed = []
    for volume, one, other in zip((job.volume, job.mask), before, after, strict=True):
        changed += [] if volume is None else changed_files(volume, one, other)
    if changed:
        raise UnreadableError(f"{changed[0]}: found that it changed during the run, expected no change")
    return inputs_digest(before)


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    kilobyte = 1024 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


_readers: dict[str, JobReader] = {}  # at most one

_readers_lock = threading.Lock()


class JobReader:
    """Reads the volume of a job and its mask, and caches decoded chunks for later blocks."""

    def __init__(self, job: BlockJob) -> None:
        self._cache, self._mask_cache = job.cache.cache(), job.mask_cache.cache()
        self._uses, self._mask_uses = job.uses(), job.mask_uses()
        self._reported = 0
        self._lock = threading.Lock()

    def __call__(self, array: Any, selection: tuple[Any, ...]) -> NDArray[Any]:
        """Read a selection of the volume's array."""
        return self._cache.read(array, selection, self._uses)

    def of(self, state: InputState) -> Reader:
        """Return a reader that uses cached chunks only if their files are still in this state."""
        return lambda array, selection: self._cache.read(array, selection, self._uses, state.version)

    def mask(self, array: Any, selection: tuple[Any, ...]) -> NDArray[Any]:
        """Read a selection of the mask's array."""
        return self._mask_cache.read(array, selection, self._mask_uses)

    def newly_decoded(self) -> int:
        """Return the bytes of chunks decoded since the previous call."""
        with self._lock:
            before, self._reported = self._reported, self._cache.decoded_bytes
            return self._reported - before


def reader_of(job: BlockJob) -> JobReader:
    """Return this process's reader of the job's volume."""
    key = f"{job.key} {job.cache} {job.mask_cache}"
    with _readers_lock:
        if key not in _readers:
            _readers.clear()
            _readers[key] = JobReader(job)
        return _readers[key]


def forget_input() -> None:
    """Clear this process's cache of input: the volume may be rewritten before the next run."""
    with _readers_lock:
        _readers.clear()
