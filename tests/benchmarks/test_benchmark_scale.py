"""The machinery of ``benchmarks.runs.scale``, on volumes of a few blocks."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.runs import scale
from benchmarks.runs.scale_run import BRIGHT, DARK, copy, measure, measure_apart, phases, write_volume
from benchmarks.runs.scale_watch import Look, Watch
from hrvol.recipe.specs import TileSpec
from hrvol.volume.volume import open_labels, open_volume

TILES = TileSpec(core=64, overlap=16, planes=16)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("scale") / "volume"
    write_volume(path, (40, 150, 170))
    return path


def test_a_volume_is_read_as_any_other_and_takes_the_room_of_its_patterns(volume):
    values = open_volume(volume).read()
    assert values.shape == (40, 150, 170)
    assert sorted(np.unique(values)) == [DARK, BRIGHT]
    assert 0.3 < (values == BRIGHT).mean() < 0.7
    for here, there in (
        (np.s_[:, :64, :64], np.s_[:, :64, 64:128]),
        (np.s_[:, :64, :64], np.s_[:, 64:128, :64]),
    ):
        assert (values[here] != values[there]).mean() > 0.2
    chunks = [file for file in volume.rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(chunks) == 9
    assert all(os.stat(file).st_nlink > 1 for file in chunks)


def test_a_run_labels_the_volume_and_says_what_it_took(volume, tmp_path):
    found = measure(volume, tmp_path / "labels", TILES, 1)
    np.testing.assert_array_equal(
        open_labels(tmp_path / "labels").read(), 1 + (open_volume(volume).read() == BRIGHT)
    )
    assert (found["blocks"], found["voxels"]) == (3 * 3 * 3, 40 * 150 * 170)
    assert 0 < found["first"] < found["seconds"]
    assert 0 < found["steady"] < 2 * found["seconds"]
    assert found["computing"] * found["blocks"] < found["seconds"]
    assert found["driver"][0] > 2**20
    assert found["ledger"] > 27 * 50


def test_wrong_labels_are_noticed(volume, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.runs.scale_run.BRIGHT", DARK)
    with pytest.raises(AssertionError):
        measure(volume, tmp_path / "labels", TILES, 1)


def test_a_part_of_the_planes_is_a_part_of_the_blocks(volume, tmp_path):
    found = measure(volume, tmp_path / "labels", TILES.model_copy(update={"across": 2}), 1, 16)
    assert (found["blocks"], found["voxels"]) == (2 * 2, 16 * 150 * 170)
    assert not open_labels(tmp_path / "labels").read()[16:].any()


def test_a_run_apart_sees_its_driver_and_its_workers(tmp_path):
    write_volume(tmp_path / "volume", (4, 256, 256))
    found = measure_apart(tmp_path / "volume", tmp_path / "labels", TileSpec(core=64, overlap=8, planes=2), 2)
    assert found["blocks"] == 32
    assert min(*found["driver"], *found["worker"], found["levels_peak"]["worker"]) > 2**20
    assert found["workers_cpu"] > 0
    assert found["worker_peak"] < scale.AIM_WORKER


def test_two_halves_of_a_copy_are_the_volume(volume, tmp_path):
    halves = [copy(volume, tmp_path / "copy", TILES, 1, share) for share in ((0.0, 0.5), (0.5, 1.0))]
    assert sum(half["voxels"] for half in halves) == 40 * 150 * 170
    there = zarr.open_array(tmp_path / "copy", mode="r")
    assert there.shards == (16, 64, 64)
    np.testing.assert_array_equal(there[:], open_volume(volume).read())


def test_steps_of_a_block_take_time(volume, tmp_path):
    found = phases(volume, tmp_path / "labels", TILES, 9)
    assert list(found) == ["read", "predict", "write", "checksum"]
    assert min(found["predict"], found["write"]) > 0


def test_cost_at_the_rate_of_a_part_of_the_way():
    watch = Watch()
    watch.looks = [Look(t, done, 0, 0, t / 2, 0) for t, done in ((5, 0), (6, 10), (7, 20), (17, 40))]
    assert watch.cost("seconds", (0.25, 0.5), 40) == pytest.approx(4)
    assert watch.cost("driver_cpu", (0.25, 0.5), 40) == pytest.approx(2)
    assert watch.cost("seconds", (0.5, 1), 40) == pytest.approx(20)
    assert watch.at(0.3, 40).done == 20
