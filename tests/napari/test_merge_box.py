"""Classes of a search merged again: a preview of a plane, strokes of it, and a model."""

import numpy as np
import pytest
from run_data import QUICK

import hrvol
from hrvol.napari.folders import new_model
from hrvol.napari.seeds import strokes_of
from hrvol.volume.volume import open_labels

CLASSES = QUICK.with_(
    **{
        "cluster.clusters": 8,
        "cluster.samples": 1500,
        "cluster.sample_tiles": 3,
        "cluster.classes": 2,
        "cluster.distance": "euclidean",
        "tiles.core": 512,
    }
)


@pytest.fixture
def searched(viewer, files, tmp_path, wait):
    """The panel after a search of plane 2 without a chosen model."""
    from hrvol.napari.commands import show

    viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    panel = show("Cluster", viewer)
    panel.volume.set_path(str(files / "volume.ome.zarr"))
    recipe = tmp_path / "classes.yaml"
    recipe.write_text(CLASSES.to_yaml())
    panel.recipe.setCurrentText(str(recipe))
    panel.classes.setValue(4)
    panel.model.set_path("")
    panel.output.set_path(str(tmp_path / "classes.ome.zarr"))
    viewer.dims.set_point(0, 200)
    panel.run_button.click()
    wait(lambda: panel.merging._fitted is not None, 120)
    return panel


def test_sliders_recolour_the_plane(searched, viewer, files, tmp_path, wait, news):
    from qtpy.QtCore import Qt

    panel, box = searched, searched.merging
    labels = panel.labels
    assert panel.list.count() == box.classes.value() == box.slider.value() == 4
    assert (box.classes.maximum(), box.merge.isEnabled()) == (8, False)  # no attention without a network

    box.slider.setValue(6)
    wait(lambda: "merged classes" in viewer.layers, 120)
    layer, plane = viewer.layers["merged classes"], np.asarray(labels.data[0][2])
    assert panel.list.count() == 6
    assert not labels.visible
    np.testing.assert_allclose(layer.translate, [labels.translate[0] + 100, *labels.translate[1:]])
    assert set(np.unique(layer.data)) == set(range(1, 7))
    six = layer.data[0].copy()
    for value in np.unique(plane):  # of complete linkage: classes are unions of smaller ones
        assert all((plane[six == part] == value).all() for part in np.unique(six[plane == value]))

    jobs = []
    box.job.changed.connect(lambda: jobs.append(1))
    for count in (5, 3, 2):  # the last one counts
        box.slider.setValue(count)
    wait(lambda: panel.list.count() == 2 and set(np.unique(layer.data)) == {1, 2})
    assert not jobs  # looked up, not computed
    assert list(layer.features["class"])[1:] == ["class 1", "class 2"]

    panel.list.item(1).setCheckState(Qt.CheckState.Checked)
    panel.strokes_button.click()
    wait(lambda: "strokes" in viewer.layers and viewer.layers["strokes"].data.any())
    np.testing.assert_array_equal(viewer.layers["strokes"].data[2], strokes_of(layer.data[0], [2]))

    chosen = []
    panel.hub.model_chosen.connect(chosen.append)
    box.model.set_path(str(tmp_path / "two.hrvol"))
    box.save_button.click()
    wait(lambda: chosen)
    assert chosen == [str(tmp_path / "two.hrvol")]
    out = tmp_path / "two.ome.zarr"
    hrvol.segment_volume(files / "volume.ome.zarr", out, chosen[0], engine="serial")
    np.testing.assert_array_equal(open_labels(out).read()[2], layer.data[0])

    viewer.dims.set_point(0, 100)
    panel.strokes_button.click()
    told = "hrvol: strokes: found no preview of this plane, expected to preview it first"
    assert news()[-1] == ("error", told)

    box.model.set_path(box._path)
    count = len(news())
    box.save_button.click()
    wait(lambda: len(news()) > count)
    assert news()[-1][0] == "error"
    assert box._path in news()[-1][1]

    box.reset_button.click()
    assert "merged classes" not in viewer.layers
    assert labels.visible
    assert panel.list.count() == box.classes.value() == 4


def test_few_models_without_a_path_are_kept(own_folders, monkeypatch):
    monkeypatch.setattr("hrvol.napari.folders._MODELS", 3)
    paths = [new_model("classes") for _ in range(6)]
    assert len(set(paths)) == 6
    for path in paths:
        path.touch()
    new_model("classes").touch()
    assert len(list(paths[0].parent.glob("*.hrvol"))) == 3
