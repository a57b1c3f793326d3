"""The panel *Paint* in a real viewer: what it searches, cancels and changes; planes, networks, classes."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_data import QUICK, draw, make_volume

from hrvol.recipe.recipe import Recipe


@dataclass(frozen=True)
class Painting:
    """A volume whose strokes are open in the panel."""

    panel: Any
    truth: Any
    folder: Path

    @property
    def store(self):
        return self.panel.desk.board.store

    def recipe(self, name, **changes):
        """Write a recipe of quick features, and return its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(QUICK.with_(**changes).to_yaml())
        return str(path)

    def choose(self, recipe):
        """Choose a recipe as by typing its name and pressing Return."""
        self.panel.learn.recipe.setCurrentText(recipe)
        self.panel.learn.recipe.lineEdit().editingFinished.emit()

    def paint(self, plane=0, values=(1, 2), rows=slice(None)):
        """Draw lines of the true classes on rows of a plane, as napari's tools do."""
        drawn = np.zeros_like(self.truth)
        drawn[:, rows] = draw(self.truth, [plane])[:, rows]
        for value in values:
            where = np.nonzero(drawn == value)
            self.panel.layer.data_setitem(where[-self.panel.layer.ndim :], value)


@pytest.fixture
def begin(viewer, tmp_path, wait):
    """A function that opens new strokes on a volume."""
    from hrvol.napari.commands import show

    panel = show("Paint", viewer)

    def new(image, truth, recipe=None):
        path = tmp_path / "volume.npy"
        np.save(path, image)
        viewer.open(path, plugin="hrvol")
        painting = Painting(panel, truth, tmp_path)
        panel.volume.set_path(str(path))
        panel.learn.recipe.setCurrentText(recipe or painting.recipe("quick"))
        panel.path.set_path(str(tmp_path / "drawn.ome.zarr"))
        panel.learn.model.set_path(str(tmp_path / "drawn.hrvol"))
        panel.new_button.click()
        wait(lambda: panel.desk.session is not None)
        return painting

    yield new
    panel.close_strokes()
    panel.learn.cancel()


@pytest.fixture
def painting(begin):
    return begin(*make_volume(shape=(4, 300, 260)))


@pytest.fixture
def network(own_folders):
    """The real weights in the cache of these tests, which is not that of the user."""
    from hrvol.features.weights.cache import cache_dir as weights_folder

    own = weights_folder()
    with pytest.MonkeyPatch.context() as patch:
        if own_folders.weights is None:
            patch.delenv("HRVOL_CACHE_DIR")
        else:
            patch.setenv("HRVOL_CACHE_DIR", own_folders.weights)
        users = weights_folder()
    own.parent.mkdir(parents=True, exist_ok=True)
    if users.is_dir() and not own.exists():
        own.symlink_to(users)


def errors(news):
    return [line for severity, line in news() if severity == "error"]


def rest(wait, seconds=0.5):
    """Run the window for a while."""
    import time

    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


@pytest.mark.weights
def test_a_recipe_is_suggested_and_used(begin, network, viewer, tmp_path, wait, news):
    painting = begin(*make_volume(shape=(2, 120, 130)))
    learn = painting.panel.learn
    learn.suggest_button.click()
    assert errors(news) == [
        f"hrvol: {painting.store.source}: found 0 classes drawn, expected strokes of at least two"
    ]
    for plane in (0, 1):
        painting.paint(plane)
    learn.suggest_minutes = 0.01
    learn.suggest_button.click()
    assert not learn.suggest_button.isEnabled()
    written = tmp_path / "drawn-recipe.yaml"
    wait(lambda: learn.recipe.currentText() == str(written), 240)
    assert Recipe.load(written).with_(**{"classifier.trees": 3})
    assert learn.suggest_button.isEnabled()
    assert news()[-1] == ("info", f"hrvol: the recipe was saved as {written}")
    learn.update_button.click()
    wait(lambda: learn.state.text() == "exact", 120)
    assert painting.panel.desk.recipe == str(written)
    assert len(errors(news)) == 1


def test_a_search_for_a_recipe_is_cancelled(painting, tmp_path, wait, news):
    painting.paint()
    learn = painting.panel.learn
    learn.suggest_button.click()
    wait(lambda: learn.tuning.running)
    learn.tuning._stop.click()
    wait(lambda: not learn.tuning.running)
    assert learn.suggest_button.isEnabled()
    assert learn.tuning.message.text() == "tune: stopped"
    assert not list(tmp_path.glob("*recipe.yaml"))
    assert learn.recipe_text() == str(tmp_path / "quick.yaml")
    assert not errors(news)


@pytest.mark.parametrize("request_name", ["update_button", "quality_button", "save_button", "next_button"])
def test_what_is_computed_is_cancelled(painting, viewer, tmp_path, wait, news, request_name):
    learn = painting.panel.learn
    painting.paint()
    getattr(learn, request_name).click()
    assert learn.state.text() == "working"
    learn.cancel_button.click()
    wait(lambda: not learn._background.busy)
    wait(lambda: learn.state.text() == "")  # nothing was shown; features of another view may be computed
    rest(wait)
    assert "prediction" not in viewer.layers
    assert not (tmp_path / "drawn.hrvol").exists()
    assert "next place" not in viewer.layers
    assert learn.quality.isHidden()
    assert not errors(news)
    learn.update_button.click()  # and everything works afterwards
    wait(lambda: learn.state.text() == "exact")


def test_live_mode_is_cancelled(painting, viewer, wait, news):
    learn = painting.panel.learn
    painting.paint()
    learn.live.setChecked(True)
    wait(lambda: "prediction" in viewer.layers)
    learn.cancel_button.click()
    assert not learn.live.isChecked()
    assert not painting.panel.desk.session.live
    rest(wait)
    before = viewer.layers["prediction"].data.copy()
    painting.panel.layer.data_setitem(np.nonzero(draw(painting.truth, [0]) == 1), 3)
    rest(wait, 1)
    np.testing.assert_array_equal(viewer.layers["prediction"].data, before)
    assert "of" not in learn.state.text().split()  # no share of what has stopped
    assert not errors(news)


def test_a_request_is_cancelled_before_its_session_begins(painting, viewer, wait, news):
    panel = painting.panel
    painting.paint()
    painting.choose(painting.recipe("other", **{"classifier.trees": 5}))
    panel.learn.update_button.click()
    panel.learn.cancel_button.click()
    wait(lambda: panel.desk.session is not None and not panel.desk.busy)
    rest(wait, 1)
    assert "prediction" not in viewer.layers
    assert not panel.learn._tickets
    assert not errors(news)


def test_the_recipe_is_changed_while_live(painting, viewer, wait, news):
    panel = painting.panel
    painting.paint()
    panel.learn.live.setChecked(True)
    wait(lambda: "prediction" in viewer.layers)
    first = panel.desk.session
    panel.classes.set_weight(2, 20)
    other = painting.recipe("other", **{"features.classical.sigmas": [1, 2, 4], "classifier.trees": 5})
    painting.choose(other)
    wait(lambda: panel.desk.session not in (None, first))
    session = panel.desk.session
    assert panel.desk.recipe == other
    assert session.live
    assert dict(session.class_weights) == {2: 10.0}
    wait(lambda: session.preview() is not None and panel._preview is session.preview())
    prediction = viewer.layers["prediction"]
    painting.panel.layer.data_setitem(np.nonzero(draw(painting.truth, [0]) == 1), 3)
    wait(lambda: set(np.unique(prediction.data)) <= {2, 3})
    assert panel.learn.live.isChecked()
    assert not errors(news)
    painting.choose(str(painting.folder / "missing.yaml"))
    wait(lambda: errors(news))
    (line,) = errors(news)
    assert "missing.yaml" in line
    assert not panel.learn.live.isChecked()  # nothing follows any more
    painting.choose(other)
    panel.learn.live.setChecked(True)
    wait(lambda: panel.desk.session is not None and panel.desk.session.live)
    assert len(errors(news)) == 1


def test_a_single_plane_is_painted(begin, viewer, tmp_path, wait, news):
    import hrvol
    from hrvol.segment.model.model import model_bytes

    image, truth = make_volume(shape=(1, 300, 260))
    painting = begin(image[0], truth)
    panel, store = painting.panel, painting.store
    assert panel.layer.data.shape == (300, 260)
    panel.layer.paint((20, 30), 2)
    assert store.read((slice(0, 1), slice(20, 21), slice(30, 31))).item() == 2
    panel.layer.undo()
    painting.paint(rows=slice(0, 200))
    panel.learn.update_button.click()
    wait(lambda: panel.learn.state.text() == "exact")
    prediction = viewer.layers["prediction"]
    assert prediction.data.shape == (300, 260)
    assert (prediction.data == truth[0]).mean() > 0.9
    panel.learn.uncertainty.setChecked(True)
    assert viewer.layers["uncertainty"].data.shape == (300, 260)
    panel.learn.uncertainty.setChecked(False)
    for scope in ("in the view", "in the volume"):
        panel.learn.scope.setCurrentText(scope)
        panel.learn.next_button.click()
        wait(lambda: "next place" in viewer.layers)
        (place,) = viewer.layers["next place"].data
        np.testing.assert_allclose(painting.panel.layer.data_to_world(place), place)
        viewer.layers.remove(viewer.layers["next place"])
    panel.learn.quality_button.click()
    wait(lambda: not panel.learn.quality.isHidden())
    panel.learn.save_button.click()
    wait((tmp_path / "drawn.hrvol").is_file)
    store.flush()
    trained = hrvol.train_model(
        [(tmp_path / "volume.npy", tmp_path / "drawn.ome.zarr")], recipe=tmp_path / "quick.yaml"
    )
    assert model_bytes(hrvol.load_model(tmp_path / "drawn.hrvol")) == model_bytes(trained)
    drawn = np.asarray(panel.layer.data)
    panel.close_strokes()
    panel.open_button.click()
    wait(lambda: panel.desk.session is not None)
    np.testing.assert_array_equal(np.asarray(panel.layer.data), drawn)
    assert not errors(news)


def test_an_update_is_of_what_is_visible_at_its_end(painting, viewer, wait, news):
    learn = painting.panel.learn
    painting.paint()
    learn.update_button.click()
    viewer.dims.set_point(0, 3)
    wait(lambda: learn.state.text() == "exact")
    assert viewer.layers["prediction"].translate[0] == 3
    viewer.dims.set_point(0, 1)
    wait(lambda: learn.state.text() == "")  # nothing is shown of this plane
    assert not errors(news)


def test_an_update_that_was_seen_is_over(painting, viewer, wait, news, monkeypatch):
    learn, ended = painting.panel.learn, threading.Event()
    call = learn._background.call

    def late(function, *receive):  # the answer arrives long after its preview
        call(lambda: (function(), ended.wait(60))[0], *receive)

    monkeypatch.setattr(learn._background, "call", late)
    painting.paint()
    viewer.dims.set_point(0, 3)
    learn.update_button.click()
    wait(lambda: learn.state.text() == "exact")
    viewer.dims.set_point(0, 1)
    wait(lambda: learn.state.text() != "exact")
    ended.set()
    wait(lambda: learn.state.text() == "" and not learn._background.busy)
    assert viewer.layers["prediction"].translate[0] == 3
    assert not errors(news)


@pytest.mark.weights
def test_features_of_the_network_are_shown_coarse_to_fine(begin, network, viewer, wait, news):
    painting = begin(*make_volume(shape=(1, 150, 160)), "fast")
    panel, seen = painting.panel, []
    panel.desk.previewed.connect(lambda preview: seen.append((preview.stage, preview.exact)))
    painting.paint()
    panel.learn.update_button.click()
    wait(lambda: panel.learn.state.text() == "exact", 120)
    stages = [stage for stage, _ in seen]
    assert stages == sorted(stages, key=("filters", "fast", "recipe").index)
    assert seen[-1] == ("recipe", True)
    prediction = viewer.layers["prediction"].data
    assert (prediction == painting.truth).mean() > 0.9
    painting.choose("classical")  # the network's session ends, another begins
    panel.learn.update_button.click()
    wait(lambda: panel.desk.recipe == "classical" and panel.learn.state.text() == "exact", 120)
    assert not errors(news)


def test_found_classes_become_strokes_that_are_open(painting, viewer, wait, news):
    from qtpy.QtCore import Qt

    from hrvol.napari.commands import show
    from hrvol.napari.layers import look_of_classes
    from hrvol.napari.seeds import strokes_of

    panel = painting.panel
    panel.classes.table.item(0, 0).setText("matrix")
    found = viewer.add_labels(
        painting.truth.copy(), name="found", **look_of_classes(panel.desk.board.store.classes)
    )
    viewer.add_image(np.zeros((9, 8, 8), np.uint8), scale=(0.5, 1, 1), translate=(-1, 0, 0))  # other steps
    found.features = {"index": [0, 1, 2], "class": ["-", "matrix", "class 2"]}
    clusters = show("Cluster", viewer)
    clusters.show_classes(found)
    for i in range(clusters.list.count()):
        clusters.list.item(i).setCheckState(Qt.CheckState.Checked)
    viewer.dims.set_point(0, 2)
    clusters.strokes_button.click()
    wait(lambda: any("pixels were added" in line for _, line in news()))
    drawn = np.asarray(panel.layer.data)
    expected = strokes_of(painting.truth[2], [1, 2])
    assert {info.name: info.value for info in painting.store.classes} == {
        "matrix": 1,
        "class 2": 2,
        "cluster 2": 3,
    }
    np.testing.assert_array_equal(drawn[2], np.where(expected == 2, 3, expected))
    assert not drawn[[0, 1, 3]].any()
    assert not any(layer.name.startswith("strokes") for layer in viewer.layers)
    assert (
        news()[-1][1] == f"hrvol: {np.count_nonzero(expected):,} pixels were added to {painting.store.source}"
    )
    wait(lambda: panel.classes.table.rowCount() == 3)
    wait(lambda: panel.classes.table.item(2, 1).text() == f"{np.count_nonzero(expected == 2):,}")
    panel.layer.undo()
    assert not np.asarray(panel.layer.data).any()
    assert not errors(news)


def test_tests_leave_the_users_cache_alone(own_folders):
    assert os.environ["HRVOL_CACHE_DIR"] == str(own_folders.folder / "cache")
