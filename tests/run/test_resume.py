"""Going on with an output: only with the very same settings, and whatever was done is kept."""

import numpy as np
import pytest
import zarr
from run_data import QUICK, draw, make_volume

from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OtherRunError, OutputExistsError, StoppedError, UsageError
from hrvol.run import block as block_module
from hrvol.run.cluster import cluster_volume
from hrvol.run.resume import differences, partition
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.training import cluster as cluster_module
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import blocks
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels

ARRAYS = ("labels/hrvol/0", "labels/hrvol/1", "probabilities/0", "uncertainty/0")


def arrays(path):
    root = zarr.open_group(path, mode="r")
    return {name: root[name][:] for name in ARRAYS if name in root}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


class After(Stop):
    """Is requested once so many blocks were begun."""

    def __init__(self, blocks):
        super().__init__()
        self.left = blocks

    @property
    def requested(self):
        self.left -= 1
        if self.left < 0:
            self.request()
        return self.signal is not None


@pytest.fixture(scope="module")
def wide():
    """A volume whose labels have coarser levels."""
    image, truth = make_volume(shape=(4, 150, 300))
    return image, truth


@pytest.fixture(scope="module")
def wide_model(wide):
    image, truth = wide
    return train_model([(image, draw(truth))], recipe=QUICK)


@pytest.fixture(scope="module")
def reference(wide, wide_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "out.ome.zarr"
    report = segment_volume(wide[0], out, wide_model, probabilities=True, uncertainty=True)
    assert report.blocks == len(blocks(wide[0].shape, QUICK.tiles)) == 30
    return arrays(out), report


def test_a_stopped_run_is_gone_on_with(wide, wide_model, reference, tmp_path, monkeypatch):
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(StoppedError, match="7 of 30 blocks done; run the same command to resume") as stopped:
        segment_volume(wide[0], out, wide_model, probabilities=True, uncertainty=True, stop=After(7))
    assert stopped.value.exit_code == 75
    assert not open_label_store(out).complete
    status = run_status(out)
    assert (status["state"], status["done"], status["left"], status["total"]) == ("stopped", 7, 23, 30)

    begun = []
    monkeypatch.setattr(block_module, "read_window", counted(block_module.read_window, begun))
    seen = []
    report = segment_volume(
        wide[0],
        out,
        wide_model,
        probabilities=True,
        uncertainty=True,
        progress=lambda *event: seen.append(event),
    )
    assert len(begun) == 23
    same(arrays(out), reference[0])
    assert open_label_store(out).complete
    assert report.before == status["voxels"] > 0
    assert (report.blocks, report.voxels, report.fractions) == (30, wide[0].size, reference[1].fractions)
    assert next(e for e in seen if e[0] == "segment") == ("segment", status["voxels"], wide[0].size)
    assert run_status(out)["state"] == "complete"


def counted(function, calls):
    def wrapped(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return wrapped


def test_a_complete_output_stays_as_it_is(wide, wide_model, tmp_path):
    out = tmp_path / "out.ome.zarr"
    segment_volume(wide[0], out, wide_model)
    before = {
        path: path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and "ledger" not in str(path)
    }
    report = segment_volume(wide[0], out, wide_model)
    assert report.before == report.voxels == wide[0].size
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uncertainty": True}, "outputs.uncertainty was false, now true"),
        ({"roi": (slice(0, 2), slice(None), slice(None))}, "region was"),
        ({"mask": np.ones((4, 150, 300), np.uint8)}, "mask"),
    ],
)
def test_other_settings_are_refused_and_named(wide, wide_model, tmp_path, changes, message):
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(StoppedError):
        segment_volume(wide[0], out, wide_model, stop=After(3))
    with pytest.raises(OtherRunError, match=message):
        segment_volume(wide[0], out, wide_model, **changes)
    assert run_status(out)["done"] == 3


def test_another_input_or_model_is_refused(wide, wide_model, tmp_path):
    out = tmp_path / "out.ome.zarr"
    image, truth = wide
    with pytest.raises(StoppedError):
        segment_volume(image, out, wide_model, stop=After(3))
    with pytest.raises(OtherRunError, match=r"input\.sha256 was"):
        segment_volume(255 - image, out, wide_model)
    other = train_model([(image, draw(truth))], recipe=QUICK, seed=5)
    with pytest.raises(OtherRunError, match=r"model\.sha256 was .*recipe\.seed was 0, now 5"):
        segment_volume(image, out, other)
    same_again = train_model([(image, draw(truth))], recipe=QUICK)
    assert segment_volume(image, out, same_again).blocks == 30


def test_what_hrvol_did_not_write_is_in_the_way(wide, wide_model, tmp_path):
    zarr.create_group(tmp_path / "group.zarr", attributes={"theirs": 1})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("keep")
    for path in ("group.zarr", "folder"):
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError):
                segment_volume(wide[0], tmp_path / path, wide_model, overwrite=overwrite)
    assert (tmp_path / "folder" / "notes.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert segment_volume(wide[0], tmp_path / "empty", wide_model).blocks == 30


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_one_by_one_make_the_whole(wide, wide_model, reference, tmp_path, order):
    out = tmp_path / "out.ome.zarr"
    lefts = []
    for k in order:
        report = segment_volume(wide[0], out, wide_model, probabilities=True, uncertainty=True, part=(k, 3))
        lefts.append(report.left)
    assert lefts == [20, 10, 0]
    same(arrays(out), reference[0])
    assert open_label_store(out).complete


def test_a_part_that_does_not_exist_is_refused(wide, wide_model, tmp_path):
    with pytest.raises(UsageError, match="found 4/3"):
        segment_volume(wide[0], tmp_path / "out.ome.zarr", wide_model, part=(4, 3))


def test_shares_are_all_blocks_once():
    numbers = np.arange(17)[::-1]
    parts = [partition(numbers, (k, 5)) for k in range(1, 6)]
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    assert {len(part) for part in parts} == {3, 4}
    assert partition(numbers, None) is numbers


def test_a_mask_leaves_the_rest_alone(wide, wide_model, reference, tmp_path, monkeypatch):
    mask = np.zeros(wide[0].shape, np.uint8)
    mask[1:2, 20:70, 30:100] = 1
    begun = []
    monkeypatch.setattr(block_module, "read_window", counted(block_module.read_window, begun))
    out = tmp_path / "out.ome.zarr"
    report = segment_volume(wide[0], out, wide_model, probabilities=True, uncertainty=True, mask=mask)
    inside = [b for b in blocks(wide[0].shape, QUICK.tiles) if mask[b.core].any()]
    assert len(begun) == len(inside) < 30
    found = arrays(out)
    for name in ("labels/hrvol/0", "uncertainty/0"):
        np.testing.assert_array_equal(found[name], np.where(mask, reference[0][name], 0))
    np.testing.assert_array_equal(
        found["probabilities/0"], np.where(mask, reference[0]["probabilities/0"], 0)
    )
    assert report.voxels == mask.sum()
    assert open_label_store(out).complete
    with pytest.raises(InputError, match="mask of shape"):
        segment_volume(wide[0], tmp_path / "no", wide_model, mask=mask[:, 1:])


def test_a_coarser_level_is_labelled_in_its_own_shape(wide, wide_model, tmp_path):
    image, _ = wide
    group = zarr.create_group(tmp_path / "image.ome.zarr")
    datasets = []
    for n, step in enumerate((1, 2)):
        group.create_array(str(n), data=image[:, ::step, ::step].copy())
        datasets.append(
            {
                "path": str(n),
                "coordinateTransformations": [{"type": "scale", "scale": [5.0, 2.0 * step, 2.0 * step]}],
            }
        )
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "i", "axes": axes, "datasets": datasets}],
    }
    out = tmp_path / "out.ome.zarr"
    segment_volume(tmp_path / "image.ome.zarr", out, wide_model, level=1)
    labels = open_labels(out)
    assert labels.shape == (4, 75, 150)
    assert labels.voxel_size == (5.0, 4.0, 4.0)
    plain = tmp_path / "plain.ome.zarr"
    segment_volume(image[:, ::2, ::2], plain, wide_model)
    np.testing.assert_array_equal(labels.read(), open_labels(plain).read())
    with pytest.raises(OtherRunError, match=r"input\.shape was"):
        segment_volume(tmp_path / "image.ome.zarr", out, wide_model)


def test_classes_without_strokes_are_found_once(wide, tmp_path, monkeypatch):
    settings = {"recipe": QUICK, "classes": 2, "clusters": 8}
    whole = tmp_path / "whole.ome.zarr"
    cluster_volume(wide[0], whole, **settings)
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(StoppedError):
        cluster_volume(wide[0], out, **settings, stop=After(5))
    monkeypatch.setattr(cluster_module, "fit_clusters", None)  # would fail
    report = cluster_volume(wide[0], out, **settings, model=tmp_path / "m.hrvol")
    assert report.segmentation.before > 0
    same(arrays(out), arrays(whole))
    assert (tmp_path / "m.hrvol").is_file()
    with pytest.raises(OutputExistsError):
        cluster_volume(wide[0], out, recipe=QUICK, classes=3, clusters=8)


def test_differences_name_what_changed_and_ignore_where_things_lie():
    one = {"input": {"source": "/a", "sha256": "1"}, "recipe": {"tiles": {"core": 448}}, "window": (0.0, 1.0)}
    two = {"input": {"source": "/b", "sha256": "1"}, "recipe": {"tiles": {"core": 384}}, "window": (0.0, 1.0)}
    stored = {**one, "window": [0.0, 1.0], "complete": False}
    assert list(differences(stored, one)) == []
    assert list(differences(stored, two)) == ["recipe.tiles.core was 448, now 384"]
