"""Resume an output: compare its settings with those requested, and check what it stores."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.classes_of_objects import INSTANCES
from hrvol.errors import OtherRunError, OutputExistsError
from hrvol.progress import ProgressCallback
from hrvol.run.attribute_names import (
    ARITHMETIC,
    BACKEND,
    CLASS_WEIGHTS,
    CLEANING,
    COMPANION,
    DRIFT,
    FRACTIONS,
)
from hrvol.run.block_job import BlockStore
from hrvol.run.ledger import Ledger, check_free
from hrvol.run.ledger_entries import DONE
from hrvol.run.pyramid.pyramid_levels import levels_built, recheck_levels
from hrvol.text import printable
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.ome.documents import Documents, recorded_documents
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.ome.output import clear_output
from hrvol.volume.storage.location import Location, combined

LOG = logging.getLogger("hrvol.run")

DIFFERENCES_SHOWN = 3

_CHECKED_AT_ONCE = 128

# Paths of input and model are not compared, nor the versions a model was made with: digests are. How far
# planes are from the training pixels changes no label.
_NOT_COMPARED = (
    DRIFT,
    *("input.source", "mask.source", "model.source", "model.versions", "clusters"),
    *(f"{COMPANION}.source", f"{COMPANION}.versions"),
)


def begin_output(
    location: Location,
    attributes: Mapping[str, Any],
    create: Callable[[bool, Documents | None], LabelStore],
    *,
    overwrite: bool = False,
) -> tuple[LabelStore, bool]:
    """Create an output, or open the existing one to resume it.

    Parameters
    ----------
    location
        Of the output.
    attributes
        Its provenance; the settings in it are compared with those of an existing output, as
        :func:`check_output` does.
    create
        Called with whether the output exists, and the record of its metadata; creates what is missing.
    overwrite
        Whether to delete an existing output.

    Returns
    -------
    tuple
        The output, and whether it existed.

    Raises
    ------
    OtherRunError
        The output was started with other settings; the message names the first differences.
    OutputExistsError
        The path holds something else, or (:class:`BusyError`) another driver is writing the output.
    """
    if overwrite:
        clear_earlier(location)
    settings, written = check_output(location, attributes)
    exists = settings is not None
    return create(exists, written), exists


def clear_earlier(location: Location) -> None:
    """Delete an earlier output, which no other driver may be writing."""
    check_free(location)
    clear_output(location, True)


def check_output(
    location: Location, attributes: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, Documents | None]:
    """Check that a location is free, or has an output with the settings requested.

    Returns
    -------
    tuple
        The settings of the output, and the record of its metadata; ``None`` for what there is not.

    Raises
    ------
    OtherRunError
        The output was started with other settings; the message names the first differences.
    OutputExistsError
        The path holds something else.
    """
    stored, written = location.attributes(), recorded_documents(location)
    if stored is None and written is None and not location.occupied():
        return None, None
    kind = next((name for name in (CLEANING, INSTANCES) if name in attributes), "model")
    root = (stored or {}).get("hrvol")
    root = root if isinstance(root, Mapping) and kind in root else None
    if written is not None and kind not in written.provenance:
        written = None
    if root is None and written is None:
        what = "no Zarr, or damaged metadata" if stored is None else "no labels written by hrvol"
        raise OutputExistsError(f"{location}: found {what}, expected nothing there or a run to resume")
    # The record has a checksum. Where it differs, a root with just these settings was changed on purpose.
    settings = root if written is None else written.provenance
    changed = list(differences(settings, attributes))
    if changed and written is not None and root is not None and not any(differences(root, attributes)):
        settings, changed, written = root, [], None
    if changed:
        more = f" and {len(changed) - DIFFERENCES_SHOWN} more" if len(changed) > DIFFERENCES_SHOWN else ""
        raise OtherRunError(
            f"{location}: found a run with other settings, expected the same settings to resume it:"
            f" {'; '.join(changed[:DIFFERENCES_SHOWN])}{more}"
        )
    return settings, written


def differences(stored: Mapping[str, Any] | None, requested: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences between the settings of two runs, as text.

    A setting that is stored and not requested is one of a version that had it, except for class weights, the
    companion, the backend and the mask. Class weights are not compared either where fractions are requested,
    from which they follow, but were not chosen.
    """
    before, now = _flat(stored or {}), _flat(json.loads(json.dumps(requested)))
    chosen = FRACTIONS not in requested or CLASS_WEIGHTS in requested
    own = (BACKEND, COMPANION, CLASS_WEIGHTS) if chosen else (BACKEND, COMPANION)
    own = (*own, "mask") if now.get("mask", "") is None else own
    if "input.channel" not in before:  # of a version that did not record it, or of an image of one channel
        now.pop("input.channel", None)
    no_longer = {name for name in before if name.partition(".")[0] in own}
    for name in sorted(now.keys() | no_longer):
        if before.get(name) == now.get(name):
            continue
        if name == ARITHMETIC:
            numbers = f"was {_shown(before.get(name, 1))}, now {_shown(now.get(name))}"
            yield f"{name} {numbers} (resume it with the version that began it)"
        else:
            yield f"{printable(name, 100)} was {_shown(before.get(name))}, now {_shown(now.get(name))}"


def recheck(
    ledger: Ledger,
    store: BlockStore,
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    changed: Sequence[int] = (),
    *,
    progress: ProgressCallback | None = None,
) -> int:
    """Check that finished blocks are stored undamaged; damaged ones are marked pending.

    Only damaged objects are deleted: labels stay if the probabilities of their block are lost. Before
    anything is deleted, the output is marked incomplete.

    Parameters
    ----------
    ledger, store, grid
        Of the run.
    numbers
        Blocks to check.
    changed
        Finished blocks among them whose input is another one now; they are deleted.
    progress
        Called with the stage, voxels checked and the total, counting blocks of full size.

    Returns
    -------
    int
        Number of blocks, and of parts of coarser levels, that have to be computed again.
    """
    damaged: dict[int, tuple[str, ...]] = {}
    voxels = math.prod(store.block_shape)

    def mark() -> None:
        if store.complete:
            store.update({"complete": False})

    if changed:
        LOG.warning("%s: computing %d blocks again: their input has changed", store.location, len(changed))
        mark()
    for number in changed:
        store.erase(grid[number].index)
        ledger.mark_pending(number)
    done = numbers[ledger.state.of_block[numbers] == DONE]
    for start in range(0, len(done), _CHECKED_AT_ONCE):
        numbers_now = done[start : start + _CHECKED_AT_ONCE].tolist()
        objects = store.object_checksums([grid[n].index for n in numbers_now])
        for number, sums in zip(numbers_now, objects, strict=True):
            if int(combined(sums), 16) != int(ledger.state.checksum[number]):
                damaged[number] = sums
        if progress is not None:
            checked = min(start + _CHECKED_AT_ONCE, len(done))
            progress("check", checked * voxels, len(done) * voxels)
    if damaged:
        mark()
        recorded = ledger.objects_of(damaged)
        for number, stored in damaged.items():
            store.erase(grid[number].index, _lost(stored, recorded.get(number)))
            ledger.mark_pending(number)
    boxes = [grid[number].core for number in (*changed, *damaged)]
    again = len(boxes) + recheck_levels(store, ledger, boxes, warn=mark)
    if len(done) < len(numbers) or not levels_built(store, ledger):
        mark()
    return again


def _lost(sums: Sequence[str], recorded: Sequence[str] | None) -> list[bool]:
    """Return which objects of a block differ from what was recorded; all where that is unknown."""
    if not recorded or len(recorded) != len(sums):
        return [True] * len(sums)
    return [now != before for now, before in zip(sums, recorded, strict=True)]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        dotted = f"{before}{name}"
        if dotted in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


def _shown(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False), 60)


def partition(numbers: NDArray[np.int64], part: Sequence[int] | None) -> NDArray[np.int64]:
    """Return the k-th of n parts of block numbers, ``part`` = (k, n), k from 1; neighbours stay together."""
    if part is None:
        return numbers
    k, n = part
    return numbers[len(numbers) * (k - 1) // n : len(numbers) * k // n]
