"""Read what an output records about itself: classes, blocks, how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hrvol.errors import InputError
from hrvol.recipe.recipe import Recipe
from hrvol.run.attribute_names import CLEANING
from hrvol.run.class_volumes import ClassVolumes, class_volumes
from hrvol.run.ledger_entries import DONE
from hrvol.run.ledger_totals import LedgerTotals, ledger_totals
from hrvol.run.provenance import cleaned_grid, read_attributes, run_grid
from hrvol.run.status import run_status
from hrvol.text import printable
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, hull, intersection, whole
from hrvol.volume.ome.converted import provenance_of
from hrvol.volume.pictures import Picture, open_pictures
from hrvol.volume.storage.location import Location

_EXPECTED = "an output of hrvol segment, cluster or clean"


@dataclass(frozen=True, eq=False)
class Facts:
    """What an output records about itself.

    Attributes
    ----------
    location
        Of the output.
    attributes
        Its provenance, as it is in the file.
    recipe
        Of its model; ``None``: they are cleaned labels.
    status
        See :func:`hrvol.run_status`.
    classes
        Voxels and fractions of the classes, exact.
    totals
        Of its ledger; ``None``: it keeps none, as labels inside of an image.
    labels, uncertainty
        With their levels.
    region
        What is labelled when it is complete.
    shown
        The part of the region that holds finished blocks; what is outside of it is empty.
    """

    location: Location
    attributes: Mapping[str, Any] = field(repr=False)
    recipe: Recipe | None = field(repr=False)
    status: Mapping[str, Any] = field(repr=False)
    classes: ClassVolumes = field(repr=False)
    totals: LedgerTotals | None
    labels: Picture
    uncertainty: Picture | None
    region: Box
    shown: Box

    @property
    def complete(self) -> bool:
        """Whether all blocks are done."""
        return bool(self.status["state"] == "complete")

    @property
    def steps(self) -> list[str]:
        """Steps of a cleaning, in order; none of other outputs."""
        cleaning = self.attributes.get(CLEANING)
        steps = cleaning.get("steps") if isinstance(cleaning, Mapping) else None
        return [printable(str(step), 400) for step in steps] if isinstance(steps, list) else []

    @property
    def clustered(self) -> bool:
        """Whether the classes were found without strokes."""
        return isinstance(self.attributes.get("clusters"), Mapping)

    @property
    def region_voxels(self) -> int:
        """Voxels of the region."""
        return math.prod(span.stop - span.start for span in self.region)


def read_facts(location: Location) -> Facts:
    """Read what an output of ``hrvol segment``, ``hrvol cluster`` or ``hrvol clean`` records.

    Raises
    ------
    InputError
        It is another thing, its metadata are damaged, or no block is done.
    """
    if provenance_of(location):
        raise InputError(f"{location}: found a converted image, expected {_EXPECTED}")
    cleaned = cleaned_grid(location)
    if cleaned is not None:
        (grid, complete), recipe, ledger = cleaned, None, True
        region = whole(grid.shape)
    else:
        attributes = read_attributes(location)
        (grid, region), complete = run_grid(attributes, location), attributes.complete
        recipe = Recipe.from_dict(attributes.recipe, f"{location}: recipe")
        ledger = attributes.summary is None
    raw: Any = (location.attributes() or {})["hrvol"]
    pictures = open_pictures(location)
    labels = next((picture for picture in pictures if picture.kind == "labels"), None)
    if labels is None:
        raise InputError(f"{location}: found no labels, expected {_EXPECTED}")
    uncertainty = next((picture for picture in pictures if picture.kind == "uncertainty"), None)
    totals = ledger_totals(location, len(grid)) if ledger else None
    shown = region if totals is None or complete else _finished(grid, region, totals)
    if shown is None:
        raise InputError(f"{location}: found no finished block, expected one or more")
    return Facts(
        location,
        raw,
        recipe,
        run_status(location),
        class_volumes(location),
        totals,
        labels,
        uncertainty,
        region,
        shown,
    )


def _finished(grid: BlockGrid, region: Box, totals: LedgerTotals) -> Box | None:
    """Return the smallest box of the region with all finished blocks; ``None`` without any."""
    done = np.flatnonzero(totals.state.of_block == DONE)
    if not len(done):
        return None
    corners = np.stack(np.unravel_index(done, grid.counts))
    low, high = (_flat(corners.min(axis=1), grid), _flat(corners.max(axis=1), grid))
    return intersection(hull(grid[low].core, grid[high].core), region)


def _flat(index: Any, grid: BlockGrid) -> int:
    return int(np.ravel_multi_index(tuple(int(part) for part in index), grid.counts))
