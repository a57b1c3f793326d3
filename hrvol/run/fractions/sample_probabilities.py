"""Predict the probabilities of voxels that are spread over what a run labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, softmax, to_host
from hrvol.device import cpus
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, StoppedError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.run.classify import classify
from hrvol.run.job import ModelSource, SegmentJob
from hrvol.run.students.predict_student import cell_scores, read_cells, shifted
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, Tile, box_shape
from hrvol.volume.intensity import read_unit

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser
    from hrvol.segment.student.runner import StudentRunner

TILES = 8
"""Tiles that a model with features predicts."""

WINDOWS = 64
"""Windows that a student of planes predicts."""

VOLUME_WINDOWS = 32
"""Windows that a 3D student predicts: they have several planes, and need many more around them."""

SIDE = 256
"""Side in voxels of a student's windows."""

VOXELS = 2**17
"""Most voxels of a sample."""

_DRAWS = (1, 8, 64)  # times as many places are drawn until enough of them are inside the mask

_ENOUGH = 8  # places inside the mask, once more were drawn


@dataclass(frozen=True, eq=False)
class Sample:
    """Probabilities of voxels.

    Attributes
    ----------
    probabilities
        ``(K, n)`` float32, in order of classes, with sum 1.
    weights
        ``(n,)`` float64: how many voxels each of them stands for, up to a factor.
    places
        What was predicted, for messages: such as ``8 tiles``.
    """

    probabilities: NDArray[np.float32]
    weights: NDArray[np.float64]
    places: str


@dataclass(frozen=True, eq=False)
class Place:
    """Voxels that are sampled.

    Attributes
    ----------
    box
        The voxels.
    tile
        The tile that owns them.
    mask
        ``(z, y, x)`` of the box: which of them count; ``None``: all.
    """

    box: Box
    tile: Tile
    mask: NDArray[np.bool_] | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels that count."""
        return math.prod(box_shape(self.box)) if self.mask is None else int(np.count_nonzero(self.mask))

    def sample(self, probabilities: NDArray[np.float32], most: int, seed: int) -> NDArray[np.float32]:
        """Return those ``(K, n)`` of at most so many of its voxels, drawn at random, of ``(K, z, y, x)``."""
        everywhere = np.ones(probabilities.shape[1:], np.bool_) if self.mask is None else self.mask
        numbers = np.flatnonzero(everywhere)
        if len(numbers) > most:
            rng = np.random.default_rng([seed, *(span.start for span in self.box)])
            numbers = np.sort(rng.choice(numbers, most, replace=False))
        return probabilities.reshape(len(probabilities), -1)[:, numbers]


def sample_probabilities(
    job: SegmentJob,
    model: Model,
    source: ModelSource,
    stage: str,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> Sample:
    """Predict voxels that are spread over the region and the mask of a run.

    Places whose grey values cannot be read are left out: their blocks will report them.

    Parameters
    ----------
    job
        The run: its volume, region, mask and tiles. Class weights are not applied.
    model
        Its model; the same seed, that of its recipe, samples the same voxels.
    source
        Loads the model on the device of this process.
    stage
        Name of the stage in progress reports.
    stop, progress
        As for :func:`hrvol.segment_volume`.

    Raises
    ------
    InputError
        No place is inside the mask, or none can be read.
    StoppedError
        The run was stopped.
    """
    _, loaded = source.load()
    runner: Any = loaded
    predict: Callable[[Place], NDArray[np.float32]]
    student = isinstance(model.classifier, StudentClassifier)
    if isinstance(model.classifier, StudentClassifier):
        spec = model.classifier.spec
        lattice = window_lattice(job.volume.shape, spec)
        squares, count = TileSpec(core=SIDE, overlap=0, blend=0), VOLUME_WINDOWS if spec.is_3d else WINDOWS
        places = chosen_places(job, squares, count, model, lattice.cell[0])
        predict = partial(_window_probabilities, job, model, runner, lattice)
    else:
        places = chosen_places(job, job.tiles, TILES, model)
        predict = partial(_tile_probabilities, job, model, runner)
    most = VOXELS // len(places)

    def sample(place: Place) -> NDArray[np.float32] | InputError:
        try:
            return place.sample(predict(place), most, model.recipe.seed)
        except InputError as error:
            return error

    tally = Tally(progress, stage, sum(place.voxels for place in places))
    probabilities, weights, errors = [], [], []
    samples = runner.each(sample, places, cpus()) if student else (sample(place) for place in places)
    with closing(samples):
        for place, found in zip(places, samples, strict=True):
            if stop is not None and stop.requested:
                raise StoppedError(f"{job.store.location}: stopped before any block; run the same command")
            if isinstance(found, InputError):
                errors.append(found)
            else:
                probabilities.append(found)
                weights.append(np.full(found.shape[1], place.voxels / found.shape[1]))
            tally.finish((place.box[0].start, place.tile.core), place.voxels)
    if not probabilities:
        raise errors[0]
    kind = "window" if student else "tile"
    shown = f"{len(probabilities)} {kind}{'' if len(probabilities) == 1 else 's'}"
    return Sample(np.concatenate(probabilities, axis=1), np.concatenate(weights), shown)


def chosen_places(job: SegmentJob, tiles: TileSpec, count: int, model: Model, depth: int = 1) -> list[Place]:
    """Return places spread over the region of a run, with voxels inside its mask.

    Parameters
    ----------
    job
        The run.
    tiles
        Which squares of a plane are sampled.
    count
        How many, at most.
    model
        The model, whose recipe has the seed.
    depth
        Planes of a place: it is as many that begin at a multiple of this, as far as the region has them.

    Raises
    ------
    InputError
        No place has voxels inside the mask.
    """
    places: dict[tuple[int, ...], Place] = {}
    drawn: tuple[Any, ...] = ()
    for times in _DRAWS:
        drawn = stratified_tiles(job.volume.shape, job.region, tiles, times * count, model.recipe.seed)
        places = {}
        for z, (_, rows, columns), tile in drawn:
            first = z // depth * depth
            planes = slice(max(first, job.region[0].start), min(first + depth, job.region[0].stop))
            box = (planes, rows, columns)
            key = tuple(span.start for span in box)
            if key in places:
                continue
            mask = None if job.mask is None else job.mask.read(box) != 0
            if mask is None or mask.any():
                places[key] = Place(box, tile, mask)
        if (
            job.mask is None
            or len(places) >= (count if times == 1 else _ENOUGH)
            or len(drawn) < times * count
        ):
            break
    if not places:
        assert job.mask is not None
        raise InputError(
            f"fractions: {job.mask.source}: found no voxel of the mask in {len(drawn)} places of the volume,"
            " expected some to sample; give class weights instead"
        )
    found = list(places.values())
    count = min(count, len(found))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def window_lattice(shape: Shape3, spec: StudentSpec) -> Lattice:
    """Return the lattice of the windows in which a student is sampled, which are cheaper than those of a run.

    Cells begin where the squares of :data:`SIDE` voxels do, and have as few planes as the student
    can predict.
    """
    depth, step, _ = spec.alignment
    height, width = (min(SIDE, -(-side // step) * step) for side in shape[1:])
    return Lattice(shape, (depth, height, width), spec.halo)


def _tile_probabilities(
    job: SegmentJob, model: Model, featuriser: Featuriser, place: Place
) -> NDArray[np.float32]:
    """Return the probabilities ``(K, z, y, x)`` of a place, by a model with features."""
    planes, rows, columns = place.box
    top, _, left, _ = place.tile.window
    image = read_unit(job.volume, planes.start, place.tile, model.window)
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    options = replace(job.predicting, threads=cpus())
    proba: NDArray[np.float32] = to_host(classify(image, inside, model, featuriser, options))
    return np.moveaxis(proba, -1, 0)[:, None]


def _window_probabilities(
    job: SegmentJob, model: Model, runner: StudentRunner, lattice: Lattice, place: Place
) -> NDArray[np.float32]:
    """Return the probabilities ``(K, z, y, x)`` of a place, by a student."""
    (cell,) = lattice.cells(place.box)
    scores = cell_scores(read_cells(job.volume, place.box, lattice), lattice, place.box, cell, model, runner)
    proba: NDArray[np.float32] = to_host(scores.placed(softmax(scores.values)))
    return proba[(slice(None), *shifted(place.box, cell))]
