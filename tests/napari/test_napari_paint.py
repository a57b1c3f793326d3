"""The panel *Paint* in a real viewer: draw, see, change classes, save a model, open again.

Most tests run twice: with the strokes in this process, and on a server in another one, through a network that
is slow and is cut twice.
"""

import os
from contextlib import contextmanager

import numpy as np
import pytest
from run_data import QUICK, draw, make_volume
from serve_data import Proxy, ServerProcess

from hrvol.napari.painting.seen import camera_of
from hrvol.volume.drawing_store.store import DrawingStore


@pytest.fixture(scope="module")
def truth():
    return make_volume(shape=(4, 300, 260))[1]


@pytest.fixture
def empty(viewer, files, tmp_path):
    """The panel with a quick recipe, and nothing open."""
    from hrvol.napari.commands import show

    panel = show("Paint", viewer)
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(QUICK.to_yaml())
    panel.learn.recipe.setCurrentText(str(recipe))
    panel.learn.model.set_path(str(tmp_path / "drawn.hrvol"))
    yield panel
    panel.close_strokes()
    panel.learn.uncertainty.setChecked(False)
    panel.learn.probabilities.setChecked(False)


@pytest.fixture
def local(empty, viewer, files, tmp_path, wait):
    """The panel with the volume and new strokes, in this process."""
    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    viewer.dims.set_point(0, 100.0)
    empty.volume.set_path(str(files / "volume.ome.zarr"))
    empty.path.set_path(str(tmp_path / "drawn.ome.zarr"))
    empty.new_button.click()
    wait(lambda: empty.desk.session is not None)
    return empty


@pytest.fixture
def server(files, tmp_path):
    """``hrvol serve`` in another process."""
    strokes = ("--strokes", tmp_path / "drawn.ome.zarr")
    process = ServerProcess(tmp_path, files / "volume.ome.zarr", *strokes, "--cache", tmp_path / "cache")
    yield process
    process.close()
    assert "Traceback" not in process.output()


@pytest.fixture
def served(empty, viewer, server, wait):
    """The panel with the volume and new strokes of a server."""
    network = Proxy(server.port, cuts=(6, 11))
    empty.connect_to(network.url, token_file=str(server.token_file))
    wait(lambda: empty.desk.session is not None)
    viewer.dims.set_point(0, 100.0)
    yield empty
    assert network.cut_count == 2
    empty.close_strokes()
    network.close()


@pytest.fixture(params=["local", "served"])
def panel(request):
    """The panel with the volume and new strokes, here or on a server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def paint(empty, truth):
    """A function that draws lines of the true classes on a plane, as napari's tools do."""

    def lines(plane=0, values=(1, 2)):
        drawn = draw(truth, [plane])
        for value in values:
            where = np.nonzero(drawn == value)
            empty.layer.data_setitem(where, value)

    return lines


def store_of(panel):
    return panel.desk.board.store


def names(panel):
    return [panel.classes.table.item(i, 0).text() for i in range(panel.classes.table.rowCount())]


def pixels(panel):
    return [panel.classes.table.item(i, 1).text() for i in range(panel.classes.table.rowCount())]


def test_strokes_are_drawn_and_labels_follow(panel, paint, viewer, truth, wait, news):
    layer = panel.layer
    assert layer.mode == "paint"
    np.testing.assert_allclose(layer.scale, (50, 4, 4))
    np.testing.assert_allclose(layer.translate, (100, 40, 0))
    layer.selected_label = 2
    layer.paint((0, 20, 30), 2)
    assert store_of(panel).read((slice(0, 1), slice(20, 21), slice(30, 31))).item() == 2
    panel.learn.update_button.click()
    assert news()[-1][1].endswith("found 1 classes drawn, expected strokes of at least two")
    paint()
    panel.learn.update_button.click()
    wait(lambda: panel.learn.state.text() == "exact")
    prediction = viewer.layers["prediction"]
    assert prediction.data.shape == (1, 300, 260)
    assert (prediction.data[0] == truth[0]).mean() > 0.9
    np.testing.assert_allclose(prediction.translate, (100, 40, 0))
    assert list(prediction.features["class"])[1:] == ["class 1", "class 2"]
    assert viewer.layers.index(prediction) < viewer.layers.index(layer)
    assert viewer.layers.selection.active == layer
    panel.learn.uncertainty.setChecked(True)
    panel.learn.probabilities.setChecked(True)
    shown = {one.name for one in viewer.layers}
    assert {"uncertainty", "probability of class 1", "probability of class 2"} <= shown
    total = sum(viewer.layers[f"probability of class {k}"].data for k in (1, 2))
    np.testing.assert_allclose(total, 1, atol=1e-5)
    before = prediction.data.copy()
    panel.classes.set_weight(2, 20)  # at once, and only more of class 2
    wait(lambda: (prediction.data != before).any())
    assert ((before == 2) <= (prediction.data == 2)).all()
    panel.learn.uncertainty.setChecked(False)
    assert "uncertainty" not in viewer.layers


def test_live_mode_follows_strokes_and_planes(panel, paint, viewer, truth, wait, news):
    paint(0, [1])
    panel.learn.live.setChecked(True)
    paint(0, [2])
    wait(lambda: "prediction" in viewer.layers)
    prediction = viewer.layers["prediction"]
    assert set(np.unique(prediction.data)) <= {0, 1, 2}
    panel.layer.data_setitem(np.nonzero(draw(truth, [0]) == 1), 3)  # a class of its own from now on
    wait(lambda: set(np.unique(prediction.data)) == {2, 3})
    wait(lambda: len(prediction.features) == 3)
    viewer.dims.set_point(0, 250.0)
    wait(lambda: prediction.translate[0] == 250)
    panel.learn.live.setChecked(False)
    assert not [line for severity, line in news() if severity == "error"]


def test_classes_are_edited_and_undone(panel, paint, wait, news):
    from qtpy.QtCore import Qt

    paint()
    table = panel.classes.table
    wait(lambda: all(text != "0" for text in pixels(panel)))
    drawn = store_of(panel).array()[0]
    table.item(0, 0).setText("matrix")
    wait(lambda: list(panel.layer.features["class"])[1:] == ["matrix", "class 2"])
    table.item(1, 0).setText("matrix")  # the name is used
    assert news()[-1][0] == "error"
    assert names(panel) == ["matrix", "class 2"]
    value = panel.classes.add()
    assert (value, panel.layer.selected_label) == (3, 3)
    panel.layer.paint((1, 40, 40), 3)
    wait(lambda: pixels(panel)[2] != "0")
    panel.classes.recolour(3, (10, 20, 30))
    wait(lambda: np.allclose(panel.layer.get_color(3)[:3], np.divide((10, 20, 30), 255), atol=0.01))
    panel.classes.merge(1)
    assert names(panel) == ["matrix", "class 2"]
    assert store_of(panel).array()[1, 40, 40] == 1
    assert table.item(table.currentRow(), 0).data(Qt.ItemDataRole.UserRole) == 1
    panel.layer.undo()  # the key of napari takes back the merge, with its class
    assert store_of(panel).array()[1, 40, 40] == 3
    wait(lambda: names(panel) == ["matrix", "class 2", "class 3"])
    panel.classes.choose(2)
    assert table.item(table.currentRow(), 0).text() == "class 2"
    panel.classes.delete()
    assert not (store_of(panel).array()[0] == 2).any()
    panel.classes.undo_button.click()
    wait(lambda: len(names(panel)) == 3)
    np.testing.assert_array_equal(store_of(panel).array()[0], drawn)
    assert panel.layer.get_value((0, *np.argwhere(drawn == 2)[0])) == 2
    panel.layer.redo()
    assert not (store_of(panel).array()[0] == 2).any()


def test_a_drag_is_one_step_of_undo(panel, viewer):
    layer = viewer.layers["drawn"]  # as napari has it; plugins get it wrapped

    class Event:
        type = "mouse_press"

    drag = layer.mouse_drag_callbacks[0](layer, Event)
    next(drag)
    for x in (20, 40, 60):
        layer.paint((0, 50, x), 1)
    Event.type = "mouse_release"
    assert next(drag, None) is None
    assert store_of(panel).steps == (1, 0)
    layer.undo()
    assert not store_of(panel).counts().planes


def test_the_viewer_goes_where_a_stroke_would_teach(panel, paint, viewer, wait, news):
    paint()
    panel.learn.scope.setCurrentText("in the volume")
    panel.learn.next_button.click()
    wait(lambda: "next place" in viewer.layers)
    (place,) = viewer.layers["next place"].data
    world = panel.layer.data_to_world(place)
    np.testing.assert_allclose(viewer.dims.point[0], world[0])
    np.testing.assert_allclose(camera_of(viewer).center[1:], world[1:])
    assert viewer.layers.selection.active == panel.layer
    panel.learn.quality_button.click()
    wait(lambda: not panel.learn.quality.isHidden())
    assert "class 2" in panel.learn.quality.text()
    assert not [line for severity, line in news() if severity == "error"]


def test_a_model_is_that_of_training(panel, paint, viewer, files, tmp_path, wait):
    import hrvol
    from hrvol.napari.commands import show
    from hrvol.segment.model.model import model_bytes

    paint()
    panel.classes.table.item(1, 0).setText("disc")
    panel.learn.save_button.click()
    segment = show("Segment", viewer)
    path = tmp_path / "drawn.hrvol"
    wait(lambda: segment.model.path() == str(path))
    show("Paint", viewer)
    viewer.layers.remove(panel.layer)  # closes what it shows
    assert panel.desk.board is None
    trained = hrvol.train_model(
        [(files / "volume.ome.zarr", tmp_path / "drawn.ome.zarr")], recipe=tmp_path / "quick.yaml"
    )
    assert path.read_bytes() == model_bytes(trained)


def test_strokes_are_there_again(local, viewer, tmp_path, wait, news):
    panel = local
    panel.layer.paint((0, 20, 30), 2)
    panel.classes.table.item(1, 0).setText("disc")
    drawn = np.asarray(store_of(panel).array())
    panel.close_strokes()
    panel.open_button.click()
    wait(lambda: panel.desk.board is not None)
    np.testing.assert_array_equal(np.asarray(panel.layer.data), drawn)
    assert names(panel) == ["class 1", "disc"]
    panel.hub.jobs.closing.emit()
    assert "drawn" not in viewer.layers
    with DrawingStore.open(tmp_path / "drawn.ome.zarr") as store:  # it is free for others
        assert [info.name for info in store.classes] == ["class 1", "disc"]
    panel.new_button.click()  # nothing is overwritten
    wait(lambda: [line for severity, line in news() if severity == "error"])
    assert "drawn.ome.zarr" in news()[-1][1]
    assert panel.new_button.isEnabled()


def test_a_preview_is_gone_with_its_class_and_so_is_its_weight(local, truth, viewer, wait, news):
    panel = local
    drawn = draw(truth, [0])
    for value in (1, 2):
        panel.layer.data_setitem(np.nonzero(drawn == value), value)
    panel.learn.live.setChecked(True)
    wait(lambda: "prediction" in viewer.layers)
    panel.classes.set_weight(2, 20)
    assert panel.desk.session.class_weights == {2: 10}
    panel.classes.choose(2)
    panel.classes.delete()
    assert panel.desk.session.class_weights == {}
    wait(lambda: "prediction" not in viewer.layers)
    wait(lambda: panel.learn.state.text() == "")  # once features that are under way are made
    panel.classes.undo_button.click()
    wait(lambda: "prediction" in viewer.layers)
    assert not [line for severity, line in news() if severity == "error"]


@contextmanager
def full_disk():
    """No file of this process grows."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.name == "nt", reason="the size of files cannot be limited")
def test_strokes_that_cannot_be_saved_stay_open(local, viewer, tmp_path, wait, news, capsys):
    panel = local  # napari prints notifications: capsys keeps them in memory
    panel.layer.paint((1, 20, 20), 1)
    layer, store = panel.layer, store_of(panel)
    with full_disk():
        panel.layer.paint((1, 40, 40), 2)
        assert not panel.desk.save()  # the window stays open
        panel.close_strokes()
        assert news()[-1][0] == "error"
        assert "close again" in news()[-1][1]
        assert panel.desk.board.store is store
        viewer.layers.remove(layer)
        wait(lambda: layer in viewer.layers)
    assert panel.desk.session is not None
    layer.paint((1, 60, 60), 2)
    assert panel.desk.save()
    viewer.layers.remove(layer)
    assert panel.desk.board is None
    with DrawingStore.open(tmp_path / "drawn.ome.zarr") as saved:
        assert saved.array()[1, 40, 40] == saved.array()[1, 60, 60] == 2


def test_other_strokes_are_imported(panel, truth, tmp_path, wait):
    np.save(tmp_path / "others.npy", draw(truth, [1]))
    panel.import_from(str(tmp_path / "others.npy"))
    wait(lambda: store_of(panel).counts().planes)
    np.testing.assert_array_equal(np.asarray(store_of(panel).array())[1], draw(truth, [1])[1])
    assert store_of(panel).steps == (1, 0)


def test_nothing_is_drawn_or_undone_during_an_import(panel, paint, tmp_path, wait, news):
    paint()
    before = store_of(panel).steps
    panel.import_from(str(tmp_path / "none.npy"))
    assert not panel.layer.editable
    assert not panel.group.isEnabled()
    panel.layer.undo()
    assert "being imported" in news()[-1][1]
    assert store_of(panel).steps == before
    wait(lambda: panel.layer.editable)  # after a failure, too
    assert panel.group.isEnabled()
    assert news()[-1][0] == "error"
    panel.layer.undo()
    assert store_of(panel).steps != before


def test_the_layer_is_saved_as_strokes(panel, paint, viewer, tmp_path, news):
    from hrvol.volume.strokes.open_strokes import open_strokes
    from hrvol.volume.volume import open_volume

    paint()
    path = tmp_path / "saved.ome.zarr"
    viewer.layers.save(str(path), selected=True, plugin="hrvol")
    saved = open_volume(path)
    np.testing.assert_array_equal(saved.read(), np.asarray(panel.layer.data))
    assert saved.voxel_size == (50, 4, 4)
    assert [info.name for info in open_strokes(path).classes] == ["class 1", "class 2"]
    viewer.layers.save(str(store_of(panel).source), selected=True, plugin="hrvol")
    assert news()[-1][0] == "error"  # never over what is open


def test_classes_of_labels_become_strokes_of_the_same_name(panel, files, tmp_path, viewer):
    from hrvol.classes import ClassInfo

    panel.classes.table.item(1, 0).setText("disc")
    labels = np.zeros((300, 260), np.uint8)
    labels[10:20, 30:40] = 1
    labels[50:60, 30:40] = 7
    chosen = [ClassInfo(1, "disc", (1, 2, 3)), ClassInfo(7, "crack", (4, 5, 6))]
    assert panel.hub.board.draw(2, labels, chosen) == 200
    drawn = np.asarray(store_of(panel).array())[2]
    assert (drawn[10:20, 30:40] == 2).all()
    assert (drawn[50:60, 30:40] == 3).all()
    assert [info.name for info in store_of(panel).classes] == ["class 1", "disc", "crack"]
    assert store_of(panel).classes[2].colour == (4, 5, 6)
    panel.hub.strokes_added.emit()
    viewer.dims.set_point(0, 200.0)
    assert panel.layer.get_value((2, 15, 35)) == 2
    panel.layer.undo()
    panel.layer.undo()  # the name
    assert [info.name for info in store_of(panel).classes] == ["class 1", "class 2"]


def test_a_closed_dock_lets_go_of_the_strokes(panel, paint, viewer, request):
    from hrvol.napari.commands import PLUGIN, WIDGET

    paint()
    source, remote = store_of(panel).source, panel.desk.board.remote
    dock, _ = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    viewer.window.remove_dock_widget(dock)
    assert panel.desk.board is None
    if remote:
        request.getfixturevalue("server").stop()
    with DrawingStore.open(source) as store:
        assert len(store.counts().planes) == 2


def test_a_server_that_cannot_be_used_is_one_line(empty, viewer, server, tmp_path, wait, news):
    def errors():
        return [line for severity, line in news() if severity == "error"]

    empty.connect_to(f"http://127.0.0.1:{server.port}", "x" * 43)
    wait(errors)
    assert "wrong token" in errors()[-1]
    assert empty.connect_button.isEnabled()
    server.kill()
    empty.connect_to(f"http://127.0.0.1:{server.port}", token_file=str(server.token_file))
    wait(lambda: len(errors()) == 2)
    assert "cannot be reached" in errors()[-1]
    assert not viewer.layers
    server.start()
    empty.connect_to(f"http://127.0.0.1:{server.port}", token_file=str(server.token_file))
    wait(lambda: empty.desk.session is not None)
    assert [layer.name for layer in viewer.layers] == ["volume.ome.zarr", "drawn"]
    empty.learn.suggest_button.click()
    assert "found strokes on a server" in errors()[-1]
    viewer.layers.remove(viewer.layers[0])
    assert empty.desk.board is None
    assert not viewer.layers


def test_a_recipe_chosen_while_a_session_begins_takes_its_place(panel, wait, news):
    began = []
    panel.desk.with_session("classical", began.append)
    panel.desk.with_session("fast", began.append)
    panel.desk.with_session("classical", began.append)
    wait(lambda: panel.desk.session is not None and not panel.desk.busy)
    assert panel.desk.recipe == "classical"
    assert set(began) == {panel.desk.session}
    assert not [line for severity, line in news() if severity == "error"]


def test_strokes_that_cannot_be_opened_are_one_line(local, files, tmp_path, wait, news):
    local.close_strokes()
    local.path.set_path(str(tmp_path / "none.ome.zarr"))
    local.open_button.click()
    wait(lambda: [line for severity, line in news() if severity == "error"])
    assert "none.ome.zarr" in news()[-1][1]
    assert local.open_button.isEnabled()
    assert not local.learn.isEnabled()
    local.path.set_path(str(tmp_path / "drawn.ome.zarr"))
    local.open_button.click()
    wait(lambda: local.desk.session is not None)
