"""What students are trained on: labelled tiles, or cubes that a student of planes labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hrvol.distil.cubes import CubeSource, cube_boxes, label_cubes, learns_from_cubes
from hrvol.distil.examples import (
    Example,
    LabelledTile,
    MixedSource,
    Source,
    TileSource,
    crop_shape,
    read_example,
)
from hrvol.distil.fit import FitSettings
from hrvol.distil.sample import TeacherSample
from hrvol.distil.training import Trainer
from hrvol.segment.student.spec import StudentSpec, student_spec

LOG = logging.getLogger("hrvol.run")


class Sources:
    """Makes what students are trained on, once for those that need the same.

    Parameters
    ----------
    sample
        What the teacher labelled.
    training
        Tiles to train on, maybe parts of those of the sample.
    trainer, settings
        How a student of planes is trained.
    """

    def __init__(
        self,
        sample: TeacherSample,
        training: Sequence[LabelledTile],
        trainer: Trainer,
        settings: FitSettings,
    ) -> None:
        self._sample, self._training = sample, training
        self._trainer, self._settings = trainer, settings
        self._made: dict[object, Source] = {}

    def of(self, spec: StudentSpec) -> Source:
        """Return what a student of an architecture is trained on.

        Raises
        ------
        StoppedError
            A stop was requested.
        ModelError
            The training of the student of planes diverged.
        """
        shape = crop_shape(spec)
        if shape not in self._made:
            cubes = learns_from_cubes(spec)
            self._made[shape] = self._cubes(spec) if cubes else TileSource(self._examples(spec))
        return self._made[shape]

    def _examples(
        self, spec: StudentSpec, tiles: Sequence[LabelledTile] | None = None, *, turned: bool = False
    ) -> list[Example]:
        """Read what is around tiles; those to train on unless others are given."""
        sample, shape = self._sample, crop_shape(spec)
        return [
            read_example(sample.volume, sample.teacher.window, tile, shape, turned=turned)
            for tile in (self._training if tiles is None else tiles)
        ]

    def _planes(self, spec: StudentSpec) -> Source:
        """Return what a student of planes of all axes is trained on."""
        of_axes = [[tile for tile in self._sample.training if tile.where.axis == axis] for axis in range(3)]
        found = [tiles for tiles in of_axes if tiles]
        return MixedSource(
            [TileSource(self._examples(spec, tiles, turned=True)) for tiles in found],
            [float(len(tiles)) for tiles in found],
        )

    def _cubes(self, spec: StudentSpec) -> CubeSource:
        sample, planes = self._sample, student_spec("small")
        student = self._trainer.train("planes", planes, lambda: self._planes(planes), self._settings)
        boxes = cube_boxes(sample.volume.shape, sample.training)
        LOG.info("a student of planes labels %d cubes along all axes, for students of volumes", len(boxes))
        return label_cubes(
            sample.volume,
            sample.teacher.window,
            student,
            boxes,
            crop_shape(spec),
            self._trainer.stop,
            self._trainer.progress,
            self._trainer.device,
        )
