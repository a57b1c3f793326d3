"""The command run: a workflow file over many volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import json_option
from hrvol.cli.common.output import echo, echo_json, echo_table, news, score

if TYPE_CHECKING:
    from hrvol.series.report import SeriesReport, TaskOutcome

_CLASSES_SHOWN = 8


def _schema(context: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from hrvol.series.workflow_file import workflow_schema

        echo_json(workflow_schema())
        context.exit()


@click.command("run")
@click.argument("workflow", metavar="WORKFLOW.yaml")
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and what is up to date.")
@click.option("--list", "only_list", is_flag=True, help="Print the tasks as JSON; no volume is opened.")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="ID",
    help="Do only tasks with this id, with * and ?: train, segment.*, *.scan1. May be repeated.",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Replace outputs that are out of date: made of other inputs, or with other settings.",
)
@click.option("--table", metavar="FILE.csv|.json", help="Also write the table at the end to a file.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_schema,
    help="Print the JSON schema of workflow files.",
)
@json_option
def run_command(
    workflow: str,
    dry_run: bool,
    only_list: bool,
    tasks: tuple[str, ...],
    fresh: bool,
    table: str | None,
    as_json: bool,
) -> None:
    """Run a workflow file over many volumes: convert, train, distil, segment, cluster, evaluate, export.

    The file names volumes, by globs or a table, and steps. Run the same command again to resume: steps whose
    outputs are complete and made of the same inputs are left as they are. A volume that fails does not stop
    the others; the exit code is then 1. Ctrl-C stops after the blocks in progress.

    \b
    Examples:
        hrvol run series.yaml --dry-run
        hrvol run series.yaml
        hrvol run series.yaml --task 'segment.*' --table results.csv
        hrvol run series.yaml --fresh

    \b
    A file:
        volumes: scans/*.ome.zarr
        out: results
        steps:
          train: {strokes: "strokes/{name}.tif", classes: [pore, binder, particle]}
          segment: {uncertainty: true}
          evaluate: {truth: "truth/{name}.tif"}
          export: {output: "{name}.tif"}
    """  # noqa: D301 (click needs the escape)
    if only_list:
        _echo_tasks(workflow, tasks)
        return
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.series.report import check_table
    from hrvol.series.run_series import run_series

    if table is not None:
        check_table(table)
    request: dict[str, Any] = {"tasks": tasks or None, "fresh": fresh, "table": table}
    if dry_run:
        report = run_series(workflow, **request, dry_run=True)
        _echo_dry(report, as_json)
        return
    with news(), stop_signals(ends=True) as stop, display() as progress:

        def on_outcome(outcome: TaskOutcome) -> None:
            progress.forget(f"{outcome.task.id}: ")  # else a hundred volumes leave hundreds of bars
            _echo_outcome(outcome)

        report = run_series(workflow, **request, stop=stop, on_outcome=on_outcome, progress=progress)
    if as_json:
        echo_json(report.to_dict())
    else:
        _echo_report(report)
    if report.stopped is not None:
        raise report.stopped
    _check(report)


def _echo_tasks(workflow: str, patterns: tuple[str, ...]) -> None:
    """Print the tasks for workflow managers."""
    from hrvol.series.plan_series import plan_series
    from hrvol.series.tasks import selected

    plan = plan_series(workflow)
    tasks = selected(plan.tasks, patterns) if patterns else plan.tasks
    echo_json({"out": str(plan.out), "table": plan.table, "tasks": [task.to_dict() for task in tasks]})


def _echo_outcome(outcome: TaskOutcome) -> None:
    """Print what became of a task, above the progress."""
    from hrvol.progress import duration

    time = f" in {duration(outcome.seconds)}" if outcome.state == "done" else ""
    echo(f"{outcome.task.id}: {outcome.state}{time}{_because(outcome)}", err=True)


def _because(outcome: TaskOutcome) -> str:
    return f": {outcome.reason}" if outcome.reason else ""


def _echo_dry(report: SeriesReport, as_json: bool) -> None:
    if as_json:
        echo_json(report.to_dict())
        return
    rows = [[outcome.task.id, outcome.state, outcome.task.output] for outcome in report.outcomes]
    echo_table(["task", "state", "output"], rows)
    for outcome in report.outcomes:
        if outcome.reason and outcome.state != "waits":
            echo(f"{outcome.task.id}: {outcome.state}{_because(outcome)}")


def _echo_report(report: SeriesReport) -> None:
    from hrvol.progress import count, duration
    from hrvol.series.report import table_of

    columns, rows = table_of(report.rows)
    shown = [
        [
            *(row[0], row[1], "-" if row[2] is None else count(row[2]), duration(row[3]), score(row[4])),
            *("-" if part is None else f"{100 * part:.2f} %" for part in row[5 : 5 + _CLASSES_SHOWN]),
        ]
        for row in rows
    ]
    columns[3] = "time"
    echo_table(columns[: 5 + _CLASSES_SHOWN], shown)
    if len(columns) > 5 + _CLASSES_SHOWN:
        echo(f"and {len(columns) - 5 - _CLASSES_SHOWN} more classes (--table FILE.csv has all)")


def _check(report: SeriesReport) -> None:
    """Raise a :class:`SeriesError` if tasks failed."""
    from hrvol.errors import SeriesError

    failed = report.failed
    skipped = [outcome for outcome in report.outcomes if outcome.state == "skipped"]
    if failed or skipped:
        first = (failed or skipped)[0]
        counts = [(len(failed), "failed"), (len(skipped), "skipped")]
        what = ", ".join(f"{number} {state}" for number, state in counts if number)
        raise SeriesError(f"{what} of {len(report.outcomes)} tasks; {first.task.id}: {first.reason}")
