"""What hrvol writes opens in other software: in validators, napari, Zarr and xarray."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import yaozarrs
import zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels

import hrvol
from hrvol.classes import default_classes
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import block_shape, blocks
from hrvol.volume.ome.labels import LabelOutputs, create_labels
from hrvol.volume.volume import Volume, open_volume

TILES = TileSpec(core=256, overlap=8, planes=4)
CLASSES = default_classes([1, 2, 3], ["pore", "binder", "crack"])
SHAPES = {"volume": (6, 300, 340), "image": (300, 340)}
VOXEL = (50.0, 4.6, 4.6)
PLACE = (500.0, 46.0, 92.0)
GROUPS = {
    "": (Image, yaozarrs.v05.Image),
    "labels": (Labels, yaozarrs.v05.LabelsGroup),
    "labels/hrvol": (ImageLabel, yaozarrs.v05.LabelImage),
    "probabilities": (Image, yaozarrs.v05.Image),
    "uncertainty": (Image, yaozarrs.v05.Image),
}
QUICK = Recipe.from_dict(
    {
        "features": {"kind": "classical", "classical": {"filters": ["gaussian"], "sigmas": [1]}},
        "classifier": {"kind": "logistic"},
        "tiles": {"core": 64, "overlap": 8, "planes": 2},
    }
)
VIEW = Path(__file__).parents[2] / "docs" / "how-to" / "view.md"


def truth_of(shape):
    z, y, x = np.indices((1, *shape)[-3:])
    return ((z // 2 + y // 100 + x // 150) % 3 + 1).astype(np.uint8).reshape(shape)


def write(path, shape, unit="nanometer", more=True):
    """Write labels, and if ``more`` probabilities 200 or 20 and uncertainty 30 times the label."""
    opened = open_volume(np.zeros(shape, np.uint8))
    volume = Volume("v", opened.array, opened.axes, VOXEL, unit, opened.ndim, "v", PLACE)
    store = create_labels(
        path,
        volume,
        classes=CLASSES,
        block_shape=block_shape(volume.shape, TILES),
        attributes={},
        outputs=LabelOutputs(probabilities=more, uncertainty=more),
    )
    truth = truth_of(volume.shape)
    for block in blocks(volume.shape, TILES):
        labels = truth[block.core]
        shares = [np.where(labels == c.value, np.uint8(200), np.uint8(20)) for c in CLASSES]
        store.write(block.core, labels, np.stack(shares) if more else None, labels * 30 if more else None)
    store.finish()
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A finished output of several blocks, with all that it may hold."""
    return write(tmp_path_factory.mktemp("volume") / "labels.ome.zarr", SHAPES["volume"])


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The same, of one plane."""
    return write(tmp_path_factory.mktemp("image") / "labels.ome.zarr", SHAPES["image"])


@pytest.fixture(scope="module", params=SHAPES)
def output(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a path as napari does, through its plugin, and returns the layers."""
    pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr (the extra napari) is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # The user's own settings are neither read nor written.
        patch.setenv("NAPARI_CONFIG", str(tmp_path_factory.mktemp("napari") / "settings.yaml"))
        from napari.components import ViewerModel
        from napari_ome_zarr import napari_get_reader

        def layers(path):
            viewer = ViewerModel()
            read = napari_get_reader(str(path))
            for data, about, kind in read(str(path)):
                getattr(viewer, f"add_{kind}")(data, **about)
            return list(viewer.layers)

        yield layers


@pytest.mark.parametrize("group", GROUPS)
def test_ome_zarr_models_finds_every_group_valid(output, group):
    found = zarr.open_group(output, path=group, mode="r")
    with warnings.catch_warnings(action="error"):
        GROUPS[group][0].from_zarr(found)


@pytest.mark.parametrize("group", GROUPS)
def test_yaozarrs_finds_every_group_valid_in_attributes_and_structure(output, group):
    found = zarr.open_group(output, path=group, mode="r")
    with warnings.catch_warnings(action="error"):  # what the specification only recommends, too
        read = yaozarrs.validate_ome_object(dict(found.attrs["ome"]))
        yaozarrs.validate_zarr_store(output / group)
    assert type(read) is GROUPS[group][1]


def test_labels_without_anything_else_are_valid_and_a_missing_level_is_seen(tmp_path):
    path = write(tmp_path / "labels.ome.zarr", (2, 260, 40), more=False)
    with warnings.catch_warnings(action="error"):
        yaozarrs.validate_zarr_store(path)
    (path / "labels/hrvol/1/zarr.json").unlink()
    with pytest.raises(ValueError, match="'labels/hrvol/1' not found"):
        yaozarrs.validate_zarr_store(path)


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "labels"])
def test_every_level_is_where_the_metadata_say_and_covers_the_same_place(output, group):
    found = zarr.open_group(output, path=group, mode="r")
    (image,) = found.attrs["ome"]["multiscales"]
    axes = [axis["name"] for axis in image["axes"]]
    assert len(image["datasets"]) > 1
    assert {axis.get("unit") for axis in image["axes"] if axis["type"] == "space"} == {"nanometer"}
    for dataset in image["datasets"]:
        array = found[dataset["path"]]
        scale, move = dataset["coordinateTransformations"]
        assert list(array.metadata.dimension_names) == axes
        kept = len(axes) - axes.count("c")
        size, first = np.array(scale["scale"][-kept:]), np.array(move["translation"][-kept:])
        np.testing.assert_allclose(first - size / 2, np.subtract(PLACE, np.divide(VOXEL, 2))[-kept:])
        np.testing.assert_allclose(array.shape[-kept:] * size, np.multiply((6, 300, 340), VOXEL)[-kept:])


def test_what_segment_writes_is_known_to_zarr_down_to_the_last_folder(tmp_path):
    image = np.zeros((3, 70, 80), np.uint8)
    image[:, :, 40:] = 200
    strokes = np.zeros_like(image)
    strokes[0, ::5, 5], strokes[0, ::5, 75] = 1, 2
    model = hrvol.train_model([(image, strokes)], recipe=QUICK, classes=["dark", "bright"])
    path = tmp_path / "labels.ome.zarr"
    hrvol.segment_volume(image, path, model, engine="serial", probabilities=True, uncertainty=True)
    with warnings.catch_warnings(action="error"):
        members = dict(zarr.open_group(path, mode="r").members(max_depth=None))
        yaozarrs.validate_zarr_store(path)
    assert {"labels/hrvol/0", "probabilities/0", "uncertainty/0"} <= members.keys()
    np.testing.assert_array_equal(np.unique(members["labels/hrvol/0"]), [1, 2])


def test_the_root_says_that_its_highest_class_is_white(output):
    (channel,) = zarr.open_group(output, mode="r").attrs["ome"]["omero"]["channels"]
    assert channel["window"] == {"min": 0, "max": 3, "start": 0, "end": 3}


@pytest.mark.parametrize(
    ("unit", "written"), [("angstrom", "angstrom"), ("picometer", "picometer"), ("reference frame", None)]
)
def test_only_units_that_other_software_knows_are_written(tmp_path, unit, written):
    path = write(tmp_path / "labels.ome.zarr", (30, 40), unit, more=False)
    axes = zarr.open_group(path, mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert [axis.get("unit") for axis in axes] == [written, written]


@pytest.mark.parametrize("unit", ["angstrom", "picometer", "inch", "reference frame"])
def test_napari_opens_any_unit(tmp_path, opened, unit):
    image, labels = opened(write(tmp_path / "labels.ome.zarr", (30, 40), unit, more=False))
    assert image.units == labels.units
    assert str(labels.units[0]) == ("pixel" if unit == "reference frame" else unit)


@pytest.mark.parametrize("group", ["", "labels", "labels/hrvol"])
def test_napari_shows_labels_with_names_colours_and_voxel_size(output, opened, group):
    image, labels = opened(output / group)
    assert (type(image).__name__, type(labels).__name__) == ("Image", "Labels")
    axes = labels.ndim
    for layer in (image, labels):
        np.testing.assert_allclose(layer.scale, VOXEL[-axes:])
        assert [str(unit) for unit in layer.units] == ["nanometer"] * axes
        assert layer.axis_labels == ("z", "y", "x")[-axes:]
        assert len(layer.data) == 2  # a pyramid
    np.testing.assert_array_equal(labels.data[0], truth_of(labels.data[0].shape))
    assert dict(zip(labels.features["index"], labels.features["class"], strict=True)) == {
        c.value: c.name for c in CLASSES
    }
    for c in CLASSES:
        np.testing.assert_allclose(labels.get_color(c.value), (*np.divide(c.colour, 255), 1), atol=1e-6)
    assert labels.get_color(0) is None or not labels.get_color(0)[3]
    # Between 0 and 255 classes would be black.
    assert tuple(image.contrast_limits) == (0, 3)


def test_napari_shows_probabilities_by_class_and_uncertainty(output, opened):
    shares = opened(output / "probabilities")
    (doubt,) = opened(output / "uncertainty")
    assert [layer.name for layer in shares] == [f"probabilities: {c.name}" for c in CLASSES]
    for layer, c in zip(shares, CLASSES, strict=True):
        np.testing.assert_allclose(layer.colormap.colors[-1], (*np.divide(c.colour, 255), 1), atol=1e-6)
        expected = np.where(truth_of(layer.data[0].shape) == c.value, 200, 20)
        np.testing.assert_array_equal(layer.data[0], expected)
    for layer in (*shares, doubt):
        np.testing.assert_allclose(layer.scale, VOXEL[-layer.ndim :])
        assert tuple(layer.contrast_limits) == (0, 255)


def test_xarray_opens_a_level(output):
    found = xarray.open_zarr(output / "labels/hrvol", consolidated=False, drop_variables=["1"])["0"]
    assert found.dims == ("z", "y", "x")[-found.ndim :]
    np.testing.assert_array_equal(found, truth_of(found.shape))


def test_the_python_of_the_guide_runs(volume, monkeypatch):
    monkeypatch.chdir(volume.parent)
    ran = []
    for code in re.findall(r"^```python\n(.*?)^```$", VIEW.read_text(), re.MULTILINE | re.DOTALL):
        if not re.search(r"^import (napari|neuroglancer)$", code, re.MULTILINE):  # those need a screen
            exec(compile(code, str(VIEW), "exec"), {})
            ran.append(code)
    assert len(ran) >= 2
