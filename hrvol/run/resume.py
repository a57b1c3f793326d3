"""Going on with an output that is there: it must have been begun with the very same settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import OtherRunError, OutputExistsError
from hrvol.progress import ProgressCallback
from hrvol.run.ledger import DONE, Ledger, check_free
from hrvol.run.pyramid_levels import recheck_levels
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.ome.output import clear_output
from hrvol.volume.storage.location import Location

DIFFERENCES_SHOWN = 3

_CHECKED_AT_ONCE = 128

# Where things lie, and what a model was made with (its digest tells it from others), decide nothing.
_NOT_COMPARED = ("input.source", "mask.source", "model.source", "model.versions", "clusters")


def begin_output(
    location: Location,
    attributes: Mapping[str, Any],
    create: Callable[[bool], LabelStore],
    *,
    overwrite: bool = False,
) -> tuple[LabelStore, bool]:
    """Make an output, or go on with the one that is there.

    Parameters
    ----------
    location
        Of the output.
    attributes
        What it says about how it is made; settings in it are compared.
    create
        Called with whether the output is there already; makes what it lacks.
    overwrite
        Whether to begin anew.

    Returns
    -------
    tuple
        The output, and whether it was there.

    Raises
    ------
    OtherRunError
        The output was begun with other settings; the message names the first differences.
    OutputExistsError
        Something else is in the way, or (:class:`BusyError`) somebody is writing what is to be deleted.
    """
    if overwrite:
        check_free(location)
        clear_output(location, True)
    found = location.attributes()
    if found is None and not location.occupied():
        return create(False), False
    said = (found or {}).get("hrvol")
    if not isinstance(said, Mapping) or "model" not in said:
        what = "no Zarr" if found is None else "something else than labels that hrvol writes"
        raise OutputExistsError(f"{location}: found {what}, expected nothing there or a run to go on with")
    other = list(differences(said, attributes))
    if other:
        more = f" and {len(other) - DIFFERENCES_SHOWN} more" if len(other) > DIFFERENCES_SHOWN else ""
        raise OtherRunError(
            f"{location}: was made with other settings, expected the same to go on with:"
            f" {'; '.join(other[:DIFFERENCES_SHOWN])}{more}"
        )
    return create(True), True


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between the settings of two runs, in words."""
    there, here = _flat(found), _flat(json.loads(json.dumps(wanted)))
    for name in sorted(here):
        if there.get(name) != here[name]:
            yield f"{name} was {_shown(there.get(name))}, now {_shown(here[name])}"


def recheck(
    ledger: Ledger,
    store: LabelStore,
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    progress: ProgressCallback | None = None,
) -> int:
    """Look whether what the ledger says is done is stored unharmed; what is not is deleted and left to do.

    Before anything is deleted the output is marked as not complete.

    Parameters
    ----------
    ledger, store, grid
        Of the run.
    numbers
        Blocks to look at.
    progress
        Called with stage, voxels looked at, all voxels: as many as blocks of full size have.

    Returns
    -------
    int
        Number of blocks, and of parts of coarser levels, that have to be done again.
    """
    done = numbers[ledger.state.of_block[numbers] == DONE]
    harmed, voxels = [], math.prod(store.block_shape)

    def mark() -> None:
        if store.complete:
            store.update({"complete": False})

    for start in range(0, len(done), _CHECKED_AT_ONCE):
        some = done[start : start + _CHECKED_AT_ONCE].tolist()
        for number, found in zip(some, store.checksums([grid[n].index for n in some]), strict=True):
            if int(found, 16) != int(ledger.state.checksum[number]):
                mark()
                store.erase(grid[number].index)
                ledger.mark_pending(number)
                harmed.append(grid[number].core)
        if progress is not None:
            looked_at = min(start + _CHECKED_AT_ONCE, len(done))
            progress("check", looked_at * voxels, len(done) * voxels)
    return len(harmed) + recheck_levels(store, ledger, harmed, warn=mark)


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
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def partition(numbers: NDArray[np.int64], part: Sequence[int] | None) -> NDArray[np.int64]:
    """Return a part (k, n) of blocks, the k-th of n, from 1; neighbours stay together."""
    if part is None:
        return numbers
    k, n = part
    return numbers[len(numbers) * (k - 1) // n : len(numbers) * k // n]
