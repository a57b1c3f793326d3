"""Create outputs of any kind and write boxes of values to their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ContainsArrayError

from hrvol.errors import OutputExistsError
from hrvol.text import printable
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.ome.documents import recorded_documents
from hrvol.volume.storage.drawn import check_not_drawn
from hrvol.volume.storage.location import MARK, PARTIAL, Location

CHANNELS_PER_SHARD = 16
"""Channels of probabilities or features per shard: limits the memory of a writer."""


_OWN_OF_IMAGES = {MARK, "c", "ledger"}
"""Names at the top of outputs without labels; levels are numbered."""

_OWN_OF_LABELS = {
    *(MARK, "labels", "probabilities", "uncertainty", "ledger", "model", "companion", "mask", "survey"),
    "objects",
}
"""Names at the top of outputs with labels."""


def write_box(array: zarr.Array[Any], box: Box, values: npt.NDArray[Any], path: str) -> None:
    """Write values (z, y, x), or (C, z, y, x) with all channels, to a box (z, y, x) of an array.

    Raises
    ------
    ValueError
        The shape of the values is not that of the box, or their type does not fit the array's.
    """
    lead = values.ndim - 3
    flat = 3 - (array.ndim - lead)
    expected = array.shape[:lead] + box_shape(box)
    if lead not in (0, 1) or flat not in (0, 1) or values.shape != expected:
        raise ValueError(f"{path}: found values of shape {values.shape} for a box of {expected}")
    if values.dtype != array.dtype and not np.can_cast(values.dtype, array.dtype, "same_kind"):
        raise ValueError(f"{path}: found values of type {values.dtype}, expected {array.dtype}")
    trimmed = values.reshape(expected[:lead] + expected[lead + flat :])
    array[(slice(None),) * lead + box[flat:]] = trimmed.astype(array.dtype, copy=False)


def clear_output(location: Location, overwrite: bool) -> None:
    """Prepare an empty location for an output, deleting an earlier one if ``overwrite``.

    Only an output of hrvol is ever deleted, and only if nothing else is inside: a volume given as output by
    mistake is kept, and so are labels that others added to an output.

    Raises
    ------
    OutputExistsError
        The location is occupied: by anything without ``overwrite``, by anything but an output of hrvol with
        it, and by strokes that were drawn.
    """
    if check_overwrite(location, overwrite):
        location.remove()


def check_overwrite(location: Location, overwrite: bool) -> bool:
    """Return whether an earlier output has to be deleted first; raise as :func:`clear_output` does."""
    attributes = location.attributes()
    if attributes is None and not location.occupied():
        return False
    if not overwrite:
        raise OutputExistsError(f"{location}: exists already, expected nothing there")
    check_not_drawn(location)
    provenance = (attributes or {}).get("hrvol")
    drawn = isinstance(provenance, Mapping) and "drawing" in provenance
    if drawn or not isinstance(provenance, Mapping) or "complete" not in provenance:
        documents = None if drawn else recorded_documents(location)  # of an output whose root is damaged
        if documents is None:
            content = "no Zarr" if attributes is None else "Zarr that hrvol did not write"
            if drawn:
                content = "strokes that were drawn here"
            raise OutputExistsError(
                f"{location}: found {content}, expected an earlier output; it is not overwritten"
            )
        provenance = documents.provenance
    others = _others(location, provenance)
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        shown = ", ".join(printable(name, 100) for name in others[:3])
        raise OutputExistsError(
            f"{location}: found {shown}{more}, expected only what hrvol wrote there; it is not overwritten"
        )
    return True


def _others(location: Location, provenance: Mapping[str, Any]) -> list[str]:
    """Return the paths inside an output that hrvol did not write."""
    outputs = provenance.get("outputs")
    labels = outputs.get("labels") if isinstance(outputs, Mapping) else None
    own = _OWN_OF_LABELS if labels is not None or "block_shape" in provenance else _OWN_OF_IMAGES
    names = [
        name
        for name in location.children()
        if not (name in own or name.isdecimal() or name.startswith(".") or name.endswith(PARTIAL))
    ]
    if labels is not None:
        inside = (name for name in location.children("labels") if name not in (labels, MARK))
        names += [f"labels/{name}" for name in inside if not (name.startswith(".") or name.endswith(PARTIAL))]
    return sorted(names)


def ensure_array(parent: zarr.Group, path: str, **properties: Any) -> zarr.Array[Any]:
    """Return an array of the hierarchy, created with these properties unless it exists.

    Raises
    ------
    OutputExistsError
        The existing array has another shape, type, chunks or shards.
    """
    try:
        return parent.create_array(path, **properties)
    except ContainsArrayError:
        array = parent[path]
        assert isinstance(array, zarr.Array)
    for name in ("shape", "dtype", "chunks", "shards"):
        stored, expected = getattr(array, name), properties[name]
        if stored != expected:
            raise OutputExistsError(f"{parent.store_path}/{path}: found {name} {stored}, expected {expected}")
    return array
