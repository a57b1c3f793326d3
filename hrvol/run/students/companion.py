"""Label a volume from the mean of the probabilities of a model and of a student, its companion.

The model's tiles are blended as without a companion; then each plane is averaged with the student's, before
class weights, labels, probabilities and uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import softmax, to_host
from hrvol.classes import ClassInfo
from hrvol.errors import ModelError, UsageError
from hrvol.run.job import COMPANION_FILE, Companion, ModelContent, SegmentJob
from hrvol.run.options import RunOptions
from hrvol.run.predict import window_box
from hrvol.run.students.predict_student import shifted
from hrvol.run.students.student_backend import of_backend, with_backend
from hrvol.segment.model.model import Model
from hrvol.segment.student.block_lattice import block_lattice
from hrvol.segment.student.lattice import Lattice, planes_at_once
from hrvol.segment.student.student import StudentClassifier
from hrvol.training.colour import check_input
from hrvol.volume.grid.tiling import Block, Box, block_shape, box_shape, hull, intersection
from hrvol.volume.intensity import check_finite, to_unit
from hrvol.volume.volume import Reader, Volume

if TYPE_CHECKING:
    from hrvol.segment.student.runner import StudentRunner


@dataclass(frozen=True)
class PreparedCompanion:
    """A companion that is checked.

    Attributes
    ----------
    model
        The student.
    content
        Its bytes.
    companion
        What workers need of it.
    """

    model: Model
    content: ModelContent
    companion: Companion

    @property
    def attributes(self) -> dict[str, Any]:
        """The provenance of the companion, as JSON values."""
        digest, versions = self.content.sha256, dict(self.model.versions)
        backend = of_backend(self.companion.source.backend)
        return {"source": self.model.source, "sha256": digest, "versions": versions} | backend


def prepare_companion(
    model: Model, volume: Volume, stack: ExitStack, options: RunOptions
) -> PreparedCompanion | None:
    """Load and check the companion of a run; ``None`` if it has none.

    Parameters
    ----------
    model, volume
        The run's model, and its volume.
    stack
        Holds the temporary file of a companion that has none.
    options
        The request, its engine placed on a device.

    Raises
    ------
    ModelError
        The companion cannot be read, is no student, or has other classes; or the model is a student or
        refines labels by a CRF.
    UsageError
        Fractions are requested.
    """
    given, spec = options.companion, options.engine
    if given is None:
        return None
    content = ModelContent.of(given)
    source = content.source(
        options.weights, spec.device, stack, workers=not spec.serial, kept_as=COMPANION_FILE
    )
    source = with_backend(source, content.model, options)
    loaded, _ = (source if spec.serial else replace(source, device="cpu")).load()
    if not isinstance(given, Model):
        loaded = replace(loaded, source=source.model_file)
    _check(model, loaded, options)
    check_input(loaded, volume)
    student = cast(StudentClassifier, loaded.classifier)
    shape, tiles = volume.shape, model.recipe.tiles
    lattice = block_lattice(
        shape,
        student.spec,
        block_shape(shape, tiles),
        planes_at_once(spec.device),
        len(student.classes),
    )
    return PreparedCompanion(loaded, content, Companion(source, lattice))


def _check(model: Model, companion: Model, options: RunOptions) -> None:
    """Check that a model and a companion can label a volume together."""
    if isinstance(model.classifier, StudentClassifier):
        raise ModelError(
            f"{model.source}: found a student beside the companion {companion.source}, expected the model"
            " that taught it: the mean of two students is not supported"
        )
    if not isinstance(companion.classifier, StudentClassifier):
        raise ModelError(
            f"{companion.source}: found no student as a companion, expected one made by hrvol distil"
        )
    if _named(model.classes) != _named(companion.classes):
        raise ModelError(
            f"{companion.source}: found the classes {_shown(companion.classes)}, expected those of"
            f" {model.source}: {_shown(model.classes)}"
        )
    if options.output.crf or model.recipe.crf is not None:
        where = "" if options.output.crf else " in its recipe"
        raise ModelError(
            f"{model.source}: found a CRF{where}, expected none with a companion: a CRF makes the"
            " probabilities of tiles so sure that a mean with others has no effect"
        )
    if options.output.class_weights.fractions is not None:
        raise UsageError(
            "fractions: found a companion, expected none: class weights are chosen by labels of one model;"
            " give class weights instead"
        )


def _named(classes: Sequence[ClassInfo]) -> list[tuple[int, str]]:
    return [(info.value, info.name) for info in classes]


def _shown(classes: Sequence[ClassInfo]) -> str:
    return ", ".join(f"{value} {name}" for value, name in _named(classes))


def box_to_read(job: SegmentJob, block: Block, part: Box, model: Model) -> Box:
    """Return the voxels from which a box of a block is predicted by both models, in one read.

    Parameters
    ----------
    job
        With a companion.
    block, part, model
        As for :func:`hrvol.run.predict.predict_part`.
    """
    assert job.companion is not None
    return hull(window_box(block, part, job.volume.shape, model), job.companion.lattice.reads(part))


def read_both(job: SegmentJob, box: Box, reader: Reader | None = None) -> NDArray[Any]:
    """Read the grey values of a box of :func:`box_to_read`.

    Raises
    ------
    InputError
        A grey value is not finite, or cannot be read.
    """
    raw = job.volume.read(box, reader)
    check_finite(raw, job.volume.source, (box[0].start, box[1].start, box[2].start))
    return raw


def window_of(
    raw: NDArray[Any], held: Box, job: SegmentJob, block: Block, part: Box, model: Model
) -> NDArray[Any]:
    """Return the grey values from which the model predicts a box, of those that both need.

    Parameters
    ----------
    raw, held
        Grey values, and the box of the volume that they are.
    job, block, part, model
        As for :func:`box_to_read`.
    """
    window: NDArray[Any] = raw[shifted(window_box(block, part, job.volume.shape, model), held)]
    return window


def companion_planes(
    raw: NDArray[Any], held: Box, job: SegmentJob, part: Box, mask: NDArray[np.bool_] | None
) -> CompanionPlanes:
    """Return the probabilities that the companion of a run predicts for the planes of a box.

    Parameters
    ----------
    raw, held
        As for :func:`window_of`.
    job, part
        As for :func:`box_to_read`.
    mask
        As for :class:`CompanionPlanes`.
    """
    assert job.companion is not None
    lattice = job.companion.lattice
    student, runner = job.companion.source.load(job.store)
    return CompanionPlanes(
        raw[shifted(lattice.reads(part), held)],
        lattice,
        part,
        student,
        cast("StudentRunner", runner),
        mask,
        job.predicting.threads,
    )


class CompanionPlanes:
    """The probabilities of a student in the planes of a box, computed a layer of its cells at a time.

    Parameters
    ----------
    raw
        Grey values of ``lattice.reads(part)``.
    lattice, part
        Of the volume, and the box.
    model, runner
        The student's model, and its network.
    mask
        ``(z, y, x)`` bool of the box: cells without any are skipped, and 0.
    threads
        Cells that are computed at once.
    """

    def __init__(
        self,
        raw: NDArray[Any],
        lattice: Lattice,
        part: Box,
        model: Model,
        runner: StudentRunner,
        mask: NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> None:
        self._raw, self._lattice, self._part = raw, lattice, part
        self._model, self._runner, self._mask, self._threads = model, runner, mask, threads
        self._planes = slice(0, 0)
        self._probabilities: NDArray[np.float32] = np.zeros((0, 0, 0, 0), np.float32)

    def __call__(self, k: int) -> NDArray[np.float32]:
        """Return the probabilities ``(K, y, x)`` of the k-th plane of the box."""
        if not self._planes.start <= k < self._planes.stop:
            self._compute(k)
        plane: NDArray[np.float32] = self._probabilities[:, k - self._planes.start]
        return plane

    def _compute(self, k: int) -> None:
        """Predict the layer of cells that holds a plane."""
        z, depth = self._part[0].start, self._lattice.cell[0]
        start = (z + k) // depth * depth
        self._planes = slice(max(start - z, 0), min(start + depth, self._part[0].stop) - z)
        layer = (slice(self._planes.start + z, self._planes.stop + z), *self._part[1:])
        found = np.zeros((len(self._model.classes), *box_shape(layer)), np.float32)
        origin = tuple(span.start for span in self._lattice.reads(self._part))

        def predict(cell: Box) -> None:
            shared = intersection(cell, layer)
            assert shared is not None
            if self._mask is not None and not self._mask[shifted(shared, self._part)].any():
                return
            window = self._lattice.cut(
                self._lattice.window(cell), self._raw, (origin[0], origin[1], origin[2])
            )
            scores = self._runner.scores(to_unit(window, self._model.window))
            values = to_host(scores.placed(softmax(scores.values)))
            found[(slice(None), *shifted(shared, layer))] = values[(slice(None), *shifted(shared, cell))]

        for _ in self._runner.each(predict, list(self._lattice.cells(layer)), self._threads):
            pass
        self._probabilities = found
