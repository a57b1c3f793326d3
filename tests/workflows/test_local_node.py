"""The script for one machine, stopped and run again."""

import signal
import subprocess

from flow_data import PATIENCE, WORKFLOWS, block_files, prepare, status, wait_for

import hrvol


def test_the_local_script_resumes_after_ctrl_c(tmp_path, quick):
    prepare(tmp_path)
    names = ["pore", "binder", "particle"]
    pair = tmp_path / "a.tif", tmp_path / "strokes.tif"
    model = hrvol.train_model([pair], recipe=tmp_path / "recipe.yaml", classes=names)
    hrvol.save_model(model, tmp_path / "model.hrvol")
    command = [quick / "script", WORKFLOWS / "local_node.py", "a.tif", "strokes.tif", "out.ome.zarr"]
    out = tmp_path / "out.ome.zarr"

    def start():
        return subprocess.Popen([*command, "--workers", "1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    process = start()
    try:
        wait_for(lambda: len(block_files(out)) >= 4, process)
        process.send_signal(signal.SIGINT)
        log = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == 130, log
    then = status(out)
    assert then["state"] == "stopped"
    assert then["done"] >= 4

    process = start()
    log = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, log
    assert "using model.hrvol" in log
    assert status(out)["state"] == "complete"
