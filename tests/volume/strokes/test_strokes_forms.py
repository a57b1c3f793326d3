"""Strokes in every form are the same voxels; of sparse arrays only stored chunks are read."""

import time

import numpy as np
import pytest
import tifffile
import zarr
from run_data import SHAPE, draw, make_volume
from strokes_data import stored, write_ome, write_project
from zarr.storage import MemoryStore

from hrvol.errors import StrokesError
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.source import StrokesSource
from hrvol.volume.strokes.strokes import scan_shape
from hrvol.volume.volume import open_volume


@pytest.fixture(scope="module")
def drawn():
    strokes = draw(make_volume()[1])
    strokes[:, :40] = 0
    strokes[:, :, 100:] = 0
    return strokes


def voxels_of(strokes):
    """Everything drawn, gathered from the boxes as training does."""
    labels = np.zeros(strokes.shape, np.uint16)
    for box, part in strokes.drawn():
        assert not labels[box].any()
        labels[box] = part
    return labels


def check(strokes, drawn):
    assert strokes.shape == drawn.shape
    assert np.array_equal(voxels_of(strokes), drawn)
    for box in (np.s_[0:1, 30:90, 20:70], np.s_[0:5, 0:150, 0:130], np.s_[1:2, 0:9, 0:9]):
        assert np.array_equal(strokes.read(box), drawn[box])
        assert strokes.touches(box) or not drawn[box].any()
    assert set(strokes.planes()) >= set(np.nonzero(drawn.any(axis=(1, 2)))[0])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("shards", [None, (2, 64, 64)])
def test_sparse_zarr(tmp_path, drawn, zarr_format, separator, shards):
    if zarr_format == 2 and shards:
        pytest.skip("Zarr 2 has no shards")
    name = "v2" if zarr_format == 2 else "default"
    array = zarr.create_array(
        tmp_path / "strokes.zarr",
        shape=drawn.shape,
        dtype="uint8",
        chunks=(1, 32, 32),
        shards=shards,
        fill_value=0,
        zarr_format=zarr_format,
        chunk_key_encoding={"name": name, "separator": separator},
    )
    array[...] = drawn
    strokes = open_strokes(tmp_path / "strokes.zarr", open_volume(drawn))
    assert not strokes.dense
    assert shards or strokes.voxels < drawn.size / 2
    check(strokes, drawn)


def test_sparse_zarr_in_a_group_in_memory_and_behind_fsspec(tmp_path, drawn):
    group = zarr.create_group(tmp_path / "group.zarr")
    group.create_array("strokes", data=drawn, chunks=(1, 32, 32), fill_value=0)
    memory = zarr.create_array(MemoryStore(), data=drawn, chunks=(1, 32, 32), fill_value=0)
    for source in (tmp_path / "group.zarr", f"local://{tmp_path}/group.zarr", memory):
        strokes = open_strokes(source, open_volume(drawn))
        assert not strokes.dense, source
        check(strokes, drawn)


def test_missing_chunks_that_are_not_zero_are_read(tmp_path):
    array = zarr.create_array(
        tmp_path / "ones.zarr", shape=(4, 64, 64), dtype="uint8", chunks=(1, 32, 32), fill_value=1
    )
    array[0, 0, 0] = 2
    strokes = open_strokes(tmp_path / "ones.zarr")
    assert strokes.dense
    assert voxels_of(strokes).min() == 1


def test_a_folder_in_place_of_a_chunk_is_an_error_as_before(tmp_path, drawn):
    array = zarr.create_array(tmp_path / "s.zarr", data=drawn, chunks=(1, 32, 32), fill_value=0)
    array[...] = drawn
    (tmp_path / "s.zarr/c/2/0/0").mkdir(parents=True)
    with pytest.raises(Exception, match="found a folder, expected a chunk"):
        list(open_strokes(tmp_path / "s.zarr").drawn())


def test_a_huge_sparse_array_opens_at_once(tmp_path, monkeypatch):
    side = 10_000
    array = zarr.create_array(
        tmp_path / "huge.zarr", shape=(side,) * 3, dtype="uint8", chunks=(1, 512, 512), fill_value=0
    )
    rng = np.random.default_rng(0)
    places = rng.integers(0, side - 40, (100, 3))
    for number, (z, y, x) in enumerate(places):
        array[z, y : y + 30, x : x + 3] = 1 + number % 2
    began = time.perf_counter()
    strokes = open_strokes(tmp_path / "huge.zarr")
    assert time.perf_counter() - began < 1
    assert strokes.shape == (side,) * 3
    assert len(strokes.parts) <= 400
    asked = []
    read = type(strokes.array.array.store)._read

    def noted(self, key, byte_range):
        found = read(self, key, byte_range)
        asked.append((key, found is not None))
        return found

    monkeypatch.setattr(type(strokes.array.array.store), "_read", noted)
    drawn = sum(int(np.count_nonzero(part)) for _, part in strokes.drawn())
    assert 90 * len(places) * 0.9 < drawn <= 90 * len(places)
    assert asked
    assert all(there for _, there in asked)  # no key that is not stored
    assert len(strokes.planes()) <= 100


def test_crops(tmp_path, drawn):
    volume = open_volume(drawn)
    crop, offset = drawn[2:5, 30:110, 20:110], (2, 30, 20)
    tifffile.imwrite(tmp_path / "crop.tif", crop)
    for source in (crop, tmp_path / "crop.tif"):
        with pytest.raises(
            StrokesError, match=r"found strokes of shape \(3, 80, 90\), expected \(5, 150, 130\)"
        ):
            open_strokes(source, volume)
        strokes = open_strokes(StrokesSource(source, offset), volume)
        expected = np.zeros_like(drawn)
        expected[2:5, 30:110, 20:110] = crop
        check(strokes, expected)
    with pytest.raises(StrokesError, match="found strokes at 60:140 along y, expected a part of"):
        open_strokes(StrokesSource(crop, (2, 60, 20)), open_volume(drawn[:, :120]))


def test_crops_know_their_place_from_ome_zarr(tmp_path, drawn):
    write_ome(tmp_path / "volume.zarr", drawn, (1e-3, 0, 5e-3), (2e-3, 5e-4, 5e-4), unit="millimeter")
    crop = drawn[2:5, 30:110, 20:110]
    write_ome(tmp_path / "crop.zarr", crop, (5, 15, 15), (2, 0.5, 0.5))  # micrometres
    strokes = open_strokes(tmp_path / "crop.zarr", open_volume(tmp_path / "volume.zarr"))
    assert strokes.offset == (2, 30, 20)
    expected = np.zeros_like(drawn)
    expected[2:5, 30:110, 20:110] = crop
    check(strokes, expected)
    write_ome(tmp_path / "other.zarr", crop, (5, 15.2, 15), (2, 0.5, 0.5))
    with pytest.raises(StrokesError, match=r"30\.40 voxels from the first one .* along y"):
        open_strokes(tmp_path / "other.zarr", open_volume(tmp_path / "volume.zarr"))
    write_ome(tmp_path / "coarse.zarr", crop, (5, 15, 15), (4, 1, 1))
    with pytest.raises(StrokesError, match=r"found voxels of size 0\.004 x 0\.001 x 0\.001, expected"):
        open_strokes(tmp_path / "coarse.zarr", open_volume(tmp_path / "volume.zarr"))


def test_crops_know_their_place_from_imagej(tmp_path, drawn):
    crop = drawn[:, 30:110, 20:110]
    tifffile.imwrite(
        tmp_path / "crop.tif",
        crop,
        imagej=True,
        metadata={"axes": "ZYX", "xorigin": -20.0, "yorigin": -30.0, "spacing": 1.0, "unit": "pixel"},
    )
    strokes = open_strokes(tmp_path / "crop.tif", open_volume(drawn))
    assert strokes.offset == (0, 30, 20)
    expected = np.zeros_like(drawn)
    expected[:, 30:110, 20:110] = crop
    check(strokes, expected)
    tifffile.imwrite(
        tmp_path / "plane.tif",
        crop[3],
        imagej=True,
        metadata={"axes": "YX", "xorigin": -20.0, "yorigin": -30.0},
    )
    with pytest.raises(StrokesError, match="--offset z,y,x"):
        open_strokes(tmp_path / "plane.tif", open_volume(drawn))


@pytest.mark.parametrize("axes", ["zyxc", "zyx", "xyz", "tzyxc", "txyzc", "tyxc"])
@pytest.mark.parametrize("tagged", [True, False])
def test_ilastik_projects(tmp_path, drawn, axes, tagged):
    write_project(tmp_path / "p.ilp", [("scan", drawn)], axes=axes, tagged=tagged)
    strokes = open_strokes(tmp_path / "p.ilp", open_volume(drawn))
    check(strokes, drawn)
    assert [(info.value, info.name, info.colour) for info in strokes.classes] == [
        (1, "matrix", (255, 225, 25)),
        (2, "fibre", (0, 130, 200)),
    ]


def test_lanes_of_a_project(tmp_path, drawn):
    other = np.where(drawn == 1, 2, 0)
    file = tmp_path / "p.ilp"
    write_project(file, [("first", drawn), ("second", other), ("empty", np.zeros_like(drawn))])
    volume = open_volume(drawn)
    for lane in ("second", 1, "1", "second.h5"):
        check(open_strokes(StrokesSource(file, part=lane), volume), other)
    check(open_strokes(f"{file}::second", volume), other)
    with pytest.raises(StrokesError, match=r"labels in 2 lanes, expected one .*: 0 \(first\), 1 \(second\)"):
        open_strokes(file, volume)
    with pytest.raises(StrokesError, match=r"found no lane 'third', expected one of 0 \(first\)"):
        open_strokes(f"{file}::third", volume)
    with pytest.raises(StrokesError, match=r"found strokes at .* along x, expected a part of 0:60"):
        open_strokes(f"{file}::first", open_volume(drawn[:, :, :60]))


def test_pieces_hold_whole_chunks():
    assert scan_shape((500, 4096, 4096), (500, 4096, 4096)) == (64, 512, 512)  # in memory
    assert scan_shape((500, 4096, 4096), (1, 4096, 4096)) == (4, 4096, 4096)  # planes of a stack
    assert scan_shape((500, 4096, 4096), (64, 64, 64)) == (64, 512, 512)
    assert scan_shape((9, 100, 100), (1, 100, 100)) == (9, 100, 100)
    assert scan_shape((9, 60_000, 60_000), (1, 60_000, 60_000)) == (9, 512, 512)


def test_painted_order(drawn):
    from hrvol.volume.strokes.painted import Painted

    places, values = stored(drawn)
    order = np.random.default_rng(0).permutation(len(places))
    twice = np.concatenate([places[order], places[:5]])
    painted = Painted.of(twice, np.concatenate([values[order], [7, 7, 7, 7, 0]]))
    assert np.array_equal(painted.places, np.delete(places, 4, axis=0))
    assert painted.values[:4].tolist() == [7] * 4
    assert drawn.shape == SHAPE
