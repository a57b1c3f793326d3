"""The nearest cluster of each pixel of a plane, and classes that are looked up in it."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from run_data import QUICK

import hrvol
from hrvol.errors import RecipeError, UsageError
from hrvol.run.nearest_clusters import nearest_clusters
from hrvol.segment.attention import ClusterTally
from hrvol.training.merging import merged
from hrvol.volume.volume import open_labels

SHAPE = (3, 90, 100)
RECIPE = QUICK.with_(
    **{
        "cluster.clusters": 9,
        "cluster.samples": 1500,
        "cluster.sample_tiles": 3,
        "cluster.classes": 3,
        "cluster.distance": "euclidean",
    }
)
TILES = {
    "one": {"core": 128, "overlap": 16, "planes": 1},
    "several": {"core": 64, "overlap": 16, "planes": 1},
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    rng = np.random.default_rng(0)
    _, y, x = np.indices(SHAPE)
    image = 60 * np.sin(x / 9) + 40 * np.sin(y / 14) + rng.normal(128, 12, SHAPE)
    path = tmp_path_factory.mktemp("volume") / "volume.zarr"
    zarr.save_array(path, np.clip(image, 0, 255).astype(np.uint8))
    return path


def fitted(volume, tiles):
    return hrvol.fit_classes(volume, recipe=RECIPE.with_(tiles=TILES[tiles]))


@pytest.fixture(scope="module")
def model(volume):
    return fitted(volume, "one")


def labels(volume, model, folder):
    hrvol.segment_volume(volume, folder / "labels.ome.zarr", model, engine="serial")
    return open_labels(folder / "labels.ome.zarr").read()


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_classes_of_a_plane_are_its_labels(volume, model, tmp_path, classes):
    again = merged(model, classes=classes)
    nearest = nearest_clusters(volume, model, 1)
    assert nearest.shape == SHAPE[1:]
    expected = labels(volume, again.model, tmp_path)[1]
    assert len(np.unique(expected)) == classes
    np.testing.assert_array_equal(again.of_cluster[nearest], expected)


def test_a_box_is_a_part_of_the_plane(volume, model):
    box = slice(11, 73), slice(40, 100)
    np.testing.assert_array_equal(
        nearest_clusters(volume, model, 2, box), nearest_clusters(volume, model, 2)[box]
    )


def test_tiles_differ_where_they_are_blended_only(volume, tmp_path):
    model = fitted(volume, "several")
    again = merged(model, classes=4)
    looked_up = again.of_cluster[nearest_clusters(volume, model, 0)]
    expected = labels(volume, again.model, tmp_path)[0]
    far = np.ones(SHAPE[1:], bool)
    far[48:80], far[:, 48:80] = False, False  # the border of cores, and the overlap on both sides
    np.testing.assert_array_equal(looked_up[far], expected[far])
    assert (looked_up == expected).mean() > 0.98


def test_what_is_not_there_is_refused(volume, model):
    with pytest.raises(UsageError, match=r"found plane 3, expected one of 0\.\.2"):
        nearest_clusters(volume, model, 3)
    with pytest.raises(UsageError, match="found a box 80:101, expected one inside 0:100"):
        nearest_clusters(volume, model, 0, (slice(0, 4), slice(80, 101)))


def test_a_model_with_other_classes(model):
    two = hrvol.merge_classes(model, classes=2)
    assert [info.name for info in two.classes] == ["class 1", "class 2"]
    assert two.recipe.cluster.classes == 2
    assert two.recipe.with_(**{"cluster.classes": 3}) == model.recipe
    assert two.trained_on == model.trained_on
    assert hrvol.merge_classes(two) is two
    back = hrvol.merge_classes(two, classes=3)
    assert back.classes == model.classes
    assert sorted(back.classifier.class_tally.pixels) == sorted(model.classifier.class_tally.pixels)


def test_a_merging_distance_replaces_the_number_of_classes(model):
    pixels = model.classifier.tally.pixels
    tally = ClusterTally(pixels, pixels * np.linspace(0.1, 3, len(pixels)))
    attended = replace(model, classifier=replace(model.classifier, tally=tally))
    counts = []
    for factor in (0.05, 1.0, 50.0):
        again = hrvol.merge_classes(attended, merge=factor)
        assert (again.recipe.cluster.merge, again.recipe.cluster.classes) == (factor, None)
        assert again.classifier.semantic_distance > 0
        counts.append(len(again.classes))
    assert counts[0] > counts[-1] == 1
    assert counts == sorted(counts, reverse=True)


def test_other_classes_are_refused_in_one_line(model, volume):
    with pytest.raises(UsageError, match="found 10 classes, expected at most the number of clusters, 9"):
        hrvol.merge_classes(model, classes=10)
    with pytest.raises(RecipeError, match="classes"):
        hrvol.merge_classes(model, classes=0)
    with pytest.raises(UsageError, match="without attention"):
        hrvol.merge_classes(model, merge=1.1)


def test_models_of_strokes_are_refused(volume):
    image = np.asarray(zarr.open_array(volume, mode="r")[0])
    strokes = np.zeros(image.shape, np.uint8)
    strokes[5:9, 5:40], strokes[50:54, 5:40] = 1, 2
    model = hrvol.train_model([(image, strokes)], recipe=QUICK)
    with pytest.raises(UsageError, match="without clusters, expected one of hrvol cluster"):
        hrvol.merge_classes(model, classes=2)
    with pytest.raises(UsageError, match="without clusters, expected one of hrvol cluster"):
        nearest_clusters(image, model, 0)


def test_the_command_writes_a_model_and_prints_its_classes(model, tmp_path, run_cli):
    hrvol.save_model(model, tmp_path / "classes.hrvol")
    out = tmp_path / "two.hrvol"
    result = run_cli("merge", tmp_path / "classes.hrvol", "-o", out, "--classes", 2)
    assert result.exit_code == 0, result.output
    assert f"{out}: 2 classes from 9 clusters" in result.output.replace("\n", "")
    assert len(hrvol.load_model(out).classes) == 2
    for more in ((), ("--classes", 2, "--merge", 1)):
        assert run_cli("merge", tmp_path / "classes.hrvol", "-o", tmp_path / "x.hrvol", *more).exit_code == 2
    assert "exists" in run_cli("merge", tmp_path / "classes.hrvol", "-o", out, "--classes", 3).output
    assert run_cli("merge", tmp_path / "classes.hrvol", "-o", out, "--classes", 3, "--fresh").exit_code == 0


@pytest.fixture
def run_cli():
    from click.testing import CliRunner

    from hrvol.cli import main

    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
