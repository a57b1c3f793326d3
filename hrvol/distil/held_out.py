"""Compare a student with its teacher on strokes that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.distil.examples import LabelledTile
from hrvol.distil.label import Labeller
from hrvol.distil.planes import PlaneTile, layout
from hrvol.errors import StrokesError
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import check_drawn
from hrvol.volume.strokes.strokes import Strokes

MOST_TILES = 40
"""Most tiles with strokes that are labelled, spread over all."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Tiles with strokes for the check alone.

    Attributes
    ----------
    tiles
        What the teacher predicts for them.
    strokes
        ``(rows, columns)`` of each tile's core: class numbers 1..K in order of the model, or 0.
    """

    tiles: tuple[LabelledTile, ...]
    strokes: tuple[NDArray[np.uint16], ...]

    def mean_iou(self, probabilities: Sequence[NDArray[np.floating]]) -> float:
        """Return the mean IoU of the most likely classes on the strokes."""
        classes = probabilities[0].shape[0]
        total = None
        for values, drawn in zip(probabilities, self.strokes, strict=True):
            found = Confusion.of((values.argmax(axis=0) + 1).astype(np.uint16), drawn, classes)
            total = found if total is None else total + found
        assert total is not None
        return mean_iou(total.matrix)


def label_held_out(
    strokes: Strokes, shape: tuple[int, int, int], tiles: TileSpec, values: Sequence[int], labeller: Labeller
) -> HeldOut:
    """Let the teacher label the tiles that hold strokes.

    Parameters
    ----------
    strokes
        Class values, 0 where nothing is drawn.
    shape
        Of the volume.
    tiles
        Tiles of the teacher's recipe.
    values
        Class values in order of the model.
    labeller
        Labels tiles.

    Raises
    ------
    StrokesError
        The strokes have other classes, or nothing is drawn.
    """
    strokes.check_size()
    number = np.zeros(max(values) + 1, np.uint16)
    number[list(values)] = np.arange(1, len(values) + 1)
    found: dict[PlaneTile, NDArray[np.uint16]] = {}
    whole = (slice(0, shape[1]), slice(0, shape[2]))
    for z in strokes.planes():
        # Planes are often stored whole: of an array they are read once, of sparse strokes only drawn tiles.
        plane = strokes.read((slice(z, z + 1), *whole))[0] if strokes.dense else None
        if plane is not None and not plane.any():
            continue
        for tile in layout(shape, 0, tiles):
            box = (slice(z, z + 1), *tile.core_slices)
            if plane is None and not strokes.touches(box):
                continue
            drawn = strokes.read(box)[0] if plane is None else plane[tile.core_slices]
            if not drawn.any():
                continue
            check_drawn(drawn[None], strokes.source)
            if drawn.max() > max(values) or np.any(number[drawn[drawn > 0]] == 0):
                others = sorted(set(np.unique(drawn).tolist()) - {0, *values})
                raise StrokesError(f"{strokes.source}: found classes {others}, expected those of the model")
            found[PlaneTile(0, z, tile)] = number[drawn]
    if not found:
        raise StrokesError(f"{strokes.source}: found no strokes, expected some to check the student on")
    places = list(found)
    step = max(1, len(places) / MOST_TILES)
    chosen = [places[int(i * step)] for i in range(min(len(places), MOST_TILES))]
    labelled: dict[PlaneTile, LabelledTile] = {}

    def keep(tile: PlaneTile, probabilities: NDArray[np.float16]) -> None:
        labelled[tile] = LabelledTile(tile, probabilities)

    labeller.label(chosen, keep)
    return HeldOut(tuple(labelled[tile] for tile in chosen), tuple(found[tile] for tile in chosen))
