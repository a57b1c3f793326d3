"""Progress of a series in voxels that steps still have to go through, for its remaining time."""

from __future__ import annotations

from collections.abc import Sequence

from hrvol.progress import ProgressCallback
from hrvol.series.tasks import Task

STAGE = "series"
"""Name of the stage under which the whole series is reported."""

_COST = {"convert": 0.01, "segment": 1.0, "cluster": 1.0, "evaluate": 0.02, "export": 0.02}
"""Work of a voxel in each step, compared with a segmentation; other steps do not depend on the volume."""


class Pace:
    """Adds the progress of the present task to that of the tasks before.

    Parameters
    ----------
    progress
        Called with each stage under the name of its task, and with the series.
    tasks
        Those to do.
    voxels
        Of each volume by name; 0 if unknown.
    """

    def __init__(
        self, progress: ProgressCallback | None, tasks: Sequence[Task], voxels: dict[str, int]
    ) -> None:
        self._progress = progress
        self._work = {
            task.id: int(voxels.get(task.volume or "", 0) * _COST.get(task.kind, 0.0)) for task in tasks
        }
        self._total = sum(self._work.values())
        self._done = 0

    def of(self, task: Task) -> ProgressCallback | None:
        """Return the callback of a task."""
        report = self._progress
        if report is None:
            return None
        main = {kind: "segment" if kind == "cluster" else kind for kind in _COST}

        def callback(stage: str, done: int, total: int) -> None:
            report(f"{task.id}: {stage}", done, total)
            if stage == main.get(task.kind) and total:
                part = int(self._work.get(task.id, 0) * min(done / total, 1.0))
                report(STAGE, self._done + part, self._total)

        return callback

    def end(self, task: Task, *, computed: bool) -> None:
        """Count a task as done; one that was up to date does not count to the rate."""
        work = self._work.pop(task.id, 0)
        if computed:
            self._done += work
        else:
            self._total -= work
        if self._progress is not None and self._total:
            self._progress(STAGE, self._done, self._total)
