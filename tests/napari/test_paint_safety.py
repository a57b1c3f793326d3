"""The panel *Paint*: what it asks before it replaces, what it imports, the 3-D display, students."""

import hashlib
import os
from types import SimpleNamespace

import numpy as np
import pytest

from hrvol.classes import default_classes
from hrvol.errors import OutputExistsError
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import open_volume


@pytest.fixture
def store(tmp_path):
    volume = open_volume(np.zeros((2, 30, 40), np.uint8))
    with DrawingStore.create(tmp_path / "drawn.ome.zarr", volume, default_classes((1, 2))) as opened:
        yield opened


def shown(store, volume, viewer):
    from hrvol.napari.painting.strokes_layer import add_strokes_layer

    return add_strokes_layer(viewer, SimpleNamespace(store=store, volume=volume), "strokes")


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_large_strokes_are_hidden_in_3d(plugin, tmp_path, news, ndisplay):
    pytest.importorskip("dask.array")
    import dask.array as da
    from napari.components import ViewerModel

    from hrvol.napari.painting.strokes_layer import show_again

    huge = open_volume(da.zeros((10_000, 10_000, 10_000), dtype=np.uint8, chunks=1000))
    with DrawingStore.create(tmp_path / "huge.ome.zarr", huge) as store:
        viewer = ViewerModel(ndisplay=ndisplay)
        layer = shown(store, huge, viewer)
        assert layer.visible == (ndisplay == 2)
        viewer.dims.ndisplay = 3  # without an error
        assert not layer.visible
        show_again(viewer, layer)
        assert not layer.visible
        layer.visible = True  # by hand
        assert not layer.visible
        assert "hidden in the 3-D display" in news()[-1][1]
        viewer.dims.ndisplay = 2
        show_again(viewer, layer)
        assert layer.visible
        store.paint((slice(0, 1), slice(0, 9), slice(0, 9)), 1)
        assert layer.data[0, 4, 4] == 1


def test_small_strokes_are_shown_in_3d(plugin, store):
    from napari.components import ViewerModel

    viewer = ViewerModel(ndisplay=3)
    layer = shown(store, open_volume(np.zeros((2, 30, 40), np.uint8)), viewer)
    assert layer.visible
    viewer.dims.ndisplay = 2
    viewer.dims.ndisplay = 3
    assert layer.visible


def test_a_model_is_replaced_only_after_a_question(viewer, files, tmp_path, news):
    from hrvol.napari.commands import show

    panel = show("Paint", viewer)
    questions = []

    def refuse(question):
        questions.append(question)
        return False

    panel.learn.confirm, before = refuse, panel.learn.confirm
    try:
        path = tmp_path / "mine.hrvol"
        path.write_bytes((files / "model.hrvol").read_bytes())
        panel.learn.model.set_path(str(path))
        panel.learn.save()
        assert len(questions) == 1
        assert str(path) in questions[0]
        other = tmp_path / "other.hrvol"
        other.write_text("no model")
        panel.learn.model.set_path(str(other))
        with pytest.raises(OutputExistsError, match="found no model"):
            panel.learn.save()
        assert len(questions) == 1
    finally:
        panel.learn.confirm = before
        panel.learn.model.set_path("")


def test_files_are_imported_with_a_choice_for_conflicts(viewer, tmp_path):
    from qtpy.QtWidgets import QWidget

    from hrvol.napari.painting.import_dialog import ImportDialog

    owner = QWidget()
    dialog = ImportDialog(owner, str(tmp_path))
    dialog.path.set_path(str(tmp_path / "points.csv"))
    assert dialog.values() == (str(tmp_path / "points.csv"), "error")
    dialog.conflicts.setCurrentIndex(1)
    assert dialog.values()[1] == "first"
    dialog.conflicts.setCurrentIndex(2)
    assert dialog.values()[1] == "last"
    owner.deleteLater()


def test_a_student_of_the_present_strokes_ends_the_previews(store, files, tmp_path):
    import hrvol
    from hrvol.napari.painting.taught import SavedModel, give_student

    report = hrvol.distil_model(
        files / "volume.ome.zarr", files / "model.hrvol", size="small", tiles=4, steps=2, accept=True
    )
    path = tmp_path / "student.hrvol"
    hrvol.save_model(report.student, path)
    teacher = (files / "model.hrvol").read_bytes()
    board, session = SimpleNamespace(store=store), SimpleNamespace(student=None)
    other = SavedModel.of(board, store.version, b"another model")
    assert not give_student(session, other, str(path))
    saved = SavedModel.of(board, store.version, teacher)
    assert saved.sha256 == hashlib.sha256(teacher).hexdigest()
    assert not give_student(session, saved, str(files / "model.hrvol"))  # no student
    assert give_student(session, saved, str(path))
    assert session.student.classes == report.student.classes
    session.student = None
    store.paint((slice(0, 1), slice(0, 2), slice(0, 2)), 1)
    assert not give_student(session, saved, str(path))
    assert session.student is None


def test_saved_layers_are_bound_by_size(tmp_path):
    from hrvol.napari.sources import tidy_layers

    now = 1e9
    for name, age in (("a", 9), ("b", 5), ("c", 3), ("d", 0.1), ("old.partial", 2), ("new.partial", 0.1)):
        folder = tmp_path / f"{name}.ome.zarr"
        folder.mkdir()
        (folder / "chunk").write_bytes(bytes(100))
        os.utime(folder, (now - age * 86_400,) * 2)
    tidy_layers(tmp_path, tmp_path / "a.ome.zarr", now, 250)
    kept = {path.name.removesuffix(".ome.zarr") for path in tmp_path.iterdir()}
    assert kept == {"a", "c", "d", "new.partial"}  # a is in use, b was used before c
    tidy_layers(tmp_path, tmp_path / "c.ome.zarr", now, 50)
    kept = {path.name.removesuffix(".ome.zarr") for path in tmp_path.iterdir()}
    assert kept == {"c", "d", "new.partial"}  # d was used today
