"""Refuse labels of an unfinished run."""

from __future__ import annotations

from collections.abc import Mapping

from hrvol.errors import InputError
from hrvol.run.status import run_status
from hrvol.volume.storage.location import Location


def check_finished(group: Location | None) -> None:
    """Raise :class:`InputError` if labels are those of a run that is not complete.

    Parameters
    ----------
    group
        OME-Zarr group of the labels, or of an output; ``None`` for other sources.
    """
    if group is None:
        return
    for place in dict.fromkeys((group.url, group.url.rpartition("/labels/")[0])):
        location = Location.of(place, group.options) if place else None
        provenance = ((location and location.attributes()) or {}).get("hrvol")
        if location is None or not isinstance(provenance, Mapping) or "complete" not in provenance:
            continue
        if provenance["complete"] is True:
            return
        if "recipe" not in provenance:
            raise InputError(
                f"{location}: found an unfinished copy, expected a finished one (or --unfinished)"
            )
        status = run_status(location)
        raise InputError(
            f"{location}: found a run of which {status['done']} of {status['total']} blocks are done"
            f" ({status['state']}), expected a finished one: run its command again, or export what is there"
            " with --unfinished"
        )
