"""Labels between two passages over a volume: kept in the unfinished output, and deleted at the end."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from hrvol.run.ledger import Ledger
from hrvol.run.ledger_entries import DONE
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.ome.pyramid import ImagePlan
from hrvol.volume.storage.location import Location

SURVEY = "survey"
"""Name of the checksum of a survey in an output."""

STAGES = ".stages"
"""Folder of the labels between two stages in an unfinished output."""


class StageStore(LabelStore):
    """Labels between two stages: without coarser levels."""

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """No image has levels to compute."""
        return ()

    def __reduce__(self) -> tuple[Any, ...]:
        return StageStore, (self.location, self.name)


def stage_place(location: Location, number: int) -> Location:
    """Return where the labels after a stage are."""
    return replace(location, url=f"{location.url.rstrip('/')}/{STAGES}/{number}", reading=None)


def discard_if_empty(store: LabelStore, ledger: Ledger) -> None:
    """Delete an output of which nothing was done."""
    stages = STAGES in store.location.children()
    if not stages and not np.any(ledger.state.of_block == DONE):
        store.discard()
