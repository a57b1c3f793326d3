"""The command ``hrvol run`` killed, interrupted and run again; many tasks of one file at a time."""

import json
import signal
import subprocess

import numpy as np
import pytest
import zarr
from flow_data import PATIENCE, block_files, environment, prepare_series, status, wait_for


@pytest.fixture
def project(tmp_path):
    prepare_series(tmp_path, b="a.tif")
    return tmp_path


def started(folder, *words):
    return subprocess.Popen(
        ["hrvol", "run", "series.yaml", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    try:
        return process.communicate(timeout=PATIENCE)
    finally:
        process.kill()


def files_of(labels):
    return {path: path.stat().st_mtime_ns for path in block_files(labels)}


def test_a_series_that_is_killed_and_interrupted_resumes_where_it_was(project):
    labels = {name: project / "results" / f"{name}.ome.zarr" for name in "ab"}
    process = started(project)
    wait_for(lambda: len(block_files(labels["a"])) >= 6, process)
    process.kill()
    process.wait()

    process = started(project)
    wait_for(lambda: len(block_files(labels["b"])) >= 6, process)
    process.send_signal(signal.SIGINT)
    output, log = finished(process)
    assert process.returncode == 130, log
    assert "run the same command to resume" in log.splitlines()[-1]
    assert [line.split()[:2] for line in output.splitlines()[1:]] == [["a", "done"], ["b", "stopped"]]
    assert "train: up to date" in log
    assert status(labels["b"])["state"] == "stopped"
    kept = files_of(labels["b"])
    model = (project / "results" / "model.hrvol").stat().st_mtime_ns

    process = started(project, "--json")
    output, log = finished(process)
    assert process.returncode == 0, log
    report = json.loads(output)
    found = {task["id"]: task["state"] for task in report["tasks"]}
    assert found["train"] == found["segment.a"] == found["export.a"] == "up to date"
    assert found["segment.b"] == found["export.b"] == "done"
    assert [row["state"] for row in report["volumes"]] == ["done", "done"]
    assert (project / "results" / "model.hrvol").stat().st_mtime_ns == model
    now = files_of(labels["b"])
    assert all(now[path] == when for path, when in kept.items())
    first, second = (
        zarr.open_array(path / "labels" / "hrvol" / "0", mode="r")[:] for path in labels.values()
    )
    np.testing.assert_array_equal(first, second)  # of one file, killed here and interrupted there


def test_failures_end_with_exit_code_1_and_one_line(project):
    process = started(project, "--task", "segment.b")
    output, log = finished(process)
    assert process.returncode == 1
    assert log.splitlines()[-1] == ("hrvol: error: 1 skipped of 1 tasks; segment.b: needs train (not done)")
    assert output.split() == ["volume", "state", "voxels", "time", "mIoU", "b", "skipped", "-", "0", "s", "-"]


def test_two_tasks_of_one_file_at_a_time(project):
    process = started(project, "--task", "train")
    assert finished(process)
    assert process.returncode == 0
    both = [started(project, "--task", f"segment.{name}") for name in "ab"]
    logs = [finished(process)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], logs
    process = started(project, "--dry-run", "--json")
    found = {task["id"]: task["state"] for task in json.loads(finished(process)[0])["tasks"]}
    assert found["segment.a"] == found["segment.b"] == "up to date"
    assert found["export.a"] == "to do"
