"""Provenance: how an output was made, as JSON values in its attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hrvol.analysis.classes_of_objects import INSTANCES
from hrvol.classes import ClassInfo
from hrvol.errors import HrvolError, InputError
from hrvol.features import arithmetic
from hrvol.reading.schema import Schema, validated
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import CrfSpec, TileSpec
from hrvol.run.attribute_names import ARITHMETIC, CLASS_WEIGHTS, CLEANING, FRACTIONS
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.model import Model, current_versions
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume

MOST_BLOCKS = 2 * 10**7
"""Most blocks of a run whose state is read: 17 bytes each, and 10^14 voxels with the tiles of the presets."""

_Side = Annotated[int, Field(ge=1, lt=2**40)]
_Edge = Annotated[int, Field(ge=0, lt=2**40)]


class _Input(Schema):
    shape: Annotated[list[_Side], Field(min_length=2, max_length=3)]


class Summary(Schema):
    """What is kept of the ledger of a run whose labels became those of an image."""

    blocks: Annotated[int, Field(ge=0, le=2**53)]
    voxels: Annotated[int, Field(ge=0, le=2**63)]
    fractions: Annotated[dict[str, float], Field(max_length=100_000)]


class RunAttributes(Schema):
    """What of the provenance tells the blocks of a run, and whether it is complete."""

    recipe: dict[str, Any]
    input: _Input
    region: Annotated[list[tuple[_Edge, _Edge]], Field(min_length=3, max_length=3)] | None = None
    complete: bool = False
    summary: Summary | None = None


def provenance(
    model: Model,
    sha256: str,
    volume: Volume,
    region: Box,
    crf: CrfSpec | None = None,
    class_factors: Sequence[float] | None = None,
    fractions: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the provenance that an output carries, as JSON values; some only where they apply."""
    attributes: dict[str, Any] = {
        "recipe": model.recipe.with_(crf=crf).to_dict(),
        "versions": current_versions(),
        "weights_sha256": model.weights_sha256,
        "model": {"source": model.source, "sha256": sha256, "versions": dict(model.versions)},
        "window": list(model.window),
        "input": volume.identity(),
        "region": [[span.start, span.stop] for span in region],
    }
    if not isinstance(model.classifier, StudentClassifier):
        attributes[ARITHMETIC] = arithmetic.ARITHMETIC
    if isinstance(model.classifier, ClusterClassifier):
        attributes["clusters"] = describe_clusters(model.classifier)
    for name, numbers in ((CLASS_WEIGHTS, class_factors), (FRACTIONS, fractions)):
        if numbers is not None:
            attributes[name] = of_classes(model.classes, numbers)
    return attributes


def of_classes(classes: Sequence[ClassInfo], numbers: Sequence[float]) -> dict[str, float]:
    """Return numbers by the name of their class."""
    return {info.name: number for info, number in zip(classes, numbers, strict=True)}


def describe_clusters(clusters: ClusterClassifier) -> dict[str, Any]:
    """Return how classes were found without strokes, and which are foreground, as JSON values."""
    tally, distance = clusters.class_tally, clusters.semantic_distance
    shares = tally.pixels / tally.pixels.sum()
    return {
        "count": len(clusters.of_cluster),
        "semantic_distance": None if np.isnan(distance) else distance,
        "foreground": list(clusters.foreground),
        "share": {str(v): float(s) for v, s in zip(clusters.classes, shares, strict=True)},
        "attention_density": {
            str(v): None if np.isnan(d) else float(d)
            for v, d in zip(clusters.classes, tally.density, strict=True)
        },
    }


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


class _Cleaned(Schema):
    """What of the provenance of cleaned labels or objects tells their blocks, and if they are complete."""

    input: _Input
    block_shape: tuple[_Side, _Side, _Side]
    complete: bool = False


def cleaned_grid(location: Location) -> tuple[BlockGrid, bool] | None:
    """Return the blocks of cleaned labels or objects, and whether they are complete; ``None`` for others.

    Raises
    ------
    InputError
        The provenance is damaged, or there are too many blocks.
    """
    found = (location.attributes() or {}).get("hrvol")
    if not isinstance(found, dict) or not {CLEANING, INSTANCES} & found.keys():
        return None
    cleaned = validated(_Cleaned, found, f"{location}: attributes")
    sides = (1, 1, *cleaned.input.shape)[-3:]
    grid = BlockGrid((sides[0], sides[1], sides[2]), TileSpec(), sides=cleaned.block_shape)
    if math.prod(grid.counts) > MOST_BLOCKS:
        raise InputError(
            f"{location}: found {math.prod(grid.counts):,} blocks, expected {MOST_BLOCKS:,} at most"
        )
    return grid, cleaned.complete


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
