"""Colour through the real network: runs, sessions, objects, similar points and components."""

from dataclasses import replace

import numpy as np
import pytest
from colour_data import make_coloured
from PIL import Image
from run_data import draw

from hrvol.errors import InputError
from hrvol.explore.detect import detect_objects, detection_files, write_detection
from hrvol.explore.pca import pca_picture
from hrvol.explore.similar import find_similar
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.serve.serve import _levels
from hrvol.interactive.session import Session
from hrvol.recipe.recipe import Recipe
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels, open_volume

pytestmark = pytest.mark.weights

SMALL = Recipe.load("fast").with_(
    **{
        "classifier.trees": 10,
        "features.classical.sigmas": [1, 2],
        "tiles": {"core": 64, "overlap": 14, "planes": 1},
    }
)


@pytest.fixture(scope="module")
def scene():
    colours, truth = make_coloured((2, 90, 110))
    return colours, truth, draw(truth, (0,))


@pytest.fixture(scope="module")
def expected(scene, tmp_path_factory):
    colours, _, strokes = scene
    model = train_model([(colours, strokes)], recipe=SMALL, backend="torch")
    out = tmp_path_factory.mktemp("network") / "out.ome.zarr"
    segment_volume(colours, out, model, backend="torch")
    return model, open_labels(out).read()


def test_the_network_tells_colours_apart(scene, expected):
    model, labels = expected
    assert model.weights_sha256 is not None
    assert (labels == scene[1]).mean() > 0.95


def test_workers_and_parts_give_the_same(scene, expected, tmp_path):
    out = tmp_path / "out.ome.zarr"
    segment_volume(scene[0], out, expected[0], backend="torch", part=(1, 2))
    segment_volume(scene[0], out, expected[0], backend="torch", engine="local", workers=2)
    np.testing.assert_array_equal(open_labels(out).read(), expected[1])


def test_openvino_gives_the_same_labels(scene, expected, tmp_path):
    pytest.importorskip("openvino")
    out = tmp_path / "out.ome.zarr"
    segment_volume(scene[0], out, replace(expected[0], backend="openvino"), backend="openvino")
    assert open_label_store(out).attributes["backend"]
    assert (open_labels(out).read() == expected[1]).mean() > 0.99


def test_the_exact_preview_of_a_session_is_that_of_a_run(scene, tmp_path):
    colours, _, strokes = scene
    drawing = ArrayDrawing(strokes)
    with Session.open(colours, drawing, recipe=SMALL, cache=tmp_path / "cache", threads=1) as session:
        session.view(1, slice(0, 90), slice(0, 110))
        preview = session.update().result(300)
        model = session.model()
    assert preview.exact
    segment_volume(colours, tmp_path / "out.ome.zarr", model)
    np.testing.assert_array_equal(preview.labels, open_labels(tmp_path / "out.ome.zarr").read()[1])


def test_objects_similar_points_and_components(scene, tmp_path):
    file = tmp_path / "photo.png"
    Image.fromarray(scene[0][0]).save(file)
    recipe = Recipe.load("cas").with_(**{"features.deep.offsets": 1, "features.deep.flips": False})
    found = detect_objects(file, recipe=recipe, clusters=6)
    assert found.labels.shape == (90, 110)
    assert found.image.shape == (90, 110, 3)
    write_detection(found, detection_files([file], tmp_path / "pictures")[str(file)])
    assert (tmp_path / "pictures/photo.png").stat().st_size > 0
    result = find_similar(file, [(45, 55)], recipe=recipe, picture=tmp_path / "similar.png")
    assert result.to_dict()["shape"] == [90, 110]
    assert result.targets[0].heat.shape == (90, 110)
    pca_picture([file], tmp_path / "pca.png", recipe=recipe, attention=True)
    assert (tmp_path / "pca.png").stat().st_size > 0


def test_drawing_elsewhere_needs_grey(scene, tmp_path):
    Image.fromarray(scene[0][0]).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"photo\.png: found a colour volume .*viewers show one value"):
        _levels(tmp_path / "photo.png")
    assert open_volume(tmp_path / "photo.png").colour
