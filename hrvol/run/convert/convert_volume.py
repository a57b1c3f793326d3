"""Convert a volume of any format to an OME-Zarr image: block by block, on any engine, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.arrays import Shape3
from hrvol.engine.check import check_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, BusyError, EngineError
from hrvol.progress import ProgressCallback
from hrvol.run.block_job import forget_input
from hrvol.run.changed_input import changed_blocks, input_place
from hrvol.run.convert.compare import compare
from hrvol.run.convert.convert_block import ConvertJob, convert_block
from hrvol.run.convert.options import ConvertOptions, ImageOptions, Pyramid, Version
from hrvol.run.convert.prepare_conversion import begin_conversion, prepare_conversion
from hrvol.run.drive_blocks import Work, drive_blocks
from hrvol.run.ledger import LEDGER, Ledger, check_free, entries
from hrvol.run.ledger_entries import DONE, lane_of
from hrvol.run.report import FailedBlock, Run, stopped_error, summarise
from hrvol.run.resume import partition, recheck
from hrvol.volume.ome.converted import ConvertedImage
from hrvol.volume.region import Region
from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.run")


@dataclass(frozen=True)
class ConvertReport:
    """Result of a conversion, and of the earlier runs that it resumed.

    Attributes
    ----------
    shape, dtype, levels
        Of the image: voxels (z, y, x), type, number of resolution levels.
    voxels, before
        Voxels copied, and those of them that earlier runs copied.
    seconds
        Wall time of this run.
    failed
        Failed blocks (of a part: its own). The output is no image if there are any.
    left
        Number of blocks left to other parts of the run.
    complete
        Whether all is done.
    read
        Bytes of decoded input chunks; 0 if nothing was decoded.
    wanted
        Bytes of the voxels.
    peak
        Peak memory of a worker process, in bytes; 0 if this run copied nothing.
    verified
        Blocks that were compared with the input, and are equal.
    window
        Grey values that became 0 and 255; ``None``: values are kept.
    """

    shape: Shape3
    dtype: str
    levels: int
    voxels: int
    before: int
    seconds: float
    failed: tuple[FailedBlock, ...] = ()
    left: int = 0
    complete: bool = True
    read: int = 0
    wanted: int = 0
    peak: int = 0
    verified: int = 0
    window: tuple[float, float] | None = None

    @property
    def voxels_per_s(self) -> float:
        """Voxels copied per second of wall time, in this run."""
        return (self.voxels - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def read_amplification(self) -> float:
        """How often a byte of input was decoded, on average; 0 if nothing was decoded."""
        return self.read / self.wanted if self.wanted else 0.0


def convert_volume(
    volume: Any,
    out: str | Path | Location,
    *,
    ome_zarr: Version = "0.5",
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    compression: str | None = None,
    uint8: str | None = None,
    pyramid: Pyramid = "mean",
    roi: Region | None = None,
    level: int = 0,
    verify: bool = False,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    part: tuple[int, int] | None = None,
    scratch: str | Path | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> ConvertReport:
    """Convert a volume of any format that hrvol reads to an OME-Zarr image with coarser levels.

    Type, voxel size, unit and position are kept. An unfinished output is resumed if it was started with the
    same input and settings: finished blocks are checked and kept. A complete one is left as it is.

    Parameters
    ----------
    volume
        As for :func:`hrvol.segment_volume`; a volume of :func:`hrvol.open_volume` for options of reading.
    out
        The OME-Zarr group to write, a path or URL. It is an image when all is done.
    ome_zarr
        ``"0.5"`` (Zarr 3, with shards) or ``"0.4"`` (Zarr 2, without).
    chunks, shards
        Voxels (z, y, x), or (y, x) of an image, of a chunk and of a shard, a multiple of it: 64 x 64 x 64 in
        64 x 512 x 512 by default; less deep where a worker could not keep as many planes of the input, which
        are stored whole (not of a part). Shards of other chunks are about as large. In OME-Zarr 0.4
        ``shards`` are the boxes that tasks write.
    compression
        ``zstd`` (default, as labels), ``gzip``, ``blosc-zstd``, ``blosc-lz4``, with a level as in ``zstd:5``,
        or ``none``. Codecs of Blosc shuffle bytes, for values of more than 8 bits.
    uint8
        Map grey values to 8 bits: ``auto``, ``"LOW,HIGH"`` in grey values, or ``"LOW%,HIGH%"`` of a sample.
        The output records the values.
    pyramid
        How coarser levels are computed: ``mean``, ``mode`` (for labels), or ``none``: there are none.
    roi
        Copy this region only, as ``(z, y, x)`` slices in voxels; its position is recorded.
    level
        Resolution of a multiscale volume, 0 the finest.
    verify
        Read input and output again at the end, and compare the checksums of each block.
    engine, workers, scheduler_file, engine_options, part, storage_options
        As in :func:`hrvol.segment_volume`. Outputs with the same shards are bit-for-bit identical, whatever
        the engine.
    scratch
        As in :func:`hrvol.segment_volume`.
    overwrite
        Delete an earlier output of hrvol and start over.
    stop
        When requested, blocks in progress are finished and :class:`StoppedError` is raised.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    ConvertReport
        Check ``failed``: a failed block does not end the run; the same call tries it again.

    Raises
    ------
    UsageError
        An option cannot be used.
    InputError
        The volume cannot be read.
    OutputExistsError
        The output exists with other settings (:class:`OtherRunError`), is being written (:class:`BusyError`),
        or was not written by this function.
    StoppedError
        The run was stopped and can be resumed.
    BlockError
        No other block would succeed; or a block differs from the input, if ``verify``.
    """
    spec = EngineSpec(
        engine, workers, None if scheduler_file is None else str(scheduler_file), dict(engine_options or {})
    )
    given: Any = (ome_zarr, chunks, shards, compression, uint8, pyramid)
    options = ConvertOptions(
        spec, ImageOptions(*given), roi, level, part, scratch, verify, overwrite, storage_options
    )
    return convert(volume, out, options, stop, progress)


def convert(
    volume: Any,
    out: str | Path | Location,
    options: ConvertOptions,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> ConvertReport:
    """Convert a volume as :func:`convert_volume` does, with its keywords as one object."""
    began, stop = round(time.time(), 3), stop or Stop()
    # No features: no torch.
    spec = replace(options.engine, imports=("hrvol.engine.dask_engine", "hrvol.run.convert.convert_block"))
    check_engine(spec)
    options = replace(options, engine=spec)
    prepared = prepare_conversion(volume, out, options)
    job, location = prepared.job, prepared.location
    exists = begin_conversion(prepared, options)
    grid, store = job.grid, job.store
    blocks = grid.order()
    driver = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
    ledger = Ledger(location, len(grid), lane_of(options.part), driver)
    run = Run(grid, blocks, partition(blocks, options.part), job, ledger, input_place(job))
    report = _finished(run, began)
    try:
        if not _done_before(run, options):
            with ledger:
                if not _done_before(run, options):  # another part may have ended since
                    _copy(run, options, exists, stop, progress)
                    report = _report(run, began)
                    if options.verify and not report.failed:
                        report = replace(report, verified=compare(run, spec, stop, progress, again=ledger))
        if options.verify and report.complete and not report.verified:
            report = replace(report, verified=compare(run, spec, stop, progress))
    except Abandoned:
        raise stopped_error(run, stop) from None
    except (BlockError, EngineError):
        _discard_if_empty(run, options)
        raise
    finally:
        forget_input()
    if store.complete:
        _forget_ledger(location)
    elif report.failed:
        _discard_if_empty(run, options)
    return replace(report, seconds=time.time() - began)


def _done_before(run: Run, options: ConvertOptions) -> bool:
    """Whether nothing is left to do, besides a comparison of all blocks.

    A complete output has entries in its ledger only as long as drivers compare it, or were killed then.
    """
    store = run.job.store
    return store.complete and not (options.verify and any(True for _ in entries(store.location)))


def _copy(
    run: Run, options: ConvertOptions, exists: bool, stop: Stop, progress: ProgressCallback | None
) -> None:
    """Copy the blocks that are not stored, or not as the ledger has them, and build the coarser levels."""
    job, ledger = run.job, run.ledger
    source = job.volume.source
    if hint := job.cache.hint(source):
        LOG.warning("%s", hint)
    LOG.info("%s: %s", source, job.cache)
    if exists:
        if options.part is None:
            job.store.location.tidy()
        changed = changed_blocks(job, run.grid, ledger, run.own_blocks, run.place)
        recheck(ledger, job.store, run.grid, run.own_blocks, changed, progress=progress)
    drive_blocks(run, Work(convert_block, "convert"), options.engine, stop, progress)


def _finished(run: Run, began: float) -> ConvertReport:
    """Return the report of an output that was complete before."""
    store = run.job.store
    assert isinstance(store, ConvertedImage)
    assert isinstance(run.job, ConvertJob)
    layout = store.layout
    voxels = int(np.prod(layout.shape, dtype=np.int64))
    levels = len(store.images[0].resolutions)
    seconds = time.time() - began
    return ConvertReport(layout.shape, layout.dtype, levels, voxels, voxels, seconds, window=run.job.window)


def _report(run: Run, began: float) -> ConvertReport:
    """Add up the ledger."""
    found = summarise(run, (), began)
    return replace(
        _finished(run, began),
        voxels=found.voxels,
        before=found.before,
        failed=found.failed,
        left=found.left,
        complete=run.job.store.complete,
        read=found.read,
        wanted=found.wanted,
        peak=found.peak,
    )


def _discard_if_empty(run: Run, options: ConvertOptions) -> None:
    """Delete an output of which no block was done."""
    store = run.job.store
    if options.part is None and not store.complete and not np.any(run.ledger.state.of_block == DONE):
        store.location.remove()


def _forget_ledger(location: Location) -> None:
    """Delete the ledger of a complete output, unless another part of the run is about to end."""
    try:
        check_free(location)
    except BusyError:
        return
    while location.children(LEDGER):
        with suppress(FileNotFoundError):  # another part deletes it, too
            location.remove(LEDGER)
