"""Compare a volume with the training pixels of a model, on a few tiles, before its blocks are computed.

The distances are computed once, by the driver, and recorded in the output: a resumed run takes them from
there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, to_host
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, StoppedError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.run.classify import STRIPE
from hrvol.run.drift_entry import Drift
from hrvol.run.fractions.sample_probabilities import Place, chosen_places
from hrvol.run.job import ModelSource, SegmentJob
from hrvol.segment.drift import DriftRecord
from hrvol.segment.model.model import Model
from hrvol.volume.grid.regions import region_tiles
from hrvol.volume.grid.tiling import Box
from hrvol.volume.intensity import read_unit

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser

STAGE = "compare with the strokes"
"""Name of the stage in progress reports."""

TILES = 6
"""Most tiles that are compared."""

FEWEST, SHARE = 3, 16
"""So many tiles at least, if there are as many, and more only while they are this part of all."""

PIXELS = 1000
"""Pixels of a tile, about."""

_PATCH = 7  # pixels between the tokens of dense features: a sample is not in step with them


def measure_drift(
    job: SegmentJob,
    model: Model,
    record: DriftRecord,
    source: ModelSource,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> Drift | None:
    """Compare tiles that are spread over the region and the mask of a run with the training pixels.

    Parameters
    ----------
    job
        The run.
    model, record
        Its model, and what that keeps of the training pixels. The seed of the recipe chooses the tiles.
    source
        Loads the model on the device of this process.
    stop, progress
        As for :func:`hrvol.segment_volume`.

    Returns
    -------
    Drift or None
        ``None`` if no tile can be read, or none is inside of the mask: the blocks will report it.

    Raises
    ------
    StoppedError
        The run was stopped.
    """
    count = compared_tiles(job.volume.shape, job.region, job.tiles)
    try:
        places = chosen_places(job, job.tiles, count, model)
    except InputError:
        return None
    _, loaded = source.load()
    featuriser: Any = loaded
    tally = Tally(progress, STAGE, sum(place.voxels for place in places))
    of_plane: dict[int, list[NDArray[np.float32]]] = {}
    tiles = 0
    for place in places:
        if stop is not None and stop.requested:
            raise StoppedError(f"{job.store.location}: stopped before any block; run the same command")
        try:
            distances = place_distances(job, model, record, featuriser, place)
        except InputError:  # of grey values, which a block will report
            distances = np.empty(0, np.float32)
        if len(distances):
            of_plane.setdefault(place.box[0].start, []).append(distances)
            tiles += 1
        tally.finish((place.box[0].start, place.tile.core), place.voxels)
    if not of_plane:
        return None
    planes = tuple(sorted(of_plane))
    medians = tuple(round(float(np.median(np.concatenate(of_plane[z]))), 3) for z in planes)
    return Drift(round(record.threshold, 3), planes, medians, tiles)


def place_distances(
    job: SegmentJob, model: Model, record: DriftRecord, featuriser: Featuriser, place: Place
) -> NDArray[np.float32]:
    """Return the distances ``(n,)`` of pixels spread over a place, those of its mask only."""
    planes, rows, columns = place.box
    top, _, left, _ = place.tile.window
    image = read_unit(job.volume, planes.start, place.tile, model.window)
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    mask = None if place.mask is None else place.mask[0]
    found = [record.cloud.distances(rows) for rows in sampled_rows(image, inside, featuriser, mask)]
    return np.concatenate(found)


def sampled_rows(
    image: NDArray[np.float32],
    inside: tuple[slice, slice],
    featuriser: Featuriser,
    mask: NDArray[np.bool_] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield the features ``(n, C)`` of pixels spread over a part of a tile's window, about 1000 in all.

    Parameters
    ----------
    image
        ``(Y, X)`` float32 in [0, 1], the window.
    inside
        Rows and columns of the part.
    featuriser
        Of the model.
    mask
        ``(y, x)`` of the part: only pixels where it is true; ``None``: all.
    """
    height, width = (span.stop - span.start for span in inside)
    step = max(1, round(math.sqrt(height * width / PIXELS)))
    step += step % _PATCH == 0
    for stripe, features in featuriser.stripes(image, inside, rows=STRIPE):
        first = -stripe.start % step
        pixels = to_host(features[first::step, ::step])
        kept = pixels.reshape(-1, pixels.shape[-1])
        yield kept if mask is None else kept[mask[stripe][first::step, ::step].ravel()]


def compared_tiles(shape: Shape3, region: Box, tiles: TileSpec) -> int:
    """Return how many tiles of a region of a volume are compared."""
    one_plane = (slice(0, 1), *region[1:])
    layout = sum(1 for _ in region_tiles((1, *shape[1:]), one_plane, tiles))
    depth: int = region[0].stop - region[0].start
    return min(TILES, max(FEWEST, layout * depth // SHARE))
