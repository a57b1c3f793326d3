"""--mask auto: the rim of a round reconstruction and air are skipped, no voxel of material is lost."""

import json

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from run_data import QUICK
from strokes_data import write_ome

from hrvol.cli import main
from hrvol.errors import OtherRunError
from hrvol.info import describe
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.planning.plan_run import plan_run
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.background import coarse_values
from hrvol.volume.background.coarse_mask import CoarseMask
from hrvol.volume.background.find import find_material
from hrvol.volume.volume import Volume, open_labels, open_volume

SHAPE = (4, 384, 384)


def disc(shape, share=1.0):
    y, x = np.indices(shape[1:])
    centre = (shape[1] - 1) / 2, (shape[2] - 1) / 2
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= (share * min(shape[1:]) / 2) ** 2
    return np.broadcast_to(inside, shape)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(SHAPE, seed=1)


@pytest.fixture(scope="module")
def round_volume(tmp_path_factory, phantom):
    path = tmp_path_factory.mktemp("round") / "volume.zarr"
    image = np.where(disc(SHAPE), phantom.image, 0)
    zarr.create_array(path, data=image, chunks=(4, 64, 64))
    return path


@pytest.fixture(scope="module")
def model(phantom):
    strokes = draw_strokes(phantom.labels, (1, 2)) * disc(SHAPE)
    return train_model([(phantom.image, strokes)], recipe=QUICK, classes=phantom.class_names)


def whole(mask):
    return mask[tuple(slice(0, n) for n in mask.shape)] > 0


@pytest.mark.parametrize("value", [0, 30_000])
def test_the_rim_of_a_round_reconstruction(phantom, value):
    field = disc(SHAPE)
    mask = find_material(open_volume(np.where(field, phantom.image, value).astype(np.uint16)))
    assert mask.found == "rim of a round reconstruction"
    assert whole(mask)[field].all()
    assert 1 - field.mean() - 0.03 < mask.share < 1 - field.mean()
    assert mask.share == pytest.approx(1 - whole(mask).mean())


def test_air_around_a_sample(phantom):
    rng = np.random.default_rng(0)
    air = rng.normal(2000, 300, SHAPE)
    sample = disc(SHAPE, 0.6)
    dust = np.zeros(SHAPE, bool)
    dust[1, 30:33, 40:43] = dust[3, 370, 200] = True
    image = np.where(sample | dust, phantom.image, np.clip(air, 0, None)).astype(np.uint16)
    for rim in (False, True):
        shown = np.where(disc(SHAPE), image, 0) if rim else image
        mask = find_material(open_volume(shown))
        assert mask.found.endswith("air around the sample")
        assert mask.found.startswith("rim") == rim
        assert whole(mask)[sample].all()
        assert whole(mask)[dust].all() or rim
        assert mask.share > 0.45


def test_what_has_no_background(phantom):
    rng = np.random.default_rng(1)
    y, x = np.indices(SHAPE[1:])
    assert find_material(open_volume(phantom.image)) is None
    for count in (3, 12, 100):  # inclusions in a matrix
        image = rng.normal(20_000, 1500, SHAPE)
        for cy, cx, r in rng.uniform((0, 0, 5), (384, 384, 25), (count, 3)):
            image[:, (y - cy) ** 2 + (x - cx) ** 2 < r * r] += 20_000
        assert find_material(open_volume(np.clip(image, 0, 65_535).astype(np.uint16))) is None
    assert find_material(open_volume(np.zeros(SHAPE, np.uint8))) is None
    assert find_material(open_volume(rng.integers(0, 255, SHAPE, np.uint8))) is None
    layers = np.where(np.indices(SHAPE)[1] < 200, 100, 200) + rng.integers(0, 9, SHAPE)
    assert find_material(open_volume(layers.astype(np.uint8))) is None


def test_micrographs_with_truth_lose_no_material(data_dir):
    from PIL import Image

    file = data_dir / "xct_sandstone" / "Sandstone_Versa0100.tif"
    labels = np.array(Image.open(file.with_name(f"{file.stem}_labels.png")))
    labels = labels[..., 0] if labels.ndim == 3 else labels
    mask = find_material(open_volume(file))
    assert mask.share > 0.3
    assert np.unique(labels[~whole(mask)[0]]).tolist() == [1]  # what annotators call background


def test_large_volumes_are_read_in_part(tmp_path, phantom, monkeypatch):
    field = disc(SHAPE)
    image = np.where(field, phantom.image, 0).astype(np.uint16)
    image = np.repeat(image, 8, axis=0)
    write_ome(tmp_path / "v.zarr", image, chunks=(4, 64, 64))
    group = zarr.open_group(tmp_path / "v.zarr")
    half = image.reshape(16, 2, 192, 2, 192, 2).mean((1, 3, 5)).astype(np.uint16)
    group.create_array("1", data=half, chunks=(4, 64, 64))
    ome = group.attrs["ome"]
    coarse = {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [2, 2, 2]}]}
    ome["multiscales"][0]["datasets"].append(coarse)
    group.attrs["ome"] = ome
    pyramid = open_volume(tmp_path / "v.zarr")
    memory = open_volume(image)
    monkeypatch.setattr(coarse_values, "MOST_READ", 8 * SHAPE[1] * SHAPE[2])
    monkeypatch.setattr(coarse_values, "_LEVEL", 2**20)
    read = []
    inside = Volume.read

    def noted(self, box=None, reader=None):
        values = inside(self, box, reader)
        read.append(values.size)
        return values

    monkeypatch.setattr(Volume, "read", noted)
    for volume, factors in ((pyramid, (2, 2, 2)), (memory, (32, 2, 2))):
        read.clear()
        mask = find_material(volume)
        assert sum(read) <= image.size / 4
        assert mask.factors == factors
        assert whole(mask)[np.repeat(field, 8, axis=0)].all()
        assert mask.share > 0.15


def test_a_run_skips_the_rim_and_loses_nothing(tmp_path, round_volume, model):
    field = disc(SHAPE)
    labels = {}
    for name, mask in (("all", None), ("auto", "auto")):
        report = segment_volume(round_volume, tmp_path / f"{name}.zarr", model, mask=mask)
        labels[name] = open_labels(tmp_path / f"{name}.zarr").read()
        assert not report.failed
    assert np.array_equal(labels["auto"][field], labels["all"][field])
    assert labels["all"].all()
    kept = open_volume(tmp_path / "auto.zarr" / "mask")
    assert kept.read().max() == 1
    skipped = 1 - np.count_nonzero(labels["auto"]) / labels["auto"].size
    assert 0.15 < skipped < 0.22
    attributes = zarr.open_group(tmp_path / "auto.zarr").attrs["hrvol"]
    assert attributes["mask"]["source"] == "auto"
    assert attributes["mask"]["skipped"] == pytest.approx(skipped, abs=1e-5)
    assert attributes["complete"]
    # The mask of one output can be that of another.
    segment_volume(round_volume, tmp_path / "again.zarr", model, mask=tmp_path / "auto.zarr" / "mask")
    assert np.array_equal(open_labels(tmp_path / "again.zarr").read(), labels["auto"])


def test_blocks_of_air_are_not_computed(tmp_path, phantom, model):
    sample = disc(SHAPE, 0.35)
    air = np.clip(np.random.default_rng(0).normal(2000, 300, SHAPE), 0, None)
    image = np.where(disc(SHAPE), np.where(sample, phantom.image, air), 0).astype(np.uint16)
    shards = {}
    for name, mask in (("all", None), ("auto", "auto")):
        segment_volume(image, tmp_path / f"{name}.zarr", model, mask=mask)
        shards[name] = len(
            [f for f in (tmp_path / f"{name}.zarr/labels/hrvol/0/c").rglob("*") if f.is_file()]
        )
    assert shards["auto"] < 0.6 * shards["all"]
    every, some = (open_labels(tmp_path / f"{name}.zarr").read() for name in ("all", "auto"))
    assert np.array_equal(every[sample], some[sample])


def test_a_resumed_run_keeps_the_mask(tmp_path, round_volume, model, monkeypatch):
    out = tmp_path / "out.zarr"
    segment_volume(round_volume, out, model, mask="auto", part=(1, 2))
    first = (out / "mask" / "0" / "zarr.json").stat().st_mtime_ns
    other = find_material(open_volume(round_volume))
    cells = other.cells.copy()
    cells[:, :9] = True
    changed = CoarseMask(cells, other.factors, other.shape, other.found)
    monkeypatch.setattr(
        "hrvol.volume.background.find.find_material", lambda volume: changed
    )  # a later version
    segment_volume(round_volume, out, model, mask="auto", part=(2, 2))
    assert (out / "mask" / "0" / "zarr.json").stat().st_mtime_ns == first
    monkeypatch.undo()
    segment_volume(round_volume, tmp_path / "whole.zarr", model, mask="auto")
    assert np.array_equal(open_labels(out).read(), open_labels(tmp_path / "whole.zarr").read())
    with pytest.raises(OtherRunError, match="mask"):
        segment_volume(round_volume, out, model)
    # A damaged mask is found again, and stored again.
    (out / "mask" / "zarr.json").write_text("{")
    segment_volume(round_volume, out, model, mask="auto")
    assert open_volume(out / "mask").shape == other.cells.shape
    segment_volume(round_volume, out, model, mask="auto", overwrite=True)


def test_a_volume_without_background_is_computed_whole(tmp_path, phantom, model, caplog):
    caplog.set_level("INFO", "hrvol")
    segment_volume(phantom.image, tmp_path / "out.zarr", model, mask="auto")
    assert "mask: found no background, computing everything" in caplog.text
    assert open_labels(tmp_path / "out.zarr").read().all()
    assert not (tmp_path / "out.zarr" / "mask").exists()
    segment_volume(phantom.image, tmp_path / "out.zarr", model)  # the same run


def test_plan_and_info_show_it(tmp_path, round_volume, model, monkeypatch):
    found = plan_run(round_volume, tmp_path / "out.zarr", model, mask="auto", seconds=0.5)
    assert any(
        "rim of a round reconstruction: 2" in note or "reconstruction: 1" in note for note in found.notes
    )
    assert describe(str(round_volume), background=True)["background"]["skipped"] > 0.15
    save_model(model, tmp_path / "m.hrvol")
    run = CliRunner().invoke
    shown = run(main, ["info", str(round_volume), "--mask", "auto"])
    assert "found rim of a round reconstruction, skipped 0.1" in shown.output or "skipped 0.2" in shown.output
    line = [
        str(round_volume),
        str(tmp_path / "c.zarr"),
        "-m",
        str(tmp_path / "m.hrvol"),
        "--engine",
        "serial",
    ]
    done = run(main, ["segment", *line, "--mask", "auto"])
    assert done.exit_code == 0, done.output
    assert "found rim of a round reconstruction" in done.output
    status = run(main, ["status", str(tmp_path / "c.zarr"), "--json"])
    assert json.loads(status.stdout)["left"] == 0
