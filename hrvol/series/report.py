"""The result of a workflow: what became of each task, and one row per volume."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.errors import HrvolError, WorkflowError
from hrvol.files import atomic_write, json_text
from hrvol.series.plan_series import SeriesPlan
from hrvol.series.tasks import Task

DONE, KEPT, FAILED, SKIPPED, STOPPED = "done", "up to date", "failed", "skipped", "stopped"
"""What became of a task: done now, found done, failed, not tried as one that it needs failed, stopped."""

_WORST = (FAILED, STOPPED, "out of date", SKIPPED, "unfinished", "waits", "to do", DONE, KEPT)
"""States from worst to best: the worst of a volume's tasks is its own."""


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task.

    Attributes
    ----------
    task
        The task.
    state
        One of the states above, or of :mod:`hrvol.series.steps.step` if it was only looked at.
    reason
        The error, or why it is out of date.
    seconds
        Time that it took, all runs together.
    values
        Figures for the table.
    """

    task: Task
    state: str
    reason: str = ""
    seconds: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether its output is complete and up to date."""
        return self.state in (DONE, KEPT)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        outcome = {
            "state": self.state,
            "reason": self.reason,
            "seconds": self.seconds,
            "results": dict(self.values),
        }
        return self.task.to_dict() | outcome


@dataclass(frozen=True)
class VolumeRow:
    """A volume in the table.

    Attributes
    ----------
    volume, path
        Name and path.
    state
        The worst state of its tasks.
    voxels
        Labelled voxels; ``None`` if unknown.
    seconds
        Time of its tasks, all runs together.
    miou
        Mean IoU, where there is a ground truth.
    fractions
        Class name -> share of the labelled voxels.
    reason
        The first error.
    """

    volume: str
    path: str
    state: str
    voxels: int | None
    seconds: float
    miou: float | None
    fractions: Mapping[str, float]
    reason: str = ""


@dataclass(frozen=True)
class SeriesReport:
    """Result of a workflow.

    Attributes
    ----------
    outcomes
        Of all tasks that were selected, in order.
    rows
        One for each volume.
    stopped
        The error of a run that was stopped before the end; ``None`` otherwise.
    """

    outcomes: tuple[TaskOutcome, ...]
    rows: tuple[VolumeRow, ...]
    stopped: HrvolError | None = None

    @property
    def failed(self) -> tuple[TaskOutcome, ...]:
        """Tasks that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == FAILED)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "volumes": [vars(row) for row in self.rows],
            "tasks": [outcome.to_dict() for outcome in self.outcomes],
        }


def rows_of(plan: SeriesPlan, outcomes: Sequence[TaskOutcome]) -> tuple[VolumeRow, ...]:
    """Return a row for each volume that has tasks among the outcomes."""
    rows = []
    of_volumes: dict[str | None, list[TaskOutcome]] = {}
    for outcome in outcomes:
        of_volumes.setdefault(outcome.task.volume, []).append(outcome)
    for volume in plan.volumes:
        own = of_volumes.get(volume.name, [])
        if not own:
            continue
        values: dict[str, Any] = {}
        for outcome in own:
            values |= outcome.values
        worst = min(own, key=lambda outcome: _WORST.index(outcome.state))
        # Models of one volume count to its time; those of several have no row.
        seconds = sum(outcome.seconds for outcome in own)
        rows.append(
            VolumeRow(
                volume.name,
                volume.path,
                worst.state if worst.state != KEPT else DONE,
                values.get("voxels"),
                round(seconds, 3),
                values.get("miou"),
                values.get("fractions", {}),
                worst.reason,
            )
        )
    return tuple(rows)


def table_of(rows: Sequence[VolumeRow]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of the table and its rows; ``None`` where there is no value."""
    classes = list(dict.fromkeys(name for row in rows for name in row.fractions))
    columns = ["volume", "state", "voxels", "seconds", "mIoU", *classes]
    return columns, [
        [
            *(row.volume, row.state, row.voxels, row.seconds, row.miou),
            *(row.fractions.get(name) for name in classes),
        ]
        for row in rows
    ]


def check_table(path: str | Path) -> Path:
    """Return the path of a table to write; raise :class:`WorkflowError` for another suffix."""
    file = Path(path)
    if file.suffix.lower() not in (".csv", ".json"):
        raise WorkflowError(f"{file}: found {file.suffix or 'no suffix'}, expected .csv or .json")
    return file


def write_table(path: str | Path, report: SeriesReport) -> None:
    """Write the table of a report as CSV or JSON, by the suffix; an earlier one is replaced."""
    file = check_table(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".json":
        text = json_text(report.to_dict()) + "\n"
    else:
        stream = io.StringIO()
        columns, rows = table_of(report.rows)
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*columns[:5], *(f"fraction {name}" for name in columns[5:]), "path", "reason"])
        for row, values in zip(report.rows, rows, strict=True):
            writer.writerow([*("" if value is None else value for value in values), row.path, row.reason])
        text = stream.getvalue()
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8")
