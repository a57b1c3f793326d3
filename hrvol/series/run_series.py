"""Run a workflow: all its tasks one after the other, or show their states."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import HrvolError, StoppedError, UsageError, one_line
from hrvol.progress import ProgressCallback
from hrvol.series.pace import Pace
from hrvol.series.plan_series import SeriesPlan, plan_series
from hrvol.series.records import read_record
from hrvol.series.report import (
    DONE,
    FAILED,
    KEPT,
    SKIPPED,
    STOPPED,
    SeriesReport,
    TaskOutcome,
    rows_of,
    write_table,
)
from hrvol.series.steps import step
from hrvol.series.steps.all_steps import STEPS
from hrvol.series.steps.requests import read_as, storage_of
from hrvol.series.steps.step import Context, Status
from hrvol.series.tasks import Task, selected
from hrvol.text import listed
from hrvol.volume.storage.location import located
from hrvol.volume.volume import open_volume

LOG = logging.getLogger("hrvol.run")


def run_series(
    workflow: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    dry_run: bool = False,
    fresh: bool = False,
    table: str | Path | None = None,
    stop: Stop | None = None,
    on_outcome: Callable[[TaskOutcome], None] | None = None,
    progress: ProgressCallback | None = None,
) -> SeriesReport:
    """Run a workflow file over its volumes; what is done already is left as it is.

    Parameters
    ----------
    workflow
        The file (YAML). A script whose file has ``engine: local``, the default, must keep its work under
        ``if __name__ == "__main__":``.
    tasks
        Ids of the tasks to do, with ``*`` and ``?``: ``segment.*``; ``None``: all. Those that they need have
        to be done already.
    dry_run
        Only report the state of each task; nothing is computed or written, besides the table.
    fresh
        Replace outputs that are out of date, made of other inputs or with other settings. Those that are up
        to date are kept.
    table
        File for the table, ``.csv`` or ``.json``; ``None``: that of the workflow, if all its tasks are run.
    stop
        When requested, the task in progress is stopped in order, and no other is started; see
        :func:`hrvol.stop_signals`.
    on_outcome
        Called with what became of each task, as soon as it is known.
    progress
        Called with the stage, voxels done and the total; the stage ``series`` is the whole.

    Returns
    -------
    SeriesReport
        Check ``failed`` and ``stopped``: neither raises an error. A task that fails does not stop those that
        do not need it.

    Raises
    ------
    WorkflowError
        The file is wrong; the message has its line and column.
    """
    plan = plan_series(workflow)
    chosen = plan.tasks if tasks is None else _selected(plan, tasks)
    if table is None and tasks is None and not dry_run:
        table = plan.table
    runner = _Runner(plan, chosen, Context(plan.out, fresh, stop or Stop(), progress), on_outcome)
    report = runner.look() if dry_run else runner.run()
    if table is not None:
        write_table(table, report)
    return report


def _selected(plan: SeriesPlan, patterns: Sequence[str]) -> tuple[Task, ...]:
    for pattern in patterns:
        if not any(selected(plan.tasks, [pattern])):
            names = listed(task.id for task in plan.tasks)
            raise UsageError(f"task: found {pattern!r}, expected ids of tasks: {names}")
    return tuple(selected(plan.tasks, patterns))


@dataclass(frozen=True)
class _Runner:
    """Runs tasks of a plan."""

    plan: SeriesPlan
    tasks: tuple[Task, ...]
    context: Context
    on_outcome: Callable[[TaskOutcome], None] | None

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of the tasks."""
        return frozenset(task.id for task in self.tasks)

    def look(self) -> SeriesReport:
        """Return the states of the tasks."""
        outcomes: dict[str, TaskOutcome] = {}
        for task in self._with_needs():
            outcome = self._looked(task, outcomes)
            outcomes[task.id] = outcome
            if task.id in self.ids:
                self._tell(outcome)
        return self._report([outcomes[task.id] for task in self.tasks])

    def run(self) -> SeriesReport:
        """Do the tasks."""
        outcomes: dict[str, TaskOutcome] = {}
        for task in self._with_needs():
            if task.id not in self.ids:
                outcomes[task.id] = self._looked(task, outcomes)
        pace = Pace(self.context.progress, self.tasks, self._voxels())
        stopped: HrvolError | None = None
        for task in self.tasks:
            outcomes[task.id] = TaskOutcome(task, STOPPED)
            if stopped is not None:
                continue
            try:
                outcomes[task.id], stopped = self._done(task, outcomes, pace)
                pace.end(task, computed=outcomes[task.id].state == DONE)
                if stopped is None:
                    self._tell(outcomes[task.id])
            except Abandoned as error:  # a signal came
                stopped = self._stopped(task, error)
        return self._report([outcomes[task.id] for task in self.tasks], stopped)

    def _with_needs(self) -> list[Task]:
        """Return the tasks and all that they need, in order."""
        wanted = {task.id for task in self.tasks}
        for task in reversed(self.plan.tasks):
            if task.id in wanted:
                wanted.update(task.needs)
        return [task for task in self.plan.tasks if task.id in wanted]

    def _done(
        self, task: Task, outcomes: dict[str, TaskOutcome], pace: Pace
    ) -> tuple[TaskOutcome, HrvolError | None]:
        """Do one task; return what became of it, and the error if the run was stopped."""
        for need in task.needs:
            if not outcomes[need].ok:
                reason = f"needs {need} ({_named(outcomes[need])})"
                return TaskOutcome(task, SKIPPED, reason), None
        stop = self.context.stop
        stop.working = False  # a signal that comes before there are blocks abandons the task
        context = replace(self.context, progress=pace.of(task))
        try:
            if stop.requested:
                raise Abandoned("stopped")
            result = STEPS[task.kind].run(task, context)
        except StoppedError as error:
            return TaskOutcome(task, STOPPED, str(error)), error
        except Exception as error:  # of any library: the other volumes are not its concern
            LOG.debug("%s failed", task.id, exc_info=True)
            return TaskOutcome(task, FAILED, one_line(error)), None
        return TaskOutcome(task, DONE if result.computed else KEPT, "", result.seconds, result.values), None

    def _stopped(self, task: Task, error: Abandoned) -> StoppedError:
        """Return the error of a task that was abandoned."""
        interrupted = str(error) == "SIGINT" or self.context.stop.signal == signal.SIGINT
        message = f"{task.id}: stopped; run the same command to resume"
        return StoppedError(message, 130 if interrupted else 75)

    def _looked(self, task: Task, outcomes: dict[str, TaskOutcome]) -> TaskOutcome:
        """Return the state of a task."""
        record = read_record(task.output, self.context.out)
        for need in task.needs:
            if not outcomes[need].ok:
                return TaskOutcome(task, step.WAITING, f"for {need}")
        try:
            found = STEPS[task.kind].status(task, self.context)
        except Exception as error:  # of any library
            found = Status(FAILED, one_line(error))
        state = KEPT if found.state == step.DONE else found.state
        known = record if record is not None and state == KEPT else None
        return TaskOutcome(
            task,
            state,
            found.reason,
            0.0 if known is None else known.seconds,
            {} if known is None else known.results,
        )

    def _voxels(self) -> dict[str, int]:
        """Return the voxels of volumes by name, for the progress; 0 of those that cannot be opened."""
        voxels, paths = {}, self.plan.paths()
        for task in self.tasks:
            if task.volume is not None and task.volume not in voxels and self.context.progress is not None:
                path = read_as(paths[task.volume], task.reading)
                try:
                    volume = open_volume(located(path, storage_of(task.compute)))
                except Exception:  # of any library; reported by its task
                    voxels[task.volume] = 0
                else:
                    voxels[task.volume] = math.prod(volume.shape)
        return voxels

    def _tell(self, outcome: TaskOutcome) -> None:
        if self.on_outcome is not None:
            self.on_outcome(outcome)

    def _report(self, outcomes: Sequence[TaskOutcome], stopped: HrvolError | None = None) -> SeriesReport:
        return SeriesReport(tuple(outcomes), rows_of(self.plan, outcomes), stopped)


def _named(outcome: TaskOutcome) -> str:
    """Return the state of a task that another one needs."""
    return {"to do": "not done", "waits": "not done", SKIPPED: "skipped"}.get(outcome.state, outcome.state)
