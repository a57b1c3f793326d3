"""The Prefect flow run as it stands, with a server of its own that lives as long as it does."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from flow_data import (
    PATIENCE,
    WORKFLOWS,
    assert_resumed,
    block_files,
    environment,
    interrupt_first_segment,
    prepare,
    status,
    tool,
    wait_for,
)

FLOW = WORKFLOWS / "prefect_flow.py"


def started(folder, home, *first):
    """Start the flow, with nothing of Prefect's outside a folder and nothing sent anywhere."""
    python = Path(tool("prefect")).with_name("python")
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    env = environment(*first, **variables)
    env.pop("PREFECT_API_URL", None)  # a temporary server, not that of the user who runs the tests
    return subprocess.Popen(
        [str(python), str(FLOW), "config.yaml"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    try:
        return process.communicate(timeout=2 * PATIENCE)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Prefect's own folder: its database is made once."""
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture(scope="module")
def project(tmp_path_factory, home):
    """A folder in which the flow was run, one volume missing, the other's segmentation stopped on the way."""
    tool("prefect")
    folder = tmp_path_factory.mktemp("prefect")
    prepare(folder, volumes={"missing": "missing.tif", "a": "a.tif"}, retry_delay=0.1, progress_interval=4)
    programs, kept = interrupt_first_segment(folder)
    process = started(folder, home, programs)
    log = finished(process)
    return folder, kept, log, process.returncode


def test_a_volume_is_segmented_and_compared_with_its_truth(project):
    folder, _, log, _ = project
    assert status(folder / "results" / "a.ome.zarr")["state"] == "complete"
    assert re.search(r"results/a\.ome\.zarr: mean IoU 0\.[89]", log), log


def test_a_stopped_segmentation_is_tried_again_and_keeps_its_blocks(project):
    _, kept, log, _ = project
    assert "CalledProcessError(75" in log
    assert log.count("Retry 1/3") == 1
    assert_resumed(kept)


def test_progress_is_logged(project):
    _, _, log, _ = project
    assert re.search(r"results/a\.ome\.zarr: \d+ of 72 blocks", log)


def test_a_missing_volume_fails_the_flow_but_does_not_stop_the_others(project):
    _, _, log, code = project
    assert code == 1
    assert re.search(r"hrvol: error: .*missing\.tif", log)
    assert "segment results/missing.ome.zarr" not in log


def test_a_cancelled_flow_stops_hrvol_in_good_order_and_a_wrong_setting_ends_it_at_once(
    project, tmp_path, home
):
    prepare(tmp_path, volumes={"a": "a.tif"})
    (tmp_path / "results").mkdir()
    shutil.copy(project[0] / "results" / "model.hrvol", tmp_path / "results")
    process = started(tmp_path, home)
    labels = tmp_path / "results" / "a.ome.zarr"
    wait_for(lambda: len(block_files(labels)) >= 4, process)
    process.send_signal(signal.SIGINT)
    log = finished(process)
    assert process.returncode != 0, log
    then = status(labels)
    assert then["state"] == "stopped"
    assert then["done"] >= 4
    assert then["left"] > 0

    prepare(tmp_path, volumes={"a": "a.tif"}, workers=0)
    process = started(tmp_path, home)
    log = finished(process)
    assert process.returncode == 1
    assert re.search("hrvol: error:.*--workers", log), log
    assert "segment results" not in log
    assert status(labels)["done"] == then["done"]
