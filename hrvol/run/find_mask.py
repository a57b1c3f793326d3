"""Open the mask of a run: a given one, or the one that is found in the volume and kept in the output."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hrvol.errors import InputError
from hrvol.run.options import RunOptions
from hrvol.volume.background.coarse_mask import CoarseMask, is_auto, read_mask
from hrvol.volume.ome.documents import recorded_documents
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, open_labels

LOG = logging.getLogger("hrvol.run")


def run_mask(location: Location, volume: Volume, options: RunOptions) -> Volume | None:
    """Return the mask of a run, ``None`` without one, or if the volume has no background to skip.

    Parameters
    ----------
    location
        Of the output: an unfinished one keeps the mask that it was begun with.
    volume
        What is labelled.
    options
        The request; ``input.mask`` is a path, a URL, an array, ``auto`` or ``None``.

    Raises
    ------
    InputError
        The mask cannot be opened, or has another shape.
    """
    wanted = options.input.mask
    if wanted is None:
        return None
    if not is_auto(wanted):
        return _opened(located(wanted, options.storage_options), volume)
    mask = None if options.output.overwrite else _kept(location, volume)
    if mask is None:
        from hrvol.volume.background.find import find_material  # scikit-image: only where it is needed

        mask = find_material(volume)
    if mask is None:
        LOG.info("mask: found no background, computing everything")
        return None
    LOG.info("mask: %s", describe(mask))
    return mask.volume(volume)


def describe(mask: CoarseMask) -> str:
    """Return what is skipped, in words."""
    return f"found {mask.found}: {mask.share:.1%} of the volume is skipped"


def _kept(location: Location, volume: Volume) -> CoarseMask | None:
    """Return the mask in an output, if it is the one that the output was begun with."""
    documents = recorded_documents(location)
    attributes = (location.attributes() or {}).get("hrvol") if documents is None else documents.provenance
    recorded = attributes.get("mask") if isinstance(attributes, Mapping) else None
    if not isinstance(recorded, Mapping) or "voxels_per_cell" not in recorded:
        return None
    mask = read_mask(location)
    fits = mask is not None and mask.sha256 == recorded.get("sha256") and mask.shape == volume.shape
    return mask if fits else None


def _opened(mask: Any, volume: Volume) -> Volume:
    """Open a mask of the volume's shape, or the coarse one that an output holds."""
    if (
        isinstance(mask, Location)
        and (cells := read_mask(mask, "")) is not None
        and cells.shape == volume.shape
    ):
        return cells.volume(volume)
    opened = open_labels(mask)
    if opened.shape != volume.shape:
        raise InputError(
            f"{opened.source}: found a mask of shape {opened.shape},"
            f" expected {volume.shape} as {volume.source}"
        )
    return opened
