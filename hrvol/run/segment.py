"""A whole volume labelled, block by block, on any engine: begun, stopped, gone on with, finished."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrvol.device import cpus
from hrvol.engine.placement import place
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import BlockError, DeviceError, InputError, UsageError
from hrvol.files import text
from hrvol.progress import ProgressCallback
from hrvol.recipe.specs import CrfSpec
from hrvol.run.job import MODEL_FILE, ModelSource, SegmentJob, forget_input, model_file
from hrvol.run.ledger import DONE, MAIN, Ledger
from hrvol.run.provenance import provenance
from hrvol.run.report import SegmentReport, stopped, sum_up
from hrvol.run.resume import begin_output, partition, recheck
from hrvol.run.run_blocks import run_blocks
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import check_available
from hrvol.segment.model.model import Model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import block_shape
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.region import Region, keep_input, region_box
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels, open_volume

LOG = logging.getLogger("hrvol.run")


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin: everything is checked, nothing is written.

    Attributes
    ----------
    model
        The model.
    location
        Of the output.
    job
        What workers are told; its store is not made yet.
    attributes
        What the output says about how it is made.
    """

    model: Model
    location: Location
    job: SegmentJob
    attributes: dict[str, Any] = field(repr=False)


def segment_volume(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    *,
    engine: str = "serial",
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    devices: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    crf: bool = False,
    roi: Region | None = None,
    mask: Any = None,
    level: int = 0,
    overwrite: bool = False,
    name: str = "hrvol",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> SegmentReport:
    """Label a volume with a trained model, block by block, into an OME-Zarr.

    An output that is there, unfinished, is gone on with if it was begun with the same input, model and
    settings: blocks that are done are checked and kept. One that is complete stays as it is.

    Parameters
    ----------
    volume
        A path, a URL, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``. Engines other than
        ``serial`` send what is neither to each worker as it is: large arrays belong on disk.
    out
        The OME-Zarr group to write, a path or URL; ``labels/<name>`` in it holds the result, in the volume's
        shape.
    model
        A model or its file.
    engine, workers, scheduler_file, engine_options
        Where the work is done, see :class:`hrvol.engine.spec.EngineSpec`. The labels are the same, bit for
        bit. A script that asks for ``local`` must keep its work under ``if __name__ == "__main__":``.
    device
        Where features are made, ``cpu``, ``cuda`` or ``auto``: see :func:`hrvol.engine.placement.place`. The
        output says which, and is gone on with on the same only: a GPU rounds otherwise.
    devices
        GPUs that engine ``cuda`` uses, as in ``CUDA_VISIBLE_DEVICES``, such as ``["0", "2"]``; ``None``: all.
    part
        ``(k, n)``: do the k-th of n parts of the blocks, from 1. The parts need nothing of each other, may
        run at once or one by one, on one machine or many; whichever is last finishes the output.
    probabilities
        Also write the classes' probabilities, uint8: 255 is certain.
    uncertainty
        Also write the entropy of the probabilities, uint8: 0 is certain, 255 is all classes equally likely.
    crf
        Refine each tile with a dense CRF, with the settings of the model's recipe or else the published ones.
        A recipe that has such settings is refined anyway. Needs the extra ``crf``.
    roi
        Label this region only, as ``(z, y, x)`` slices in voxels; the rest of the output stays 0. The same
        labels come out as from the whole volume.
    mask
        Label only voxels where this is not 0: labels or a mask of the volume's shape, as a path, URL or
        array. Blocks without any are not computed.
    level
        Resolution of a multiscale volume, 0 the finest; the output has its shape.
    overwrite
        Begin anew, deleting an output of hrvol's that is there.
    name
        Of the labels in ``out``.
    weights_path
        File with the network's weights, instead of the cache.
    offline
        Look for weights on this machine only.
    storage_options
        Keywords of the fsspec file system of URLs.
    stop
        Once requested, the blocks in progress are finished, and the run ends with :class:`StoppedError`; see
        :func:`hrvol.stop_signals`.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    SegmentReport
        Look at ``failed``: a block that fails does not end the run, but it is not in the output, and the
        output is not marked complete; the same call tries it again. If no block could be done, the output is
        removed.

    Raises
    ------
    InputError
        The volume cannot be read, or the model (:class:`ModelError`) is damaged or made with other weights.
    OutputExistsError
        Something is in the way: a run with other settings (:class:`OtherRunError`), somebody who is writing
        (:class:`BusyError`), anything that hrvol did not write.
    DeviceError
        A GPU is wanted and there is none, or two workers have the same.
    StoppedError
        The run was stopped and can be gone on with.
    BlockError
        The run was ended, because no other block would succeed.
    """
    asked_for = EngineSpec(
        engine, workers, text(scheduler_file), dict(engine_options or {}), tuple(devices or ())
    )
    spec, choice = place(asked_for, device)
    began = round(time.time(), 3)
    with ExitStack() as stack:
        ready = prepare(
            volume,
            out,
            model,
            stack,
            threads=cpus() if spec.serial else 1,
            probabilities=probabilities,
            uncertainty=uncertainty,
            crf=crf,
            roi=roi,
            mask=mask,
            level=level,
            name=name,
            weights_path=weights_path,
            offline=offline,
            storage_options=storage_options,
            device=spec.device,
            here=spec.serial,
        )
        job, opened = ready.job, ready.job.volume

        def create(go_on: bool) -> LabelStore:
            return create_labels(
                ready.location,
                opened,
                classes=ready.model.classes,
                block_shape=block_shape(opened.shape, ready.model.recipe.tiles),
                name=name,
                attributes=ready.attributes,
                probabilities=probabilities,
                uncertainty=uncertainty,
                go_on=go_on or part is not None,
            )

        store, was_there = begin_output(ready.location, ready.attributes, create, overwrite=overwrite)
        if spec.remote or isinstance(ready.model.classifier, ClusterClassifier):
            store.write_file(MODEL_FILE, Path(job.model_source.model_file).read_bytes())
        grid = BlockGrid(opened.shape, ready.model.recipe.tiles, opened.chunks)
        numbers = grid.inside(job.region)
        mine = partition(numbers, _checked(part))
        lane = MAIN if part is None else f"part-{part[0]}-of-{part[1]}"
        about = {"engine": spec.scheduler_file or spec.name, "workers": spec.workers}
        asked = stop or Stop()
        ledger = Ledger(ready.location, len(grid), lane, about)
        LOG.info("%s", choice)
        try:
            with ledger:
                if was_there:
                    if part is None:
                        ready.location.tidy()
                    recheck(ledger, store, grid, mine, progress)
                run_blocks(grid, numbers, mine, job, ledger, spec, asked, progress)
            report = sum_up(grid, numbers, mine, job, ledger, ready.model.classes, began)
        except Abandoned:
            raise stopped(asked, job, ledger, numbers) from None
        except (BlockError, DeviceError):
            _discard_if_empty(ledger, store, part)
            raise
        finally:
            forget_input()
    if report.failed:
        _discard_if_empty(ledger, store, part)
    return report


def _discard_if_empty(ledger: Ledger, store: LabelStore, part: tuple[int, int] | None) -> None:
    """Delete an output that nothing came of."""
    if part is None and not np.any(ledger.state.of_block == DONE):
        store.discard()


def prepare(
    volume: Any,
    out: str | Path | Location,
    model: str | Path | Model,
    stack: ExitStack,
    *,
    threads: int = 1,
    probabilities: bool = False,
    uncertainty: bool = False,
    crf: bool = False,
    roi: Region | None = None,
    mask: Any = None,
    level: int = 0,
    name: str = "hrvol",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    here: bool = True,
) -> PreparedRun:
    """Check what was asked for, before anything is written.

    Parameters
    ----------
    stack
        A model that has no file gets one while this lasts.
    threads
        Threads that share the classifier's work within one block.
    device
        Where features are made, ``cpu`` or ``cuda``.
    here
        Whether by this process. If not, it tries the network on the CPU, and takes no memory of a GPU.
    volume, out, model, probabilities, uncertainty, crf, roi, mask, level, name, weights_path, offline,
    storage_options
        As in :func:`segment_volume`.
    """
    opened = open_volume(located(volume, storage_options), level=level)
    location = Location.of(out, storage_options)
    region = region_box(roi, opened)
    keep_input(opened, location)
    masked = None if mask is None else _mask(located(mask, storage_options), opened)
    file, digest = model_file(model, stack)
    model_source = ModelSource(str(file.resolve()), digest, text(weights_path), offline, device)
    trying = model_source if here else replace(model_source, device="cpu")
    known, _ = trying.load()  # a wrong model or missing weights show before anything is written
    if not isinstance(model, Model):  # kept by its content, it may be from another file of the same bytes
        known = replace(known, source=model_source.model_file)
    refining = known.recipe.crf or (CrfSpec() if crf else None)
    if refining is not None:
        check_available()
    attributes = provenance(known, digest, opened, region, refining)
    attributes |= {
        "device": device,  # a GPU rounds otherwise
        "level": level,
        "mask": None if masked is None else masked.identity(),
        "outputs": {"labels": name, "probabilities": probabilities, "uncertainty": uncertainty},
    }
    job = SegmentJob(
        volume=opened,
        store=LabelStore(location, name),
        model_source=model_source,
        probabilities=probabilities,
        uncertainty=uncertainty,
        region=region,
        crf=refining,
        threads=threads,
        mask=masked,
    )
    return PreparedRun(known, location, job, json.loads(json.dumps(attributes)))


def _mask(mask: Any, volume: Volume) -> Volume:
    opened = open_labels(mask)
    if opened.shape != volume.shape:
        raise InputError(
            f"{opened.source}: found a mask of shape {opened.shape},"
            f" expected {volume.shape} as {volume.source}"
        )
    return opened


def _checked(part: tuple[int, int] | None) -> tuple[int, int] | None:
    if part is not None and not 1 <= part[0] <= part[1]:
        raise UsageError(f"part: found {part[0]}/{part[1]}, expected k/n with k from 1 to n")
    return part
