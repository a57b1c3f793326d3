"""Objects of an image without any labels: boxes, masks, and the files they go into."""

import json

import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from see_data import DISCS, ONE_TILE, RECIPE, discs, use

from hrvol.analysis.objects import find_objects
from hrvol.errors import InputError, OutputExistsError, UsageError
from hrvol.explore import detect
from hrvol.explore.detect import detect_objects, detection_files, write_detection
from hrvol.volume.mask import write_mask


@pytest.fixture
def network(monkeypatch):
    return use(monkeypatch)


def found(image, **options):
    return detect_objects(image, recipe=RECIPE, classes=2, **options)


def test_discs_get_boxes_and_are_the_foreground(network):
    image, inside = discs()
    result = found(image)
    assert len(result.clusters.foreground) == 1
    assert (result.mask == inside).mean() > 0.93
    boxes = [item.box for item in result.objects if not item.superbox]
    expected = [(cy - r, cx - r, cy + r, cx + r) for cy, cx, r in DISCS]
    assert np.abs(np.array(boxes) - expected).max() <= 8
    assert result.labels.shape == image.shape
    np.testing.assert_allclose(result.image, image / 255, atol=1e-6)


def test_the_figures_are_plain_json(network):
    image, _ = discs()
    result = found(image)
    said = result.to_dict()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert (said["shape"], said["plane"], said["classes"]) == ([130, 170], 0, 2)
    assert said["semantic_distance"] is None  # a number of classes was asked for
    assert said["foreground_share"] == np.count_nonzero(result.mask) / image.size
    fields = {"class", "name", "superbox", "size", "y0", "x0", "y1", "x1"}
    assert all(set(box) == fields for box in said["boxes"])
    assert [box["name"] for box in said["boxes"]] == [f"foreground {said['foreground'][0]}"] * 2
    merged = detect_objects(image, recipe=RECIPE).to_dict()
    assert merged["semantic_distance"] > 0


def test_single_is_the_superbox_alone(network):
    image, _ = discs()
    both, one = found(image), found(image, single=True)
    (item,) = one.objects
    assert item.superbox
    assert item.box == both.objects[0].box
    assert one.to_dict()["boxes"][0]["name"] == "all foreground"
    np.testing.assert_array_equal(one.labels, both.labels)


def test_small_objects_get_no_box(network):
    image, _ = discs()
    sizes = [item.size for item in found(image).objects]
    assert [item.size for item in found(image, min_size=sizes[0]).objects] == sizes[:1]


def test_a_plane_of_a_stack_is_an_image(network):
    image, _ = discs()
    stack = np.stack([discs(((60, 60, 30),), seed=5)[0], image, image[::-1]])
    alone, inside = found(image), found(stack, plane=1)
    np.testing.assert_array_equal(inside.labels, alone.labels)
    assert inside.objects == alone.objects
    assert inside.to_dict()["plane"] == 1
    with pytest.raises(UsageError, match=r"stack of 3 planes.*--plane z.*hrvol cluster"):
        found(stack)
    with pytest.raises(UsageError, match="found plane 3, expected 0 <= z < 3"):
        found(stack, plane=3)


def test_a_crf_smooths(network):
    image, _ = discs()
    refined = found(image, crf=True)
    assert refined.model.recipe.crf is not None
    assert (refined.labels != found(image).labels).any()
    assert len(find_objects(refined.labels, refined.clusters.foreground, min_size=1)) == 2


def test_what_cannot_be_seen_is_refused(network):
    with pytest.raises(InputError, match="one grey value"):
        found(np.full((90, 90), 7, np.uint8))
    image, _ = discs()
    with pytest.raises(UsageError, match="no attention"):
        detect_objects(image, recipe="classical", classes=2)
    assert network.seen == []


def test_files_are_a_picture_and_a_mask(network, tmp_path):
    image, _ = discs()
    tifffile.imwrite(tmp_path / "cell.ome.tif", image)
    files = detection_files([tmp_path / "cell.ome.tif"], tmp_path / "out")[str(tmp_path / "cell.ome.tif")]
    result = found(tmp_path / "cell.ome.tif")
    write_detection(result, files)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cell.png", "cell_foreground.tif"]
    mask = tifffile.imread(files.mask)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, 255 * result.mask)
    assert imread(files.picture).std() > 0.1


def test_a_file_is_whole_or_not_there(network, tmp_path, monkeypatch):
    image, _ = discs()
    result = found(image)
    files = detection_files(["a.tif"], tmp_path)["a.tif"]

    def broken(path, *arguments):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(detect, "draw_detection", broken)
    with pytest.raises(OSError, match="disk full"):
        write_detection(result, files)
    assert [path.name for path in tmp_path.iterdir()] == ["a_foreground.tif"]
    files.picture.write_bytes(b"earlier")
    with pytest.raises(OSError, match="disk full"):
        write_detection(result, files)
    assert files.picture.read_bytes() == b"earlier"


def test_names_of_files_are_checked_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"b/x\.zarr: found the name of a/x\.tif"):
        detection_files(["a/x.tif", "b/x.zarr"], tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        detection_files(["x.tif"], tmp_path / "none" / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a folder"):
        detection_files(["x.tif"], tmp_path / "file")
    own = tmp_path / "x_foreground.tif"
    tifffile.imwrite(own, np.zeros((9, 9), np.uint8))
    with pytest.raises(UsageError, match="is one of the images"):
        detection_files([tmp_path / "x.tif", own], tmp_path, overwrite=True)
    with pytest.raises(OutputExistsError, match="exists already"):
        detection_files(["x.tif"], tmp_path)
    with pytest.raises(OutputExistsError, match="found no mask of hrvol"):  # a volume, say
        detection_files(["x.tif"], tmp_path, overwrite=True)
    write_mask(own, np.zeros((9, 9), bool))
    assert set(detection_files(["x.tif", "x.tif"], tmp_path, overwrite=True)) == {"x.tif"}
    (tmp_path / "x.png").write_text("a diary")
    with pytest.raises(OutputExistsError, match="found no picture of hrvol"):
        detection_files(["x.tif"], tmp_path, overwrite=True)


@pytest.mark.weights
def test_the_real_network_finds_a_disc():
    image, inside = discs(((56, 56, 26),), (112, 112))
    recipe = ONE_TILE.with_(**{"features.deep.block": 2, "cluster.clusters": 20})
    result = detect_objects(image, recipe=recipe, classes=2)
    assert len(result.clusters.foreground) == 1
    agree = (result.mask == inside).mean()
    assert max(agree, 1 - agree) > 0.9  # which of the two it attends to is its own business
