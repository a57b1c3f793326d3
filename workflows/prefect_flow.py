"""Run a workflow over many volumes: train, segment, compare with ground truth, export. A Prefect 3 flow.

    python prefect_flow.py series.yaml

Only the command ``hrvol`` is called, so Prefect can be installed in its own environment. series.yaml is a
file of ``hrvol run`` (docs/how-to/series.md), of which each task becomes one of Prefect, or a file without
``steps`` as for the Snakefile beside this one. Run a flow that failed or was stopped again to resume it.
"""

import json
import sys
from pathlib import Path
from subprocess import PIPE, CalledProcessError, Popen, TimeoutExpired, run

import yaml
from prefect import flow, get_run_logger, task
from prefect.states import State


def hrvol(*arguments: str, log: str, labels: str = "", interval: float | None = None) -> None:
    """Run ``hrvol``, append its output to a file, and log progress every ``interval`` seconds."""
    with open(log, "ab") as output, Popen(["hrvol", *arguments], stdout=output, stderr=output) as process:
        try:
            while process.poll() is None:
                try:
                    process.wait(interval)
                except TimeoutExpired:
                    reply = run(["hrvol", "status", labels, "--json"], capture_output=True)
                    if reply.returncode == 0:  # before the labels exist it fails
                        status = json.loads(reply.stdout)
                        get_run_logger().info("%s: %d of %d blocks", labels, status["done"], status["total"])
        finally:  # if the flow is cancelled, stop hrvol and wait for it
            process.terminate()
            process.wait()
    if process.returncode:
        get_run_logger().error("%s", Path(log).read_text().strip().rpartition("\n")[2])
        raise CalledProcessError(process.returncode, ["hrvol", *arguments])


def resumable(task: object, run: object, state: State) -> bool:
    """Return whether to try again: blocks failed (1), or the run was stopped (75) or killed."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CalledProcessError) and (error.returncode in (1, 75) or error.returncode < 0)


@task(task_run_name="{name}", retries=3, retry_condition_fn=resumable)
def run_task(workflow: str, name: str, out: str, labels: str, interval: float | None) -> None:
    """Do one task of a workflow of ``hrvol run``; another try resumes the previous one."""
    hrvol("run", workflow, "--task", name, log=f"{out}/tasks/{name}.log", labels=labels, interval=interval)


@flow(name="hrvol series")
def run_workflow(workflow: str, retry_delay: float = 60, progress_interval: float = 30) -> list[State]:
    """Do the tasks of a workflow of ``hrvol run``; one that fails does not stop those that do not need it."""
    plan = json.loads(run(["hrvol", "run", workflow, "--list"], stdout=PIPE, check=True).stdout)
    Path(plan["out"], "tasks").mkdir(parents=True, exist_ok=True)
    run_again, states = run_task.with_options(retry_delay_seconds=retry_delay), {}
    for one in plan["tasks"]:
        needs = [states.get(name) for name in one["needs"]]
        if not all(state and state.is_completed() for state in needs):
            get_run_logger().warning("%s: skipped, because a task that it needs has failed", one["id"])
            continue
        labels = one["outputs"][0] if one["step"] in ("segment", "cluster") else ""
        arguments = (workflow, one["id"], plan["out"], labels, progress_interval if labels else None)
        states[one["id"]] = run_again(*arguments, return_state=True)
    table = plan["table"] or f"{plan['out']}/series.csv"
    hrvol("run", workflow, "--dry-run", "--table", table, log=f"{plan['out']}/tasks/table.log")
    return list(states.values())  # if one of them has failed, so has the flow


@task
def train(pairs: list[str], model: str, recipe: str, classes: list[str]) -> None:
    """Train a model unless it exists; delete it to train again."""
    names = ["--classes", ",".join(classes)] if classes else []
    if not Path(model).exists():
        hrvol("train", *pairs, "-o", model, "--recipe", recipe, *names, log=f"{model}.log")


@task(task_run_name="plan {labels}")
def plan(volume: str, labels: str, model: str, workers: int) -> None:
    """Run a few trial blocks; fail at once if memory, disk space or permissions do not suffice."""
    hrvol("plan", volume, labels, "-m", model, "--workers", str(workers), log=f"{labels}.log")


@task(task_run_name="segment {labels}", retries=3, retry_condition_fn=resumable)
def segment(volume: str, labels: str, model: str, workers: int, interval: float) -> None:
    """Segment one volume; another try resumes the previous one."""
    arguments = ["segment", volume, labels, "-m", model, "--engine", "local", "--workers", str(workers)]
    hrvol(*arguments, log=f"{labels}.log", labels=labels, interval=interval)


@task(task_run_name="evaluate {labels}")
def evaluate(labels: str, truth: str) -> None:
    """Log how well labels agree with the ground truth."""
    scores = json.loads(run(["hrvol", "evaluate", labels, truth, "--json"], stdout=PIPE, check=True).stdout)
    get_run_logger().info("%s: mean IoU %.3f, %s", labels, scores["miou"], scores["iou"])


@flow(name="hrvol")
def segment_volumes(
    volumes: dict[str, str],
    strokes: dict[str, str],
    truth: dict[str, str] | None = None,
    out: str = "results",
    recipe: str = "balanced",
    classes: list[str] | None = None,
    workers: int = 8,
    retry_delay: float = 60,
    progress_interval: float = 30,
) -> list[State]:
    """Train once, then segment one volume after the other; a failed volume does not stop the others."""
    Path(out).mkdir(parents=True, exist_ok=True)
    model = f"{out}/model.hrvol"
    train([path for name in strokes for path in (volumes[name], strokes[name])], model, recipe, classes or [])
    segment_again, states = segment.with_options(retry_delay_seconds=retry_delay), []
    for name, volume in volumes.items():
        labels = f"{out}/{name}.ome.zarr"
        states.append(plan(volume, labels, model, workers, return_state=True))
        if states[-1].is_completed():
            states.append(segment_again(volume, labels, model, workers, progress_interval, return_state=True))
        if states[-1].is_completed() and truth and name in truth:
            states.append(evaluate(labels, truth[name], return_state=True))
    return states  # if one of them has failed, so has the flow


if __name__ == "__main__":
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    if "steps" in settings:
        states = run_workflow(sys.argv[1], *map(float, sys.argv[2:]))  # retry delay, progress interval
    else:
        states = segment_volumes(**settings)
    sys.exit(0 if all(state.is_completed() for state in states) else 1)
