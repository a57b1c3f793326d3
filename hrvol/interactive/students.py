"""Previews by a student: a small network that imitates an earlier model of the strokes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from hrvol.arrays import softmax, to_host
from hrvol.backend import choose_backend
from hrvol.errors import ModelError
from hrvol.interactive.lane import Gate
from hrvol.interactive.preview import RawPreview
from hrvol.interactive.region import Region
from hrvol.interactive.regions import on_grid
from hrvol.run.students.predict_student import cell_scores, read_cells, run_lattice, shifted
from hrvol.segment.model.model import Model, load_model
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.grid.tiling import intersection
from hrvol.volume.volume import Volume


def open_student(source: Model | str | Path) -> Model:
    """Return the model of a student, or of its file.

    Raises
    ------
    ModelError
        It is no student.
    """
    model = source if isinstance(source, Model) else load_model(source)
    if not isinstance(model.classifier, StudentClassifier):
        raise ModelError(f"{model.source}: found a model with features, expected a student (hrvol distil)")
    return model


def student_preview(
    volume: Volume, region: Region, model: Model, device: str, version: int, gate: Gate, threads: int
) -> RawPreview:
    """Return the probabilities of a region by a student, as a run computes them."""
    from hrvol.segment.student.runner import load_runner

    student = model.classifier
    assert isinstance(student, StudentClassifier)
    lattice = run_lattice(volume.shape, student, device)
    runner = load_runner(student, device, _backend(device))
    step, seen = 2**region.level, (region.rows, region.columns)
    height, width = (-(-(s.stop - s.start) // step) for s in seen)
    total = np.zeros((len(model.classes), height, width), np.float32)

    def predict(cell: tuple[slice, slice, slice]) -> None:
        gate.check()
        shared = intersection(cell, region.box)
        assert shared is not None
        grid = [
            on_grid(s.start - of.start, s.stop - s.start, step)
            for s, of in zip(shared[1:], seen, strict=True)
        ]
        if grid[0] is None or grid[1] is None:
            return
        raw = read_cells(volume, shared, lattice)  # cell by cell: the region may be a whole plane
        scores = cell_scores(raw, lattice, shared, cell, model, runner)
        found = to_host(scores.placed(softmax(scores.values)))
        within = found[(slice(None), *shifted(shared, cell))][:, 0]
        (rows, to_rows), (columns, to_columns) = grid[0], grid[1]
        total[:, to_rows, to_columns] = within[:, rows, columns]

    for _ in runner.each(predict, list(lattice.cells(region.box)), threads):
        gate.check()
    return RawPreview(region, step, model.classes, total, "student", False, True, version)


@lru_cache(maxsize=2)
def _backend(device: str) -> str:
    return choose_backend("auto", device).name
