"""The panels *Distil*, *Cluster* and *Similar* in a real viewer."""

import os
from dataclasses import replace

import numpy as np
import pytest
from run_data import QUICK

from hrvol.napari.seeds import strokes_of

CLASSES = QUICK.with_(
    **{
        "cluster.clusters": 8,
        "cluster.samples": 1500,
        "cluster.sample_tiles": 3,
        "cluster.classes": 2,
        "cluster.distance": "euclidean",
    }
)


@pytest.fixture
def open_panel(viewer, files):
    from hrvol.napari.commands import show

    def opened(title):
        panel = show(title, viewer)
        panel.volume.set_path(str(files / "volume.ome.zarr"))
        return panel

    return opened


def test_classes_are_found_and_become_strokes(open_panel, viewer, files, tmp_path, wait, news):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication

    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    panel = open_panel("Cluster")
    recipe = tmp_path / "classes.yaml"
    recipe.write_text(CLASSES.to_yaml())
    panel.recipe.setCurrentText(str(recipe))
    panel.classes.setValue(3)
    panel.output.set_path(str(tmp_path / "classes.ome.zarr"))
    panel.model.set_path(str(tmp_path / "classes.hrvol"))
    viewer.dims.set_point(0, 200)
    assert panel.collect()().region == (slice(2, 3), slice(0, 300), slice(0, 260))
    panel.copy_button.click()
    wait(lambda: "--classes 3" in QApplication.clipboard().text())
    panel.run_button.click()
    wait(lambda: panel.list.count() == 3)
    assert (tmp_path / "classes.hrvol").is_file()
    labels = viewer.layers["classes.ome.zarr"]
    names = [panel.list.item(i).text() for i in range(3)]
    assert names == ["cluster 1", "cluster 2", "cluster 3"]  # no class of strokes is called so
    plane = np.asarray(labels.data[0][2])
    assert set(np.unique(plane)) == {1, 2, 3}

    panel.strokes_button.click()
    assert news()[-1] == ("error", "hrvol: strokes: found no chosen class, expected at least one")
    panel.list.item(0).setCheckState(Qt.CheckState.Checked)
    panel.list.item(2).setCheckState(Qt.CheckState.Checked)
    panel.strokes_button.click()
    wait(lambda: "strokes" in viewer.layers)
    strokes = viewer.layers["strokes"]
    np.testing.assert_array_equal(strokes.data[2], strokes_of(plane, [1, 3]))
    assert not strokes.data[[0, 1, 3]].any()
    assert list(strokes.features["class"])[1:] == [names[0], names[2]]
    np.testing.assert_allclose(strokes.scale, labels.scale)
    np.testing.assert_allclose(strokes.translate, labels.translate)
    before = strokes.data.copy()
    told = len(news())
    panel.strokes_button.click()  # the same layer again
    wait(lambda: len(news()) > told)
    np.testing.assert_array_equal(strokes.data, before)
    strokes.undo()
    assert sum(layer.name.startswith("strokes") for layer in viewer.layers) == 1


def test_strokes_keep_away_from_borders_of_classes():
    labels = np.ones((40, 60), np.uint8)
    labels[:, 30:] = 2
    labels[18:21] = 3  # nowhere wider than the margin
    labels[0, 0] = 0
    strokes = strokes_of(labels, [1, 3])
    assert set(np.unique(strokes)) == {0, 1, 3}
    assert not (strokes[strokes > 0] != labels[strokes > 0]).any()
    assert not strokes[:, 27:30][labels[:, 27:30] == 1].any()
    assert (strokes[8:14, 0] == 1).all()  # the border of the plane is none of a class
    assert (strokes[19] == 3).all()
    assert not (strokes[[18, 20]] == 3).any()
    assert not strokes_of(labels, []).any()
    assert strokes_of(labels.astype(np.uint16) * 200, [600]).dtype == np.uint16


def test_a_student_is_made_and_chosen_for_the_next_run(open_panel, viewer, files, tmp_path, wait, news):
    from hrvol.napari.commands import show

    panel = open_panel("Distil")
    panel.model.set_path(str(files / "model.hrvol"))
    panel.output.set_path(str(tmp_path / "student.hrvol"))
    panel.size.setCurrentText("small")
    panel.dimensions.setCurrentText("sees one plane")
    panel.accept.setChecked(True)
    panel.engine.setCurrentText("serial")
    request = panel.collect()()
    assert request.arguments()[:3] == ("distil", str(files / "volume.ome.zarr"), str(files / "model.hrvol"))
    assert "--3d" in request.arguments()
    panel.begin(replace(request, tiles=4, steps=2))
    assert not panel.run_button.isEnabled()
    segment = show("Segment", viewer)
    wait(lambda: segment.model.path() == str(tmp_path / "student.hrvol"))
    assert "IoU with the teacher" in panel.result.text()
    assert "small, of" in panel.result.text()
    assert panel.run_button.isEnabled()
    assert panel.model.path() == str(files / "model.hrvol")  # the teacher stays
    wait(lambda: "student" in segment.model_text.text())
    assert not [line for severity, line in news() if severity == "error"]


def test_a_process_is_cancelled(open_panel, files, tmp_path, wait, news):
    panel = open_panel("Distil")
    panel.model.set_path(str(files / "model.hrvol"))
    panel.output.set_path(str(tmp_path / "never.hrvol"))
    panel.run_button.click()
    wait(lambda: panel.job.running)
    panel.job._stop.click()
    wait(lambda: not panel.job.running)
    assert "stopped" in panel.job.message.text()
    assert not (tmp_path / "never.hrvol").exists()
    assert not [line for severity, line in news() if severity == "error"]


@pytest.mark.weights
def test_a_click_shows_what_is_similar(
    open_panel, viewer, grey, tmp_path, wait, news, monkeypatch, own_folders
):
    if own_folders.weights is None:
        monkeypatch.delenv("HRVOL_CACHE_DIR")
    else:
        monkeypatch.setenv("HRVOL_CACHE_DIR", own_folders.weights)
    np.save(tmp_path / "small.npy", grey[:2, :80, :90])
    viewer.open(tmp_path / "small.npy", plugin="hrvol")
    panel = open_panel("Similar")
    panel.volume.set_path(str(tmp_path / "small.npy"))
    assert panel.volume.layer() is viewer.layers["small.npy"]
    panel.pick.setChecked(True)
    *others, clicked = viewer.mouse_drag_callbacks
    clicked(viewer, Click((1.0, 33.2, 50.0)))
    assert list(viewer.mouse_drag_callbacks) == others
    wait(lambda: panel.heat is not None, 120)
    heat = panel.heat
    assert heat.name == "similar to 1, 33, 50"
    assert heat.data.shape == (1, 80, 90)
    assert heat.data[0, 33, 50] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(heat.translate, (1, 0, 0))
    assert not [line for severity, line in news() if severity == "error"]


class Click:
    """What the panel uses of a mouse event."""

    def __init__(self, position):
        self.position = position


def test_a_click_outside_is_an_error(open_panel, viewer, files, wait, news):
    panel = open_panel("Similar")
    panel.search((0.0, -5000.0, 4.0))
    wait(news)
    ((severity, line),) = news()
    assert severity == "error"
    assert line.startswith("hrvol: similar: found a point at")
    assert not panel.job.running


def test_no_two_processes_share_a_log(monkeypatch, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from hrvol.napari import folders

    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        logs = list(pool.map(folders.new_log, ["info"] * 40))
    assert len(set(logs)) == 40


def test_logs_do_not_pile_up(own_folders, monkeypatch, tmp_path):
    from hrvol.napari import folders

    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(folders, "_LOGS", 3)
    for name in "abcdef":
        folders.new_log(name)
    kept = sorted(file.name.split("-")[-1] for file in (tmp_path / "napari" / "logs").iterdir())
    assert kept == ["d.log", "e.log", "f.log"]
    assert os.environ["HRVOL_CACHE_DIR"] == str(tmp_path)
