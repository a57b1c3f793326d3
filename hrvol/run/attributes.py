"""Validate the provenance of an output, from which the blocks of its run follow."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from hrvol.errors import HrvolError, InputError
from hrvol.reading.schema import Schema, validated
from hrvol.recipe.recipe import Recipe
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.storage.location import Location

MOST_BLOCKS = 2 * 10**7
"""Most blocks of a run whose state is read: 17 bytes each, and 10^14 voxels with the tiles of the presets."""

_Side = Annotated[int, Field(ge=1, lt=2**40)]
_Edge = Annotated[int, Field(ge=0, lt=2**40)]


class _Input(Schema):
    shape: Annotated[list[_Side], Field(min_length=2, max_length=3)]


class RunAttributes(Schema):
    """What of the provenance tells the blocks of a run, and whether it is complete."""

    recipe: dict[str, Any]
    input: _Input
    region: Annotated[list[tuple[_Edge, _Edge]], Field(min_length=3, max_length=3)] | None = None
    complete: bool = False


def read_attributes(location: Location) -> RunAttributes:
    """Return the provenance of an output.

    Raises
    ------
    InputError
        There is no output of a run, or its provenance is damaged.
    """
    provenance = (location.attributes() or {}).get("hrvol")
    if not isinstance(provenance, dict) or not {"recipe", "input"} <= provenance.keys():
        raise InputError(
            f"{location}: found no output of a run, or damaged metadata;"
            " expected an output of hrvol segment or cluster"
        )
    return validated(RunAttributes, provenance, f"{location}: attributes")


def run_grid(attributes: RunAttributes, location: Location) -> tuple[BlockGrid, Box]:
    """Return the grid of blocks of an output, and its region.

    Raises
    ------
    InputError
        The recipe or the region does not fit, or there are too many blocks.
    """
    sides = (1, 1, *attributes.input.shape)[-3:]
    try:
        tiles = Recipe.from_dict(attributes.recipe, f"{location}: recipe").tiles
    except HrvolError as error:
        raise InputError(str(error)) from None
    grid = BlockGrid((sides[0], sides[1], sides[2]), tiles)
    if math.prod(grid.counts) > MOST_BLOCKS:
        raise InputError(
            f"{location}: found {math.prod(grid.counts):,} blocks, expected {MOST_BLOCKS:,} at most"
        )
    if attributes.region is None:
        return grid, whole(grid.shape)
    z, y, x = (slice(start, stop) for start, stop in attributes.region)
    for span, length in zip((z, y, x), grid.shape, strict=True):
        if not span.start < span.stop <= length:
            raise InputError(
                f"{location}: found the region {span.start}:{span.stop}, expected a part of 0:{length}"
            )
    return grid, (z, y, x)
