"""The Prefect flow run as it stands, with a server of its own."""

import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from flow_data import (
    PATIENCE,
    WORKFLOWS,
    assert_resumed,
    block_files,
    environment,
    interrupt_first_segment,
    prepare,
    prepare_series,
    status,
    tool,
    wait_for,
)

FLOW = WORKFLOWS / "prefect_flow.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Variables of a Prefect server on loopback, with nothing outside a folder and nothing sent anywhere."""
    variables = {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect-home")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = ("--host", "127.0.0.1", "--port", str(port), "--no-services")
    command = [tool("prefect"), "server", "start", *here]
    process = subprocess.Popen(
        command, env=environment(**variables), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: answers(f"{url}/health"), process)
        yield {**variables, "PREFECT_API_URL": url}
    finally:
        process.terminate()
        process.wait()


def answers(url):
    try:
        with urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def started(folder, server, *first, words=("config.yaml",)):
    """Start the flow."""
    python = Path(tool("prefect")).with_name("python")
    return subprocess.Popen(
        [str(python), str(FLOW), *words],
        cwd=folder,
        env=environment(*first, **server),
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
def project(tmp_path_factory, server):
    """A folder in which the flow was run, one volume missing, the other's segmentation stopped on the way."""
    folder = tmp_path_factory.mktemp("prefect")
    prepare(folder, volumes={"missing": "missing.tif", "a": "a.tif"}, retry_delay=0.1, progress_interval=0.2)
    programs, kept = interrupt_first_segment(folder)
    process = started(folder, server, programs)
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
    assert re.search(r"results/a\.ome\.zarr: \d+ of 36 blocks", log)


def test_a_missing_volume_fails_the_flow_but_does_not_stop_the_others(project):
    _, _, log, code = project
    assert code == 1
    assert re.search(r"hrvol: error: .*missing\.tif", log)
    assert "segment results/missing.ome.zarr" not in log


def test_a_cancelled_flow_stops_hrvol_in_good_order_and_a_wrong_setting_ends_it_at_once(
    project, tmp_path, server
):
    prepare(tmp_path, volumes={"a": "a.tif"})
    (tmp_path / "results").mkdir()
    shutil.copy(project[0] / "results" / "model.hrvol", tmp_path / "results")
    process = started(tmp_path, server)
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
    process = started(tmp_path, server)
    log = finished(process)
    assert process.returncode == 1
    assert re.search("hrvol: error:.*--workers", log), log
    assert "segment results" not in log
    assert status(labels)["done"] == then["done"]


def test_a_workflow_file_is_run_by_its_tasks(tmp_path, server):
    prepare_series(tmp_path, missing={"path": "missing.tif", "truth": "truth.tif"})
    programs, kept = interrupt_first_segment(tmp_path)
    process = started(tmp_path, server, programs, words=("series.yaml", "0.1", "0.2"))
    log = finished(process)
    assert process.returncode == 1, log
    results = tmp_path / "results"
    assert status(results / "a.ome.zarr")["state"] == "complete"
    assert_resumed(kept)
    assert "CalledProcessError(75" in log
    assert re.search(r"results/a\.ome\.zarr: \d+ of 36 blocks", log)
    assert (results / "a.tif").is_file()
    assert re.search(r"hrvol: error: .*missing\.tif", log)
    assert "evaluate.missing: skipped, because a task that it needs has failed" in log
    a, missing = (results / "series.csv").read_text().splitlines()[1:]
    assert a.startswith("a,done,78000,")
    assert missing.startswith("missing,failed,")
