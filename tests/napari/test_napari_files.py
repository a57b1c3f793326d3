"""Readers, the writer and the sample data, in a real viewer."""

import numpy as np
import pytest
import tifffile

from hrvol.errors import UsageError
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.voxel_array import VoxelArray


def colour(layer, value):
    return tuple(round(255 * part) for part in layer.get_color(value)[:3])


def test_a_volume_is_lazy_and_keeps_place_and_levels(viewer, files, grey):
    (layer,) = viewer.open(files / "volume.ome.zarr", plugin="hrvol")
    assert layer._type_string == "image"
    assert layer.multiscale
    assert all(isinstance(level, VoxelArray) for level in layer.data)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), grey)
    np.testing.assert_allclose(layer.scale, (50, 4, 4))
    np.testing.assert_allclose(layer.translate, (100, 40, 0))
    assert [str(unit) for unit in layer.units] == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    low, high = layer.contrast_limits
    assert grey.min() <= low < 90 < 150 < high <= grey.max()


def test_other_formats_open_too(viewer, tmp_path, data):
    image, _, _ = data
    tifffile.imwrite(tmp_path / "stack.tif", image, photometric="minisblack")
    np.save(tmp_path / "plane.npy", image[0])
    folder = tmp_path / "slices"
    folder.mkdir()
    for z, plane in enumerate(image):
        tifffile.imwrite(folder / f"s{z:03d}.tif", plane)
    for name, expected in {"stack.tif": image, "plane.npy": image[0], "slices": image}.items():
        (layer,) = viewer.open(tmp_path / name, plugin="hrvol")
        assert isinstance(layer.data, VoxelArray)
        np.testing.assert_array_equal(np.asarray(layer.data), expected)


def test_an_output_shows_labels_with_names_and_colours_and_what_is_beside_them(viewer, output, model):
    layers = viewer.open(output, plugin="hrvol")
    assert [layer._type_string for layer in layers] == ["image", "image", "image", "labels"]
    uncertainty, matrix, disc, labels = layers
    assert [layer.visible for layer in layers] == [False, False, False, True]
    assert (matrix.name, disc.name) == ("finished.ome.zarr: matrix", "finished.ome.zarr: disc")
    assert tuple(uncertainty.contrast_limits) == (0, 255)
    assert dict(zip(labels.features["index"], labels.features["class"], strict=True)) == {
        0: "-",
        1: "matrix",
        2: "disc",
    }
    for info, shares in zip(model.classes, (matrix, disc), strict=True):
        assert colour(labels, info.value) == info.colour
        np.testing.assert_allclose(shares.colormap.colors[-1][:3] * 255, info.colour, atol=0.5)
    np.testing.assert_allclose(labels.scale, (50, 4, 4))
    assert len(labels.data) == 2
    assert set(np.unique(np.asarray(labels.data[0]))) == {1, 2}


def test_groups_inside_of_an_output_open_alone(viewer, output):
    assert [layer._type_string for layer in viewer.open(output / "labels", plugin="hrvol")] == ["labels"]
    assert len(viewer.open(output / "probabilities", plugin="hrvol")) == 2
    assert len(viewer.open(output / "uncertainty", plugin="hrvol")) == 1


def test_a_model_adds_no_layer_and_is_described(viewer, files, news, wait):
    assert viewer.open(files / "model.hrvol", plugin="hrvol") == []
    wait(news)
    ((severity, line),) = news()
    assert severity == "info"
    assert line == "hrvol: model.hrvol: vote on classical features; classes: matrix, disc"


def test_damaged_files_are_reported_in_one_line(viewer, tmp_path, news, wait):
    (tmp_path / "bad.tif").write_bytes(b"II*\0nonsense")
    (tmp_path / "bad.hrvol").write_bytes(b"nonsense")
    store = tmp_path / "bad.zarr"
    store.mkdir()
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"ome": 3}}')
    for name in ("bad.tif", "bad.zarr", "bad.hrvol"):
        assert viewer.open(tmp_path / name, plugin="hrvol") == []
    wait(lambda: len(news()) == 3)
    assert {severity for severity, _ in news()} == {"error"}
    for name in ("bad.tif", "bad.zarr", "bad.hrvol"):
        assert any(name in line for _, line in news())


def test_files_of_others_are_left_to_others(tmp_path):
    from hrvol.napari.readers import get_reader

    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    assert get_reader(str(tmp_path / "table.csv")) is None
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]) is None


def test_the_sample_can_be_painted_on(viewer):
    electrode, strokes = viewer.open_sample("hrvol", "phantom")
    assert electrode.data.shape == strokes.data.shape == (32, 256, 256)
    assert list(strokes.features["class"]) == ["-", "pore", "binder", "particle", "crack"]
    assert isinstance(strokes.data, np.ndarray)
    before = strokes.data[3, 5, 5]
    strokes.paint((3, 5, 5), 2)
    assert (before, strokes.data[3, 5, 5]) == (0, 2)
    again, _ = viewer.open_sample("hrvol", "phantom")
    assert again.metadata == electrode.metadata  # the same files


@pytest.mark.parametrize("direct", [True, False])
def test_strokes_are_written_sparse_and_read_back(viewer, tmp_path, data, direct):
    from hrvol.classes import default_classes
    from hrvol.napari.layers import look_of_classes

    _, _, strokes = data
    classes = default_classes([1, 2], ["matrix", "disc"])
    look = look_of_classes(classes) if direct else {}
    layer = viewer.add_labels(strokes, scale=(50, 4, 4), units="nm", name="mine", **look)
    path = tmp_path / "strokes.ome.zarr"
    assert layer.save(str(path), plugin="hrvol") == [str(path)]
    read = open_strokes(path)
    assert not read.dense  # only stored chunks are read
    np.testing.assert_array_equal(read.read(read.box), strokes)
    assert (read.array.voxel_size, read.array.unit) == ((50, 4, 4), "nanometer")
    (again,) = viewer.open(path, plugin="hrvol")
    np.testing.assert_array_equal(again.data, strokes)
    np.testing.assert_allclose(again.scale, (50, 4, 4))
    assert list(again.features["class"])[1:] == (["matrix", "disc"] if direct else ["class 1", "class 2"])
    assert colour(again, 1) == colour(layer, 1)


def test_a_writer_that_cannot_write_reports_it(viewer, tmp_path, news):
    layer = viewer.add_labels(np.eye(8, dtype=np.uint8))
    path = tmp_path / "other.zarr"
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    layer.save(str(path), plugin="hrvol")
    assert any(severity == "error" and "other.zarr" in line for severity, line in news())
    assert (path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("planes", "dtype", "lazy"), [(64, np.uint8, False), (65, np.uint8, True), (33, np.uint16, True)]
)
def test_labels_are_in_memory_up_to_a_size(viewer, tmp_path, news, planes, dtype, lazy):
    from hrvol.classes import default_classes
    from hrvol.volume.drawing_store.store import DrawingStore
    from hrvol.volume.volume import open_volume

    volume = open_volume(np.zeros((planes, 1024, 1024), np.uint8))
    path = tmp_path / "strokes.ome.zarr"
    with DrawingStore.create(path, volume, default_classes([1]), dtype=dtype) as store:
        store.paint((slice(3, 4), slice(500, 510), slice(500, 510)), 1)
    (layer,) = viewer.open(path, plugin="hrvol")
    viewer.dims.set_point(0, 3)
    assert isinstance(layer.data, VoxelArray if lazy else np.ndarray)
    assert (layer.data.shape, layer.data.dtype) == ((planes, 1024, 1024), dtype)
    assert layer.get_value((3, 505, 505)) == 1
    assert list(layer.features["class"]) == ["-", "class 1"]
    if lazy:
        with pytest.raises(UsageError, match=r"strokes.ome.zarr: found labels of 6[56] MiB.* at most 64 MiB"):
            layer.paint((3, 20, 20), 1)
    else:
        layer.paint((3, 20, 20), 1)
    assert layer.get_value((3, 20, 20)) == (0 if lazy else 1)
    assert not news()
