"""Train on strokes, segment many volumes, compare with truths where there are any: a Prefect 3 flow.

    python prefect_flow.py config.yaml

Only the command ``hrvol`` is called, so Prefect may live in an environment of its own. config.yaml is that of
the Snakefile beside this file. A flow that failed or was stopped goes on where it was when it is run again.
"""

import json
import sys
from pathlib import Path
from subprocess import PIPE, CalledProcessError, Popen, TimeoutExpired, run

import yaml
from prefect import flow, get_run_logger, task
from prefect.states import State


def hrvol(*words: str, log: str, labels: str = "", look: float | None = None) -> None:
    """Run ``hrvol``, its output appended to a file; every ``look`` seconds tell how far the labels are."""
    with open(log, "ab") as sink, Popen(["hrvol", *words], stdout=sink, stderr=sink) as process:
        try:
            while process.poll() is None:
                try:
                    process.wait(look)
                except TimeoutExpired:
                    told = run(["hrvol", "status", labels, "--json"], capture_output=True)
                    if told.returncode == 0:  # at the very beginning there is nothing to tell
                        status = json.loads(told.stdout)
                        get_run_logger().info("%s: %d of %d blocks", labels, status["done"], status["total"])
        finally:  # where the flow is cancelled hrvol is told to stop, and waited for
            process.terminate()
            process.wait()
    if process.returncode:
        get_run_logger().error("%s", Path(log).read_text().strip().rpartition("\n")[2])
        raise CalledProcessError(process.returncode, ["hrvol", *words])


def resumable(task: object, run: object, state: State) -> bool:
    """Whether another try may help: blocks failed, or it was stopped (75) or killed."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CalledProcessError) and (error.returncode in (1, 75) or error.returncode < 0)


@task
def train(pairs: list[str], model: str, recipe: str, classes: list[str]) -> None:
    """Train a model, unless there is one: delete it to train anew."""
    names = ["--classes", ",".join(classes)] if classes else []
    if not Path(model).exists():
        hrvol("train", *pairs, "-o", model, "--recipe", recipe, *names, log=f"{model}.log")


@task(task_run_name="plan {labels}")
def plan(volume: str, labels: str, model: str, workers: int) -> None:
    """Try a few blocks, and fail at once where memory, disk or permissions do not suffice."""
    hrvol("plan", volume, labels, "-m", model, "--workers", str(workers), log=f"{labels}.log")


@task(task_run_name="segment {labels}", retries=3, retry_condition_fn=resumable)
def segment(volume: str, labels: str, model: str, workers: int, look: float) -> None:
    """Segment one volume; a further try goes on where the one before stopped."""
    words = ["segment", volume, labels, "-m", model, "--engine", "local", "--workers", str(workers)]
    hrvol(*words, log=f"{labels}.log", labels=labels, look=look)


@task(task_run_name="evaluate {labels}")
def evaluate(labels: str, truth: str) -> None:
    """Log how well labels agree with a truth."""
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
    look: float = 30,
) -> list[State]:
    """Train once, then segment one volume after the other; one that fails does not hold up the others."""
    Path(out).mkdir(parents=True, exist_ok=True)
    model = f"{out}/model.hrvol"
    train([path for name in strokes for path in (volumes[name], strokes[name])], model, recipe, classes or [])
    patient, states = segment.with_options(retry_delay_seconds=retry_delay), []
    for name, volume in volumes.items():
        labels = f"{out}/{name}.ome.zarr"
        states.append(plan(volume, labels, model, workers, return_state=True))
        if states[-1].is_completed():
            states.append(patient(volume, labels, model, workers, look, return_state=True))
        if states[-1].is_completed() and truth and name in truth:
            states.append(evaluate(labels, truth[name], return_state=True))
    return states  # the flow has failed where one of them has


if __name__ == "__main__":
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    sys.exit(0 if all(state.is_completed() for state in segment_volumes(**settings)) else 1)
