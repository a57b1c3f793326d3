"""The Snakefile run by Snakemake as it stands, in the environment of Snakemake."""

import csv
import json
import subprocess

import pytest
from flow_data import (
    PATIENCE,
    WORKFLOWS,
    assert_resumed,
    environment,
    interrupt_first_segment,
    prepare,
    prepare_series,
    tool,
)


def snakemake(folder, *words, first=()):
    command = [tool("snakemake"), "-s", str(WORKFLOWS / "Snakefile"), "--cores", "2", *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment(*first), capture_output=True, text=True, timeout=2 * PATIENCE
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which the workflow was run, its first segmentation having been stopped on the way."""
    tool("snakemake")
    folder = tmp_path_factory.mktemp("snakemake")
    prepare(folder)
    programs, kept = interrupt_first_segment(folder)
    run = snakemake(folder, first=[programs])
    assert run.returncode == 0, run.stderr
    return folder, kept, run


def test_a_volume_is_segmented_and_compared_with_its_truth(project):
    folder, _, _ = project
    status = json.loads((folder / "results" / "a.json").read_text())
    assert status["state"] == "complete"
    assert status["done"] == status["total"] == 36
    assert json.loads((folder / "results" / "a.scores.json").read_text())["miou"] > 0.8


def test_a_stopped_segmentation_is_tried_again_and_keeps_its_blocks(project):
    _, kept, run = project
    assert "Trying to restart job" in run.stderr
    assert_resumed(kept)


def test_complete_results_are_not_computed_again(project):
    folder, _, _ = project
    run = snakemake(folder)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stderr


def test_volumes_in_an_object_store_are_passed_on_and_not_watched(tmp_path):
    far = "s3://bucket/far.ome.zarr"
    prepare(tmp_path, volumes={"a": "a.tif", "far": far}, truth={"far": "s3://bucket/truth"})
    run = snakemake(tmp_path, "--dry-run", "--printshellcmds")
    assert run.returncode == 0, run.stderr
    assert f"hrvol segment {far} results/far.ome.zarr -m results/model.hrvol" in run.stdout
    assert "hrvol evaluate results/far.ome.zarr s3://bucket/truth --json" in run.stdout
    assert "hrvol segment a.tif results/a.ome.zarr" in run.stdout
    assert "hrvol evaluate results/a" not in run.stdout


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A folder in which a workflow file of hrvol run was run, its segmentation stopped on the way."""
    tool("snakemake")
    folder = tmp_path_factory.mktemp("series")
    prepare_series(folder)
    programs, kept = interrupt_first_segment(folder)
    run = snakemake(folder, "--configfile", folder / "series.yaml", first=[programs])
    assert run.returncode == 0, run.stderr
    return folder, kept, run


def test_a_workflow_file_is_run_by_its_tasks(series):
    folder, _, run = series
    assert run.stderr.count("rule task:") >= 4
    tasks = sorted(path.stem for path in (folder / "results" / "tasks").glob("*.json"))
    assert tasks == ["evaluate.a", "export.a", "segment.a", "train"]
    assert (folder / "results" / "a.tif").is_file()
    with (folder / "results" / "series.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["state"] == "done"
    assert float(row["mIoU"]) > 0.8


def test_a_stopped_task_of_a_workflow_file_is_tried_again_and_keeps_its_blocks(series):
    _, kept, run = series
    assert "Trying to restart job" in run.stderr
    assert_resumed(kept)


def test_a_workflow_file_that_is_done_and_one_that_is_wrong(series):
    folder, _, _ = series
    run = snakemake(folder, "--configfile", folder / "series.yaml")
    assert run.returncode == 0
    assert "Nothing to be done" in run.stderr
    text = (folder / "series.yaml").read_text()
    (folder / "wrong.yaml").write_text(text.replace("uncertainty", "uncertain"))
    run = snakemake(folder, "--configfile", folder / "wrong.yaml")
    assert run.returncode == 1
    assert "steps.segment.uncertain: unknown key; did you mean uncertainty?" in run.stderr
