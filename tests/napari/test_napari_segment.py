"""The panel *Segment* in a real viewer: plan, start, stop, resume, watch, errors, and what it copies."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_data import make_volume

from hrvol.errors import UsageError
from hrvol.run.status import run_status
from hrvol.volume.volume import open_labels, open_volume
from hrvol.volume.write_image import write_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def panel(viewer):
    """The panel in the dock of the viewer, as the menu opens it."""
    from hrvol.napari.commands import show

    panel = show("Segment", viewer)
    panel.model.set_path("")
    panel.output.set_path("")
    panel.region.set_box(None)
    panel.weights.setText("")
    for box in (panel.distil, panel.uncertainty, panel.probabilities, panel.background_mask, panel.fresh):
        box.setChecked(False)
    panel.engine.setCurrentText("serial")
    panel.plan_seconds = 0.5
    panel.run._opens.setChecked(True)
    return panel


def fill(panel, files, out):
    panel.volume.set_path(str(files / "volume.ome.zarr"))
    panel.model.set_path(str(files / "model.hrvol"))
    panel.output.set_path(str(out))


def state(panel):
    return None if panel.run.status is None else panel.run.status["state"]


def done(out):
    return run_status(out)["done"] if (out / "ledger").is_dir() else 0


def labels_of(path):
    return open_labels(path).read()


def test_plan_start_stop_resume_and_open(panel, viewer, files, grey, wait, news, tmp_path):
    from qtpy.QtWidgets import QApplication

    from hrvol.napari.window_guard import guard

    out = tmp_path / "labels.ome.zarr"
    fill(panel, files, out)
    # Enough blocks that the run is not over before it is stopped.
    placed = {"voxel_size": (50.0, 4.0, 4.0), "unit": "nanometer"}
    volume = replace(open_volume(np.tile(grey, (20, 1, 1))), **placed)
    write_image(tmp_path / "long.ome.zarr", volume)
    panel.volume.set_path(str(tmp_path / "long.ome.zarr"))
    assert not panel.start_button.isEnabled()
    guard(viewer.window._qt_window, panel.plan_box._jobs)
    panel.plan_button.click()
    wait(panel.start_button.isEnabled)
    for word in ("Time", "Memory", "Disk", "serial, 1 worker", "free"):
        assert word in panel.plan_text.text()
    assert not out.exists()  # a plan leaves nothing

    panel.start_button.click()
    wait(lambda: done(out) > 1)
    panel.run._stop.click()
    wait(panel.run._resume.isEnabled)
    assert 0 < panel.run._bar.value() < 1000
    assert any("stopped, can be resumed" in line for _, line in news())
    status = panel.run.status
    assert status["state"] == "stopped"
    assert 0 < status["done"] < status["total"]

    panel.run._resume.click()
    wait(lambda: "labels.ome.zarr" in viewer.layers)
    layer = viewer.layers["labels.ome.zarr"]
    labels = labels_of(out)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), labels)
    assert labels.all()
    assert list(layer.features["class"]) == ["-", "matrix", "disc"]
    assert layer.multiscale
    np.testing.assert_allclose(layer.scale, (50, 4, 4))
    assert state(panel) == "complete"
    assert not panel.run._stop.isEnabled()
    table = panel.run.measures
    wait(lambda: not table.isHidden())
    counts = np.bincount(labels.ravel())[1:]
    for number in counts:
        assert f"{number:,}" in table.text.text()
    assert "µm³" in table.text.text()
    table.copy_button.click()
    head, *lines = QApplication.clipboard().text().splitlines()
    assert head.split("\t") == ["class", "voxels", "fraction", "µm³"]
    assert [line.split("\t")[:2] for line in lines] == [["matrix", str(counts[0])], ["disc", str(counts[1])]]
    assert float(lines[0].split("\t")[3]) == pytest.approx(counts[0] * 800e-9)
    assert not [line for severity, line in news() if severity == "error"]


def test_a_changed_request_has_to_be_planned_again(panel, files, tmp_path):
    fill(panel, files, tmp_path / "labels.ome.zarr")
    request = panel.collect()()
    panel._show_plan(request, example_plan(), "")
    assert panel.start_button.isEnabled()
    panel.uncertainty.setChecked(True)
    assert not panel.start_button.isEnabled()
    assert panel.plan_text.text() == ""


def test_a_plan_that_does_not_fit_cannot_be_started(panel, files, tmp_path):
    fill(panel, files, tmp_path / "labels.ome.zarr")
    panel._show_plan(panel.collect()(), example_plan(), "memory: found 1 MiB free")
    assert not panel.start_button.isEnabled()
    assert "memory: found 1 MiB free" in panel.plan_text.text()


def example_plan():
    sizes = ("memory_needed", "output_bytes", "memory_free", "disk_free", "worker_memory")
    times = {"seconds": 7200.0, "voxels": 10**9, "blocks": 100, "done": 3, "workers": 2, "engine": "local"}
    students = [{"size": "small", "seconds": 60.0, "distil_s": 300.0}]
    return {
        **dict.fromkeys(sizes, 2**30),
        **times,
        "gpu_needed": None,
        "gpu_free": None,
        "by_workers": [{"workers": 1, "seconds": 14400.0}, {"workers": 2, "seconds": 7200.0}],
        "students": students,
        "notes": [],
    }


def test_a_plan_in_words():
    from hrvol.napari.texts import plan_rows, table

    rows = dict(plan_rows(example_plan()))
    assert rows["Time"] == "2 h 00 min"
    assert rows["Memory"] == "1 GiB of 1 GiB free"
    assert rows["  with 1 worker"] == "4 h 00 min"
    assert rows["  small student"] == "about 1 min 00 s, and 5 min 00 s to distil it"
    assert plan_rows(example_plan(), distil=True)[0] == ("Time, small student", "about 1 min 00 s")
    assert "&lt;b&gt;" in table([("a", "<b>")])


def test_what_is_copied_is_what_is_run(panel, viewer, files, tmp_path, wait, news):
    from qtpy.QtWidgets import QApplication

    fill(panel, files, tmp_path / "a b.ome.zarr")
    panel.engine.setCurrentText("local")
    panel.workers.setValue(2)
    panel.uncertainty.setChecked(True)
    request = panel.collect()()
    clipboard = QApplication.clipboard()
    clipboard.clear()  # other panels copy commands, too
    panel.copy_button.click()
    wait(lambda: clipboard.text().startswith("hrvol "))
    assert shlex.split(clipboard.text()) == ["hrvol", *request.arguments()]
    assert request.arguments() == (
        *("segment", str(files / "volume.ome.zarr"), str(tmp_path / "a b.ome.zarr"), "-m"),
        *(str(files / "model.hrvol"), "--uncertainty", "--workers", "2"),
    )
    panel.slurm_button.click()
    wait(lambda: clipboard.text().startswith("#!"))
    panel.workers.setValue(0)
    script = clipboard.text()
    assert (
        f"set -- {files}/volume.ome.zarr '{tmp_path}/a b.ome.zarr' {files}/model.hrvol --uncertainty"
        in script
    )
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_job_script_is_that_of_the_workflows():
    from hrvol.napari.requests import SegmentRequest
    from hrvol.napari.slurm import TEMPLATE, job_script

    house = (ROOT / "workflows" / "slurm_array.sbatch").read_text(encoding="utf-8")
    assert (ROOT / "hrvol" / "napari" / TEMPLATE).read_text(encoding="utf-8") == house
    script = job_script(SegmentRequest("v.zarr", "m.hrvol", "o.zarr"), jobs=3, cpus=4, worker_memory=2**30)
    assert "\n#SBATCH --array=1-3 " in script
    assert "\n#SBATCH --cpus-per-task=4\n" in script
    assert "\n#SBATCH --mem=5G " in script
    assert script.endswith(house.partition("set -euo pipefail\n")[2])
    with pytest.raises(UsageError, match="distilled first"):
        job_script(SegmentRequest("v.zarr", "m.hrvol", "o.zarr", distil=True))


def test_a_rectangle_on_some_planes_is_the_region(panel, viewer, files, tmp_path):
    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    fill(panel, files, tmp_path / "labels.ome.zarr")
    # y 20 to 59.5 and x 30 to 90 in pixels of 4 nm, the volume's first voxel at y = 40 nm.
    y0, y1, x0, x1 = 40 + 20 * 4, 40 + 59.5 * 4, 30 * 4, 90 * 4
    corners = np.array([[100, y0, x0], [100, y0, x1], [100, y1, x1], [100, y1, x0]], float)
    viewer.add_shapes([corners], shape_type="rectangle", name="part", units="nm")
    panel.region.choose("part")
    panel.region.set_planes(1, 2)
    request = panel.collect()()
    assert request.region == (slice(1, 3), slice(20, 60), slice(30, 91))
    assert "--roi" in request.arguments()
    assert "1:3,20:60,30:91" in request.arguments()
    panel.region.choose("Present plane")
    viewer.dims.set_point(0, 100 + 2 * 50)
    assert panel.collect()().region == (slice(2, 3), slice(0, 300), slice(0, 260))
    panel.region.choose("Whole volume")
    assert panel.collect()().region is None


def test_the_present_plane_is_one_of_the_volume(panel, viewer, files, tmp_path):
    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    fill(panel, files, tmp_path / "labels.ome.zarr")
    # The sliders have steps of the smallest scale, from the first place of all layers.
    viewer.add_image(np.zeros((400, 8, 8), np.uint8), translate=(-8, 0, 0), units="nm")
    viewer.dims.set_point(0, 100 + 2 * 50)
    corners = np.array([[200, 40, 0], [200, 40, 90], [200, 90, 90], [200, 90, 0]], float)
    viewer.add_shapes([corners], shape_type="rectangle", name="part", units="nm")
    assert viewer.dims.current_step[0] > 4
    panel.region.choose("part")
    assert panel.collect()().region[0] == slice(2, 3)


def test_a_rectangle_outside_is_an_error(panel, viewer, files, tmp_path, wait, news):
    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    fill(panel, files, tmp_path / "labels.ome.zarr")
    corners = np.array([[-9e4, -9e4], [-9e4, -8e4], [-8e4, -8e4], [-8e4, -9e4]])
    viewer.add_shapes([corners], shape_type="rectangle", name="far", units="nm")
    panel.region.choose("far")
    panel.plan_button.click()
    wait(news)
    ((severity, line),) = news()
    assert severity == "error"
    assert "region: found none of its voxels inside the volume" in line


def test_errors_are_one_line(panel, files, tmp_path, wait, news):
    fill(panel, files, tmp_path / "labels.ome.zarr")
    panel.model.set_path("")
    panel.plan_button.click()
    wait(news)
    assert news()[-1] == ("error", "hrvol: model: found none, expected a path")

    panel.model.set_path(str(files / "volume.ome.zarr" / "zarr.json"))
    panel.plan_button.click()
    wait(lambda: len(news()) > 1)
    assert news()[-1][0] == "error"
    assert "zarr.json" in news()[-1][1]
    assert not panel.start_button.isEnabled()


def test_a_layer_in_memory_is_saved_once(panel, viewer, files, tmp_path, grey):
    layer = viewer.add_image(grey, name="in memory", scale=(50, 4, 4), units="nm")
    fill(panel, files, tmp_path / "labels.ome.zarr")
    panel.volume.set_layer(layer)
    first, second = panel.collect()(), panel.collect()()
    assert first.volume == second.volume
    from hrvol.volume.volume import open_volume

    saved = open_volume(first.volume)
    np.testing.assert_array_equal(saved.read(), grey)
    assert (saved.voxel_size, saved.unit) == ((50, 4, 4), "nanometer")
    layer.data = grey[:, ::-1]
    assert panel.collect()().volume != first.volume


def test_watch_a_run_from_elsewhere_and_stop_it(panel, viewer, files, wait, news, tmp_path):
    out, volume = tmp_path / "elsewhere.ome.zarr", tmp_path / "large.npy"
    image = np.tile(make_volume(shape=(20, 300, 300))[0], (20, 1, 1))  # it must not end before it is stopped
    np.save(volume, image)
    arguments = ["segment", str(volume), str(out), "-m", str(files / "model.hrvol")]
    command = [sys.executable, "-m", "hrvol", *arguments, "--engine", "serial", "--uncertainty"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: (out / "ledger").is_dir())
        panel.run.watch(str(out))
        panel.run.watched.emit(str(out))  # as the dialog does
        wait(panel.run._stop.isEnabled)
        assert state(panel) == "running"
        assert not panel.run._resume.isEnabled()
        panel.run._stop.click()
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
    wait(panel.run._resume.isEnabled)
    assert panel.volume.file()() == str(volume)
    assert panel.output.path() == str(out)
    assert panel.uncertainty.isChecked()
    assert panel.run.status["left"] > 0


def test_what_is_no_run_is_not_watched(panel, files, wait, news):
    panel.run.watch(str(files / "volume.ome.zarr"))
    wait(news)
    assert news()[-1][0] == "error"
    assert "found no output of a run" in news()[-1][1]
    assert not panel.run._timer.isActive()


def test_only_hrvol_itself_is_stopped(tmp_path, wait):
    import os
    import socket

    from hrvol.napari.drivers import local_driver

    path = str(tmp_path / "mine.ome.zarr")
    driver = {"state": "running", "host": socket.gethostname(), "pid": os.getpid()}
    assert local_driver({"path": path, "drivers": [driver]}) is None  # pytest is not it
    assert local_driver({"path": path, "drivers": [driver | {"pid": 2**31 - 1}]}) is None
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, "hrvol", path])
    try:
        status = {"path": path, "drivers": [driver | {"pid": process.pid}]}
        wait(lambda: local_driver(status) is not None)  # its command line appears a moment after its start
        assert local_driver(status).pid == process.pid
        assert local_driver({"path": path, "drivers": [driver | {"pid": process.pid, "host": "x"}]}) is None
        assert local_driver(status | {"path": str(tmp_path / "other.ome.zarr")}) is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("choice", "closes"), [("Keep running", True), ("Stop", True), ("Cancel", False)])
def test_closing_asks_what_becomes_of_runs(viewer, wait, choice, closes):
    """The dock's guard on a window of its own: the viewer's has to stay open for other tests."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

    from hrvol.napari.jobs import Jobs
    from hrvol.napari.process import Process
    from hrvol.napari.window_guard import guard

    window = QWidget()
    jobs = Jobs(window)
    guard(window, jobs)
    process = Process.start(("0",), "tests_napari_sleeper")  # ends with an error at once
    assert process.wait(30) == 1
    jobs.add(process, "ended.ome.zarr")
    window.show()
    sleeper = Sleeper()
    jobs.add(sleeper, "labels.ome.zarr")

    def answer():
        boxes = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()]
        if not boxes:
            QTimer.singleShot(20, answer)
            return
        assert "labels.ome.zarr" in boxes[0].text()
        assert "ended.ome.zarr" not in boxes[0].text()
        next(b for b in boxes[0].buttons() if b.text().replace("&", "") == choice).click()

    QTimer.singleShot(0, answer)
    assert window.close() is closes
    assert sleeper.stopped is (choice == "Stop")
    window.hide()
    window.deleteLater()


def test_nothing_ends_unless_the_window_closes(viewer):
    """Two docks in a window that refuses to close, as napari's does when its own dialog is cancelled."""
    from qtpy.QtWidgets import QWidget

    from hrvol.napari.jobs import Jobs
    from hrvol.napari.window_guard import guard

    class Window(QWidget):
        accepts = False

        def closeEvent(self, event):
            event.setAccepted(self.accepts)

    window = Window()
    ended, saves = [], [False]
    for name in ("first", "second"):
        jobs = Jobs(QWidget(window))
        jobs.closing.connect(lambda name=name: ended.append(name))
        guard(window, jobs)
    jobs.save_first(lambda: saves[-1])
    window.show()
    window.accepts = True
    assert not window.close()  # what is unsaved keeps it open
    saves.append(True)
    window.accepts = False
    assert not window.close()
    assert ended == []
    assert window.isVisible()
    window.accepts = True
    assert window.close()
    assert ended == ["first", "second"]
    window.deleteLater()


class Sleeper:
    """What the guard uses of a process that runs."""

    running = True
    stopped = False

    def stop(self):
        self.stopped = True


def test_a_command_of_the_menu_opens_its_panel(viewer):
    from hrvol.napari import commands

    titles = {"Segment": "show_segment", "Distil": "show_distil", "Cluster": "show_cluster"}
    docks = set()
    for title, name in (titles | {"Similar": "show_similar"}).items():
        panel = getattr(commands, name)()
        assert panel.title == title
        docks.add(panel.window())
        tabs = panel.hub.parent().tabs
        assert tabs.tabText(tabs.currentIndex()) == title
    assert len(docks) == 1


def test_processes_say_how_far_they_are():
    from hrvol.napari.process import progress_of

    progress = progress_of("k-means: 35 % (1.2 M of 3.4 M voxels), 12 k voxels/s, 3 min left")
    assert (progress.percent, progress.text) == (35, "k-means: 12 k voxels/s, 3 min left")
    assert progress_of("hrvol: stopped").percent is None


def test_a_status_is_json(output):
    assert json.dumps(run_status(output))
