"""A trial block of a plan: which planes of it are predicted, with the code of a run, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.planning.forecast import Piece, one_tile
from hrvol.run.job import SegmentJob
from hrvol.run.predict import predict_part, read_window
from hrvol.run.students.companion import CompanionPlanes, box_to_read, companion_planes, read_both, window_of
from hrvol.run.students.predict_student import label_type, predict_cells, read_cells, shifted
from hrvol.segment.model.model import Model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, box_shape, intersection
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Reader


@dataclass(frozen=True)
class Trial:
    """A trial block.

    Attributes
    ----------
    number
        Number of the trial, which names its scratch output.
    block
        The block.
    seconds
        How long to predict planes; at least one is predicted.
    narrow
        Whether to predict a few rows of a plane as well, to measure a tile with few classified pixels.
    store
        Whether to store the result, too.
    """

    number: int
    block: Block
    seconds: float
    narrow: bool = False
    store: bool = True


@dataclass(frozen=True)
class TrialJob:
    """Configuration of a worker: the run's job, and a local folder for trial outputs."""

    job: SegmentJob
    scratch: Location


@dataclass(frozen=True, eq=False)
class Outputs:
    """Labels (z, y, x); if requested, probabilities (K, z, y, x) and uncertainty (z, y, x)."""

    labels: NDArray[Any]
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None

    @classmethod
    def of(cls, job: SegmentJob, model: Model, shape: Shape3) -> Self:
        """Return arrays for a whole block; ones, so that their memory is really allocated."""
        return cls(
            np.ones(shape, np.uint16 if job.lattice is None else label_type(model)),
            np.ones((len(model.classes), *shape), np.uint8) if job.predicting.probabilities else None,
            np.ones(shape, np.uint8) if job.predicting.uncertainty else None,
        )

    def fill(self, planes: Sequence[Outputs]) -> None:
        """Fill all planes with copies of the predicted ones, flipped so that they repeat late."""
        depth, height, width = self.labels.shape
        for k in range(depth):
            source, turn = planes[k % len(planes)], k // len(planes) % 4
            for target, values in zip(self.all, source.all, strict=True):
                plane = values[..., 0, :: (-1) ** (turn // 2), :: (-1) ** turn]
                h, w = plane.shape[-2:]
                around = [(0, 0)] * (plane.ndim - 2) + [(0, height - h), (0, width - w)]
                target[..., k, :, :] = np.pad(plane, around, "symmetric")

    def plane(self, k: int) -> Outputs:
        """Return one plane."""
        labels, probabilities, uncertainty = (
            None if values is None else values[..., k : k + 1, :, :]
            for values in (self.labels, self.probabilities, self.uncertainty)
        )
        assert labels is not None
        return Outputs(labels, probabilities, uncertainty)

    @property
    def all(self) -> list[NDArray[Any]]:
        """The arrays that are not ``None``."""
        arrays = (self.labels, self.probabilities, self.uncertainty)
        return [values for values in arrays if values is not None]


@dataclass(frozen=True, eq=False)
class TrialBlock:
    """A trial block and what its worker loaded for it.

    Attributes
    ----------
    settings, trial
        The worker's configuration, and the trial.
    model, loaded
        The loaded model, and its features or the network of a student.
    box
        Voxels of the block inside the region.
    piece
        The tile that is predicted.
    mask
        (z, y, x) bool of the box, or ``None``.
    """

    settings: TrialJob
    trial: Trial
    model: Model
    loaded: Any
    box: Box
    piece: Piece
    mask: NDArray[np.bool_] | None

    @classmethod
    def of(cls, settings: TrialJob, trial: Trial, model: Model, loaded: Any) -> Self:
        """Return a trial block; its mask is read."""
        job = settings.job
        box = intersection(trial.block.core, job.region)
        assert box is not None
        piece = one_tile(BlockGrid(job.volume.shape, job.tiles), trial.block, job.region)
        mask = None if job.mask is None else job.mask.read(box) != 0
        return cls(settings, trial, model, loaded, box, piece, mask)

    @property
    def job(self) -> SegmentJob:
        """The run's job."""
        return self.settings.job

    @property
    def number(self) -> int:
        """Flat index of the block."""
        grid = BlockGrid(self.job.volume.shape, self.job.tiles)
        return int(np.ravel_multi_index(self.trial.block.index, grid.counts))

    @property
    def groups(self) -> list[range]:
        """The planes of the block that are predicted together, beginning in its middle.

        If possible, with a plane of those with mask.
        """
        depth, step, middle = box_shape(self.box)[0], 1, self._middle
        if self.job.lattice is not None:
            step = self.job.lattice.cell[0] * self.job.predicting.threads
        edges = [0, *range(step - self.box[0].start % step, depth, step), depth]
        groups = [range(start, stop) for start, stop in pairwise(edges)]
        first = next(i for i, group in enumerate(groups) if middle in group)
        return groups[first:] + groups[:first]

    @property
    def _middle(self) -> int:
        depth = box_shape(self.box)[0]
        if self.mask is None:
            return depth // 2
        inside = self.mask[shifted((self.box[0], self.piece.rows, self.piece.columns), self.box)]
        planes = np.flatnonzero(inside.any(axis=(1, 2)))
        return int(planes[len(planes) // 2]) if len(planes) else depth // 2

    def read(self, reader: Reader) -> NDArray[Any]:
        """Read the grey values of the block, context included."""
        job = self.job
        if job.lattice is not None:
            return read_cells(job.volume, self.box, job.lattice, reader)
        if job.companion is not None:
            return read_both(job, self._held, reader)
        return read_window(job.volume, self.trial.block, self.box, self.model, reader)

    @property
    def _held(self) -> Box:
        """The voxels that are read for both models."""
        return box_to_read(self.job, self.trial.block, self.box, self.model)

    def companion(self, raw: NDArray[Any]) -> CompanionPlanes | None:
        """Return what the companion of the run predicts for the tile; ``None`` without one."""
        if self.job.companion is None:
            return None
        part = (self.box[0], self.piece.rows, self.piece.columns)
        mask = None if self.mask is None else self.mask[shifted(part, self.box)]
        return companion_planes(raw, self._held, self.job, part, mask)

    def predict(
        self, raw: NDArray[Any], planes: range, rows: slice, companion: CompanionPlanes | None = None
    ) -> list[Outputs]:
        """Predict rows of the tile in planes of the block, from what was read of it; return each plane."""
        job, z = self.job, self.box[0].start
        box = (slice(z + planes.start, z + planes.stop), rows, self.piece.columns)
        mask = None if self.mask is None else self.mask[shifted(box, self.box)]
        if (lattice := job.lattice) is not None:
            part = raw[shifted(lattice.reads(box), lattice.reads(self.box))]
            prediction = predict_cells(part, lattice, box, self.model, self.loaded, job.predicting, mask=mask)
        else:
            block, options = self.trial.block, job.predicting
            if companion is None:
                part = raw[(slice(planes.start, planes.stop), *self.piece.in_read)]
            else:
                top, height = rows.start - self.piece.rows.start, rows.stop - rows.start
                options = replace(
                    options,
                    companion=lambda k: companion(planes.start + k)[:, top : top + height],
                )
                part = window_of(raw, self._held, job, block, box, self.model)
            prediction = predict_part(
                part, job.volume, block, box, self.model, self.loaded, options, mask=mask
            )
        found = Outputs(prediction.labels, prediction.probabilities, prediction.uncertainty)
        return [found.plane(k) for k in range(len(planes))]
