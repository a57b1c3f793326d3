"""What students are trained on: labelled tiles, or cubes that a student of planes labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hrvol.distil.cubes import CubeSource, cube_boxes, label_cubes
from hrvol.distil.examples import LabelledTile, Source, TileSource, crop_shape, read_example
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
            flat = [tile for tile in self._sample.training if tile.where.axis == 0]
            cubic = spec.is_3d and spec.alignment[0] > 1 and flat
            self._made[shape] = self._cubes(spec, flat) if cubic else self._tiles(spec, self._training)
        return self._made[shape]

    def _tiles(self, spec: StudentSpec, tiles: Sequence[LabelledTile]) -> TileSource:
        sample, shape = self._sample, crop_shape(spec)
        return TileSource([read_example(sample.volume, sample.teacher.window, tile, shape) for tile in tiles])

    def _cubes(self, spec: StudentSpec, flat: Sequence[LabelledTile]) -> CubeSource:
        sample, planes = self._sample, student_spec("small")
        student = self._trainer.train("planes", planes, lambda: self._tiles(planes, flat), self._settings)
        boxes = cube_boxes(sample.volume.shape, flat)
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
