"""Predict the labels of a block with a student: cell by cell of the volume's lattice, whatever the block.

Nothing overlaps and nothing is blended: a voxel has the same bits in every block, region and run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, most_likely, softmax, to_host
from hrvol.quality.metrics import SeamDisagreement
from hrvol.run.options import PredictOptions
from hrvol.run.predict import Prediction, as_bytes, entropy
from hrvol.segment.class_weights import log_shift
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import Lattice, lattice_of, planes_at_once
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.tiling import Box, box_shape, intersection
from hrvol.volume.intensity import check_finite, to_unit
from hrvol.volume.volume import Reader, Volume

if TYPE_CHECKING:
    from hrvol.arrays import Shape3
    from hrvol.segment.student.runner import Scores, StudentRunner


def run_lattice(shape: Shape3, student: StudentClassifier, device: str) -> Lattice:
    """Return the lattice of a volume of this shape in a run on a device, ``cpu`` or ``cuda``."""
    return lattice_of(shape, student.spec, planes_at_once(device), len(student.classes))


def read_cells(volume: Volume, part: Box, lattice: Lattice, reader: Reader | None = None) -> NDArray[Any]:
    """Read the grey values from which a box of a volume is predicted, context included.

    Parameters
    ----------
    volume, part
        The voxels.
    lattice
        Of the volume.
    reader
        As for :meth:`hrvol.volume.volume.Volume.read`.

    Returns
    -------
    NDArray
        The voxels of :meth:`hrvol.segment.student.lattice.Lattice.reads`.

    Raises
    ------
    InputError
        A grey value is not finite, or cannot be read.
    """
    box = lattice.reads(part)
    raw = volume.read(box, reader)
    check_finite(raw, volume.source, _start(box))
    return raw


def predict_cells(
    raw: NDArray[Any],
    lattice: Lattice,
    part: Box,
    model: Model,
    runner: StudentRunner,
    options: PredictOptions = PredictOptions(),
    *,
    mask: NDArray[np.bool_] | None = None,
    on_plane: Callable[[int], None] | None = None,
) -> Prediction:
    """Predict a box of a volume, cell by cell.

    Parameters
    ----------
    raw
        Grey values as returned by :func:`read_cells`.
    lattice, part
        Of the volume, and the box.
    model, runner
        The model, and its student.
    options
        What to return besides labels, and the number of cells to predict at once.
    mask
        ``(z, y, x)`` of the box: where it is false everything stays 0; cells without any are skipped.
    on_plane
        Called with the number of planes done.
    """
    values = [info.value for info in model.classes]
    shape = box_shape(part)
    prediction = Prediction(
        np.zeros(shape, label_type(model)),
        np.zeros((len(values), *shape), np.uint8) if options.probabilities else None,
        np.zeros(shape, np.uint8) if options.uncertainty else None,
        SeamDisagreement(),
    )

    def predict(cell: Box) -> None:
        shared = intersection(cell, part)
        assert shared is not None
        inside, within = shifted(shared, part), shifted(shared, cell)
        if mask is not None and not mask[inside].any():
            return
        scores = cell_scores(raw, lattice, part, cell, model, runner)
        if options.class_factors is not None:
            for number, shift in enumerate(log_shift(options.class_factors)):
                scores.values[number] += shift

        def put(target: NDArray[Any], found: Array) -> None:
            target[(..., *inside)] = to_host(scores.placed(found))[(..., *within)]

        # From the scores, which differ where probabilities that are rounded do not.
        put(prediction.labels, most_likely(scores.values, values))
        if prediction.probabilities is None and prediction.uncertainty is None:
            return
        probabilities = softmax(scores.values)
        if prediction.probabilities is not None:
            put(prediction.probabilities, as_bytes(probabilities))
        if prediction.uncertainty is not None:
            put(prediction.uncertainty, as_bytes(entropy(probabilities)))

    cells = list(lattice.cells(part))
    with closing(runner.each(predict, cells, options.threads)) as done:
        for (cell, following), _ in zip(pairwise([*cells, None]), done, strict=True):
            if on_plane is not None and cell is not None and (following is None or following[0] != cell[0]):
                on_plane(min(cell[0].stop, part[0].stop) - part[0].start)
    if mask is not None:
        for array in (prediction.labels, prediction.probabilities, prediction.uncertainty):
            if array is not None:
                np.copyto(array, 0, where=~mask)
    return prediction


def cell_scores(
    raw: NDArray[Any], lattice: Lattice, part: Box, cell: Box, model: Model, runner: StudentRunner
) -> Scores:
    """Return the log-odds of the voxels of one cell of a box; parameters as for :func:`predict_cells`."""
    window = lattice.cut(lattice.window(cell), raw, _start(lattice.reads(part)))
    return runner.scores(to_unit(window, model.window))


def label_type(model: Model) -> type[np.uint8] | type[np.uint16]:
    """Return the type of labels: uint8 if all values fit."""
    return np.uint8 if model.classes[-1].value < 256 else np.uint16


def shifted(box: Box, outer: Box) -> Box:
    """Return a box in the coordinates of another one."""
    z, y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(box, outer, strict=True))
    return z, y, x


def _start(box: Box) -> Shape3:
    z, y, x = (span.start for span in box)
    return z, y, x
